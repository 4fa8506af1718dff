"""Who is asked for the base model of a version whose engine has its merged weights and nothing else."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.contract.batch_inference import BatchInferenceConfig
from finetune_operator.contract.places import BATCH_CONFIG_ANNOTATION, EVALUATION_CONFIG_ANNOTATION
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.core.conditions import find
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.manifests.evaluation import evaluation_id, evaluation_job_name
from finetune_operator.manifests.serving import wanted_engine
from finetune_operator.reconcile import batch_inference, modelversion
from finetune_operator.reconcile.plan import Create, Plan
from finetune_operator.reconcile.served_evaluation import EvaluationFacts
from finetune_operator.resources.abtest import ABTestStatus, TestPhase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    EVALUATED,
    NOON,
    Object,
    condition,
    job_body,
    job_condition,
    make_batch,
    make_test,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
)
from tests.unit.reconcile import comparisons, engines
from tests.unit.reconcile.engines import ENGINE, engine_pod, loaded, status_of, world
from tests.unit.reconcile.test_merged_rollout import ADAPTER, MERGED, MERGED_ENGINE, asking_for, merged_pod

WANTED: Object = {"evaluation": {"metrics": ["RougeL"]}}
NOWHERE = (
    "no engine serves base model tiny-llama: that of plato-v1 has its merged weights alone; have a version of "
    "tiny-llama served as an adapter (spec.serving without mergedWeights)"
)
ALONE = loaded(1, MERGED)
BESIDE = loaded(2)
OTHERS: dict[str, tuple[ModelVersion, ...]] = {
    "nobody else": (),
    "another one, not loaded": (make_version(2),),
    "another one, by merged weights": (loaded(2, MERGED),),
    "another one, of another base model": (
        loaded(2, {"baseModel": {"name": "other", "source": {"volume": {"claimName": "models", "path": "other"}}}}),
    ),
}
nobody = pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS.keys())


def url(engine: str) -> str:
    return f"http://{engine}.finetune.svc:8000"


class TestEvaluation:
    VERSION = loaded(1, merged(MERGED, WANTED))

    def decide(self, version: ModelVersion, *others: ModelVersion, **options: Any) -> Plan:
        seen = world(version, *others, pods=(merged_pod(probed=True),), **options)
        return modelversion.reconcile(version, seen, NOON, CONFIG)

    @nobody
    def test_without_its_base_model_it_waits_and_says_for_what(self, others: tuple[ModelVersion, ...]) -> None:
        plan = self.decide(self.VERSION, *others)
        assert not any(isinstance(action, Create) for action in plan.actions)
        evaluated = find(status_of(plan).conditions, "Evaluated")
        assert evaluated is not None
        assert (evaluated.status.value, evaluated.reason, evaluated.message) == (
            "False",
            "BaseModelNotServed",
            NOWHERE,
        )

    def config_of(self, plan: Plan) -> ServedEvaluationConfig:
        (create,) = (action for action in plan.actions if isinstance(action, Create))
        annotations = create.body["spec"]["template"]["metadata"]["annotations"]
        return ServedEvaluationConfig.model_validate_json(annotations[EVALUATION_CONFIG_ANNOTATION])

    def test_the_base_model_is_asked_where_another_version_is_an_adapter_on_it(self) -> None:
        config = self.config_of(self.decide(self.VERSION, BESIDE))
        assert (config.engine_url, config.base_engine_url) == (url(MERGED_ENGINE), url(ENGINE))
        assert (config.base_model_name, config.served_name) == ("tiny-llama", "plato-v1")

    def test_the_engine_that_it_is_leaving_is_not_asked(self) -> None:
        """The status still names it in the moment of the move."""
        moving = asking_for(loaded(1, merged(ADAPTER, WANTED), active=True), MERGED)
        plan = self.decide(moving, left=(engines.engine(ENGINE, engine_pod("plato-v1")),))
        assert status_of(plan).engine == MERGED_ENGINE
        assert not any(isinstance(action, Create) for action in plan.actions)

    def test_an_adapters_own_engine_is_asked_for_both(self) -> None:
        version = loaded(1, WANTED)
        plan = engines.decide(version, world(version, BESIDE, pods=(engine_pod("plato-v1", "plato-v2"),)))
        config = self.config_of(plan)
        assert (config.engine_url, config.base_engine_url) == (url(ENGINE), None)

    def test_costs_of_two_engines_are_not_compared(self) -> None:
        serving: Object = {"serving": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
        priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": 1}))
        told = pod_facts(
            pod_body(
                "e", phase="Succeeded", main={"evaluator": terminated(0, EVALUATED.model_dump_json(by_alias=True))}
            )
        )
        for version, has_cost in (
            (loaded(1, merged(merged(MERGED, WANTED), serving)), False),
            (loaded(1, merged(WANTED, serving)), True),
        ):
            name = evaluation_job_name(version, str(evaluation_id(version.spec)))
            job = job_facts(job_body(version.metadata.uid, name=name, conditions=(job_condition("Complete"),)))
            seen = replace(world(version, BESIDE), evaluation=EvaluationFacts((job,), (told,)))
            measured = status_of(modelversion.reconcile(version, seen, NOON, priced)).evaluation
            assert measured is not None
            assert measured.mean_latency_seconds is not None
            assert measured.engine == wanted_engine(version)
            assert (measured.cost_per_answer is not None) is has_cost


class TestBatchInference:
    BATCH = make_batch({"compareWith": {"base": True}})

    def decide(self, *versions: ModelVersion, **options: Any) -> Plan:
        seen = batch_inference.Observed(versions=versions, **options)
        return batch_inference.reconcile(self.BATCH, seen, NOON, CONFIG)

    @nobody
    def test_without_its_base_model_it_waits_and_looks_again(self, others: tuple[ModelVersion, ...]) -> None:
        plan = self.decide(ALONE, *others)
        assert plan.actions == ()
        assert plan.status is not None
        assert (plan.status["phase"], plan.status["message"]) == ("Pending", NOWHERE)
        assert plan.requeue_after_seconds == CONFIG.poll_seconds

    def test_the_base_model_is_asked_where_another_version_is_an_adapter_on_it(self) -> None:
        (create,) = self.decide(ALONE, BESIDE).actions
        assert isinstance(create, Create)
        annotations = create.body["spec"]["template"]["metadata"]["annotations"]
        config = BatchInferenceConfig.model_validate_json(annotations[BATCH_CONFIG_ANNOTATION])
        assert [(model.served_name, model.engine_url) for model in config.models] == [
            ("plato-v1", url(MERGED_ENGINE)),
            ("tiny-llama", url(ENGINE)),
        ]

    def test_one_that_runs_says_what_its_rows_wait_for(self) -> None:
        job = job_facts(job_body(self.BATCH.metadata.uid, name="answers"))
        pod = pod_facts(pod_body("batch-1", main={"batch": running()}))
        plan = self.decide(ALONE, job=job, pods=(pod,))
        assert plan.status is not None
        assert plan.status["message"] == f"{NOWHERE}; rows are asked again for a while, and what was answered is kept"

    def test_without_a_base_model_to_compare_with_nothing_is_missing(self) -> None:
        plan = batch_inference.reconcile(make_batch(), batch_inference.Observed(versions=(ALONE,)), NOON, CONFIG)
        assert [type(action) for action in plan.actions] == [Create]


class TestABTest:
    TEST = make_test({"baseline": {"modelVersion": None, "base": True}, "candidate": {"modelVersion": "plato-v1"}})

    def decide(self, *versions: ModelVersion, running: bool = False) -> ABTestStatus:
        test = self.TEST.model_copy(update={"status": ABTestStatus.model_validate(comparisons.RUNNING)})
        seen = comparisons.world(comparisons.tally(), versions=versions)
        return comparisons.status_of(comparisons.decide(test if running else self.TEST, seen))

    @nobody
    def test_without_its_base_model_it_does_not_start(self, others: tuple[ModelVersion, ...]) -> None:
        status = self.decide(ALONE, *others)
        assert (status.phase, status.message) == (TestPhase.PENDING, NOWHERE)
        ready = find(status.conditions, "Ready")
        assert ready is not None
        assert ready.reason == "BaseModelNotServed"

    def test_with_another_version_as_an_adapter_it_starts(self) -> None:
        assert self.decide(ALONE, BESIDE).phase is TestPhase.RUNNING

    def test_one_that_runs_goes_on_and_says_who_gets_errors(self) -> None:
        """As where a version is not loaded for a while."""
        status = self.decide(ALONE, running=True)
        assert status.phase is TestPhase.RUNNING
        configured = find(status.conditions, "TrafficConfigured")
        assert configured is not None
        assert (configured.status.value, configured.reason) == ("False", "BaseModelNotServed")
        assert configured.message == f"the baseline's subjects get errors: {NOWHERE}"

    def test_two_versions_need_no_base_model(self) -> None:
        second = make_version(2, status={"engine": ENGINE, "conditions": [condition("Loaded")]})
        status = comparisons.status_of(
            comparisons.decide(
                make_test({"candidate": {"modelVersion": "plato-v1"}, "baseline": {"modelVersion": "plato-v2"}}),
                comparisons.world(comparisons.tally(), versions=(ALONE, second)),
            )
        )
        assert status.phase is TestPhase.RUNNING
