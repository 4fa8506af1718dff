"""A Job that asks for the base model at an engine that goes, while another one has it or will have it."""

from dataclasses import replace

import pytest

from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import JobFacts, job_facts, pod_facts
from finetune_operator.manifests.batch_inference import batch_job_name
from finetune_operator.manifests.evaluation import evaluation_id, evaluation_job, evaluation_job_name
from finetune_operator.manifests.serving import wanted_engine
from finetune_operator.reconcile import batch_inference
from finetune_operator.reconcile.plan import Create, Delete, Plan
from finetune_operator.reconcile.served_evaluation import EvaluationFacts
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    job_body,
    job_condition,
    make_batch,
    make_version,
    merged,
    pod_body,
    running,
)
from tests.unit.reconcile.engines import decide, loaded, status_of, world
from tests.unit.reconcile.test_merged_rollout import MERGED, merged_pod

VERSION = loaded(1, merged(MERGED, {"evaluation": {"metrics": ["RougeL"]}}))
NAME = evaluation_job_name(VERSION, str(evaluation_id(VERSION.spec)))
V2 = loaded(2)
V3 = loaded(3, {"serving": {"maxModelLen": 1024}})
FORMER, NEXT = str(wanted_engine(V2)), str(wanted_engine(V3))
BLINKING = make_version(2, status={"engine": FORMER})
GONE: dict[str, tuple[ModelVersion, ...]] = {
    "deleted": (),
    "archived": (make_version(2, {"state": "Archived"}, status={"engine": FORMER}),),
    "moved": (loaded(2, MERGED),),
}
gone = pytest.mark.parametrize("gone", GONE.values(), ids=GONE.keys())
FAILED = (job_condition("Failed", "BackoffLimitExceeded"),)


def facts(owner: str, name: str, asked: str | None = FORMER, conditions: tuple[Object, ...] = ()) -> JobFacts:
    labels = {"finetune.dev/base-engine": asked} if asked else {}
    return job_facts(job_body(owner, name=name, conditions=conditions, labels=labels))


class TestEvaluation:
    def decide(self, job: JobFacts | None, *others: ModelVersion, version: ModelVersion = VERSION) -> Plan:
        seen = world(version, *others, pods=(merged_pod(probed=True),))
        return decide(version, replace(seen, evaluation=EvaluationFacts((job,) if job else ())))

    def job(self, asked: str | None = FORMER, conditions: tuple[Object, ...] = ()) -> JobFacts:
        return facts(VERSION.metadata.uid, NAME, asked, conditions)

    def test_the_job_tells_whom_it_asks_only_where_that_may_change(self) -> None:
        identity = str(evaluation_id(VERSION.spec))
        body = evaluation_job(VERSION, identity, CONFIG, FORMER)
        assert job_facts(body | {"metadata": body["metadata"] | {"uid": "uid"}}).base_engine == FORMER
        assert "finetune.dev/base-engine" not in body["spec"]["template"]["metadata"]["labels"]
        alone = evaluation_job(VERSION, identity, CONFIG, wanted_engine(VERSION))
        assert "finetune.dev/base-engine" not in alone["metadata"]["labels"]

    @gone
    @pytest.mark.parametrize("conditions", [(), FAILED], ids=["asking", "failed"])
    def test_it_is_made_anew_at_another_engine_once(
        self, gone: tuple[ModelVersion, ...], conditions: tuple[Object, ...]
    ) -> None:
        plan = self.decide(self.job(conditions=conditions), *gone, V3)
        assert plan.actions == (Delete("jobs", NAME, f"uid-of-{NAME}"),)
        evaluated = find(status_of(plan).conditions, "Evaluated")
        assert evaluated is not None
        assert (evaluated.reason, evaluated.message) == (
            "Starting",
            f"Job {NAME} is being made anew: {FORMER} has the base model no longer, {NEXT} has",
        )
        assert plan.events == ()
        (create,) = self.decide(None, *gone, V3, version=after(VERSION, plan)).actions
        assert isinstance(create, Create)
        made = job_facts(create.body | {"metadata": create.body["metadata"] | {"uid": "new"}})
        assert (made.name, made.base_engine) == (NAME, NEXT)
        for ended in ((), FAILED):
            assert self.decide(self.job(NEXT, ended), *gone, V3).actions == ()

    @pytest.mark.parametrize(
        ("others", "asked", "conditions"),
        [
            pytest.param((V2, V3), FORMER, FAILED, id="there still, the failure is another one"),
            pytest.param((V2, V3), NEXT, (), id="there too, whichever comes first"),
            pytest.param((BLINKING, V3), FORMER, (), id="away for a moment"),
            pytest.param((), FORMER, (), id="gone, and no other there"),
            pytest.param((), FORMER, FAILED, id="gone, no other there, and failed"),
            pytest.param((V3,), FORMER, (job_condition("Complete"),), id="complete"),
            pytest.param((V3,), None, (), id="of an earlier release"),
        ],
    )
    def test_otherwise_it_stays(
        self, others: tuple[ModelVersion, ...], asked: str | None, conditions: tuple[Object, ...]
    ) -> None:
        job = self.job(asked, conditions)
        pods = (pod_facts(pod_body("evaluator", main={"evaluator": running()})),)
        seen = replace(
            world(VERSION, *others, pods=(merged_pod(probed=True),)), evaluation=EvaluationFacts((job,), pods)
        )
        assert decide(VERSION, seen).actions == ()


class TestBatchInference:
    BATCH = make_batch({"compareWith": {"base": True}})
    NAME = batch_job_name(BATCH)
    POD = pod_facts(pod_body("batch-1", main={"batch": running()}))

    def decide(self, *versions: ModelVersion, asked: str | None = FORMER) -> Plan:
        job = facts(self.BATCH.metadata.uid, self.NAME, asked) if asked else None
        seen = batch_inference.Observed(versions=(VERSION, *versions), job=job, pods=(self.POD,) if job else ())
        return batch_inference.reconcile(self.BATCH, seen, NOON, CONFIG)

    @gone
    def test_it_is_made_anew_at_another_engine_once(self, gone: tuple[ModelVersion, ...]) -> None:
        plan = self.decide(*gone, V3)
        assert plan.actions == (Delete("jobs", self.NAME, f"uid-of-{self.NAME}"),)
        assert plan.status is not None
        assert (plan.status["phase"], plan.status["message"]) == (
            "Pending",
            f"{FORMER} has the base model no longer: Job {self.NAME} is made anew and asks another engine",
        )
        (create,) = self.decide(*gone, V3, asked=None).actions
        assert isinstance(create, Create)
        assert create.body["metadata"]["labels"]["finetune.dev/base-engine"] == NEXT
        assert self.decide(*gone, V3, asked=NEXT).actions == ()

    @pytest.mark.parametrize("others", [(V2, V3), (BLINKING, V3), ()], ids=["there", "away for a moment", "no other"])
    def test_otherwise_it_stays(self, others: tuple[ModelVersion, ...]) -> None:
        assert self.decide(*others).actions == ()
