"""When a batch's Job is made, what becomes of it, and what the status tells."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import BATCH_CONFIG_ANNOTATION
from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.workloads import JobFacts, PodFacts, job_facts, pod_facts
from finetune_operator.manifests.batch_inference import batch_job_name
from finetune_operator.reconcile.batch_inference import Observed, asked_versions, is_finished, needs, reconcile, refused
from finetune_operator.reconcile.plan import Create, Delete, Patch, Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference, BatchInferenceStatus, BatchPhase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    condition,
    job_body,
    job_condition,
    make_batch,
    make_batch_report,
    make_failure,
    make_result_file,
    make_test,
    make_version,
    pod_body,
    running,
    terminated,
    waiting,
    wire,
)

LOADED: Object = {"conditions": [condition("Loaded")]}
ONE, TWO = make_version(1, status=LOADED), make_version(2, status=LOADED)
BATCH = make_batch({"ttlSecondsAfterFinished": 600})
REPORT = make_batch_report()
COMPLETE, FAILED = job_condition("Complete"), job_condition("Failed", "BackoffLimitExceeded", "too many failures")
AWAY = make_failure(FailureReason.ENGINE_UNAVAILABLE, "no answer for 600 s", "see its log")


def job(of: BatchInference = BATCH, *conditions: Object, **options: Any) -> JobFacts:
    return job_facts(job_body(of.metadata.uid, name=batch_job_name(of), conditions=conditions, **options))


def pod(state: Object, phase: str = "Running", **options: Any) -> PodFacts:
    return pod_facts(pod_body("batch-1", phase=phase, main={"batch": state}, **options))


def said(message: BatchReport | Failure | str, exit_code: int = 0, **options: Any) -> PodFacts:
    text = message if isinstance(message, str) else wire(message)
    return pod(terminated(exit_code, text), "Failed" if exit_code else "Succeeded", **options)


def world(found: JobFacts | None = None, *pods: PodFacts, **options: Any) -> Observed:
    return Observed(versions=options.pop("versions", (ONE, TWO)), job=found, pods=pods, **options)


def decide(batch: BatchInference, seen: Observed, seconds: float = 0) -> Plan:
    return reconcile(batch, seen, NOON + timedelta(seconds=seconds), CONFIG)


def status_of(plan: Plan) -> BatchInferenceStatus:
    return BatchInferenceStatus.model_validate(plan.status)


def told(plan: Plan) -> tuple[str, str]:
    """Phase and reason."""
    status = status_of(plan)
    found = find(status.conditions, "Succeeded")
    assert found is not None
    assert status.phase is not None
    return status.phase.value, found.reason


def conditions_of(plan: Plan) -> dict[str, str]:
    return {found.type: found.status.value for found in status_of(plan).conditions}


RUNNING = after(BATCH, decide(BATCH, world(job(), pod(running()))))
UNSERVED = make_version(1, {"serving": None})
AT_PROVIDER = make_version(
    1, {"serving": None, "artifact": {"uri": "openai://ft:x", "digest": None, "baseUrl": "https://api.openai.com/v1"}}
)

WAITING: dict[str, tuple[BatchInference, tuple[ModelVersion, ...], str, str]] = {
    "no such version": (BATCH, (TWO,), "VersionNotFound", "create it, or name another one in a new BatchInference"),
    "registered only": (BATCH, (UNSERVED,), "VersionNotServed", "set its spec.serving"),
    "at its provider": (BATCH, (AT_PROVIDER,), "VersionNotServed", "answers at its provider"),
    "not loaded yet": (BATCH, (make_version(1),), "VersionNotLoaded", "waiting for ModelVersion plato-v1"),
    "the other one is not there": (
        make_batch({"compareWith": {"modelVersion": "plato-v2"}}), (ONE,), "VersionNotFound", "plato-v2",
    ),
}  # fmt: skip


class TestStart:
    def test_the_job_is_made_once_the_version_answers(self) -> None:
        plan = decide(BATCH, world())
        (create,) = plan.actions
        assert isinstance(create, Create)
        assert create.body["metadata"]["name"] == batch_job_name(BATCH)
        assert told(plan) == ("Pending", "Starting")
        assert [event.reason for event in plan.events] == ["JobCreated"]

    @pytest.mark.parametrize(("batch", "versions", "reason", "message"), WAITING.values(), ids=WAITING.keys())
    def test_none_is_made_before(
        self, batch: BatchInference, versions: tuple[ModelVersion, ...], reason: str, message: str
    ) -> None:
        plan = decide(batch, world(versions=versions))
        assert plan.actions == ()
        assert told(plan) == ("Pending", reason)
        assert message in str(status_of(plan).message)
        assert conditions_of(plan)["Reconciling"] == "True"

    def test_a_suspended_one_waits(self) -> None:
        plan = decide(make_batch({"suspend": True}), world())
        assert plan.actions == ()
        assert told(plan) == ("Suspended", "Suspended")
        assert conditions_of(plan) == {"Succeeded": "Unknown", "Ready": "False", "Suspended": "True"}

    def test_a_pod_of_a_deleted_job_must_have_ended_before(self) -> None:
        assert decide(BATCH, world(None, pod(running()))).actions == ()

    def test_the_job_of_somebody_else_ends_it(self) -> None:
        foreign = job_facts(job_body("somebody-else", name=batch_job_name(BATCH)))
        plan = decide(BATCH, world(foreign))
        assert told(plan) == ("Failed", "NameTaken")
        assert "give this BatchInference another name" in str(status_of(plan).message)

    def test_a_job_that_the_api_server_refuses_ends_it(self) -> None:
        plan = refused(BATCH, "memory", NOON, CONFIG)
        assert told(plan) == ("Failed", "InvalidConfig")

    def test_a_deleted_one_is_left_to_the_garbage_collector(self) -> None:
        assert decide(make_batch(deleting=True), world()) == Plan()

    def test_the_versions_that_are_asked(self) -> None:
        assert asked_versions(make_batch({"compareWith": {"base": True}})) == ("plato-v1",)
        assert asked_versions(make_batch({"compareWith": {"modelVersion": "plato-v2"}})) == ("plato-v1", "plato-v2")


VOTED = make_batch(
    {"modelVersion": "plato-v2", "compareWith": {"modelVersion": "plato-v1"}, "abTest": {"name": "duel"}}
)
NO_VOTES: dict[str, tuple[ABTest | None, OperatorConfig, str, str]] = {
    "no such test": (None, CONFIG, "ABTestNotFound", "ABTest duel does not exist: create it"),
    "a test of others": (
        make_test({"candidate": {"modelVersion": "plato-v3"}}), CONFIG, "ABTestOfOthers", "its candidate must be",
    ),
    "a test against the base model": (
        make_test({"baseline": {"base": True, "modelVersion": None}}), CONFIG, "ABTestOfOthers", "its baseline",
    ),
    "a test with a verdict": (make_test(status={"verdict": "Won"}), CONFIG, "ABTestConcluded", "name another one"),
    "no api": (make_test(), replace(CONFIG, api_url=None), "NoApi", "install the chart with it"),
}  # fmt: skip


class TestVoting:
    @pytest.mark.parametrize(("test", "config", "reason", "message"), NO_VOTES.values(), ids=NO_VOTES.keys())
    def test_where_nobody_could_vote_no_job_is_made(
        self, test: ABTest | None, config: OperatorConfig, reason: str, message: str
    ) -> None:
        plan = reconcile(VOTED, world(test=test), NOON, config)
        assert plan.actions == ()
        assert told(plan) == ("Pending", reason)
        assert message in str(status_of(plan).message)

    def test_the_pod_is_told_where_the_pairs_go(self) -> None:
        (create,) = decide(VOTED, world(test=make_test())).actions
        assert isinstance(create, Create)
        annotations = create.body["spec"]["template"]["metadata"]["annotations"]
        assert "abtests/uid-of-duel/pairs" in annotations[BATCH_CONFIG_ANNOTATION]

    def test_the_status_counts_the_pairs(self) -> None:
        report = REPORT.model_copy(update={"pairs": 11})
        results = status_of(decide(RUNNING, world(job(BATCH, COMPLETE), said(report)))).results
        assert results is not None
        assert results.pairs == 11

    def test_a_change_of_what_it_names_concerns_it(self) -> None:
        assert needs(VOTED) == {("modelversions", "plato-v1"), ("modelversions", "plato-v2"), ("abtests", "duel")}


UNDER_WAY: dict[str, tuple[tuple[PodFacts, ...], str, str, str]] = {
    "no pod yet": ((), "Pending", "Starting", "waiting for the pod"),
    "it asks": ((pod(running()),), "Running", "Asking", "asking plato-v1"),
    "no image": (
        (pod(waiting("ErrImagePull", "no such image"), "Pending"),), "Pending", "ErrImagePull", "image.trainer",
    ),
    "the engine was away": ((said(AWAY, 1),), "Pending", "EngineUnavailable", "will be tried again: no answer"),
    "it crashed": ((said("Traceback\nKeyError: 'x'", 1),), "Pending", "Retrying", "exited with 1: KeyError: 'x'"),
    "its node was drained": (
        (said("", 143, conditions=({"type": "DisruptionTarget", "status": "True", "reason": "x"},)),),
        "Pending", "Starting", "waiting for the pod",
    ),
}  # fmt: skip


class TestUnderWay:
    @pytest.mark.parametrize(("pods", "phase", "reason", "message"), UNDER_WAY.values(), ids=UNDER_WAY.keys())
    def test_it_tells_where_it_stands(self, pods: tuple[PodFacts, ...], phase: str, reason: str, message: str) -> None:
        plan = decide(BATCH, world(job(), *pods))
        assert told(plan) == (phase, reason)
        assert message in str(status_of(plan).message)
        assert plan.actions == ()

    def test_a_version_that_left_its_engine_is_told(self) -> None:
        plan = decide(BATCH, world(job(), pod(running()), versions=(make_version(1),)))
        assert told(plan) == ("Running", "VersionNotLoaded")

    def test_it_says_nothing_new_where_nothing_is(self) -> None:
        plan = decide(RUNNING, world(job(), pod(running())), 30)
        assert plan.status == RUNNING.status.to_dict()
        assert plan.events == ()

    @pytest.mark.parametrize(
        ("found", "pods"),
        [(job(), (pod(running()),)), (job(suspended=True), ()), (job(), ())],
        ids=["asking", "suspended", "before its pod"],
    )
    def test_cancelled_its_job_goes_and_its_answers_stay(self, found: JobFacts, pods: tuple[PodFacts, ...]) -> None:
        stopped = make_batch({"cancel": True}, status=RUNNING.status.to_dict())
        plan = decide(stopped, world(found, *pods))
        assert plan.actions == (Delete("jobs", found.name, found.uid),)
        assert told(plan) == ("Cancelled", "Cancelled")
        assert conditions_of(plan) == {"Succeeded": "False", "Ready": "False"}
        status = status_of(plan)
        assert status.completion_time == NOON
        assert status.message == (
            "spec.cancel was set; answers so far, if any, are in volume://artifacts/finetune/batches/uid-of-answers"
        )
        assert is_finished(after(stopped, plan))

    def test_cancelled_before_its_job_none_is_made(self) -> None:
        plan = decide(make_batch({"cancel": True}), world())
        assert (plan.actions, told(plan)) == ((), ("Cancelled", "Cancelled"))

    def test_what_was_done_before_it_was_cancelled_is_done(self) -> None:
        stopped = make_batch({"cancel": True}, status=RUNNING.status.to_dict())
        assert told(decide(stopped, world(job(BATCH, COMPLETE), said(REPORT)))) == ("Succeeded", "Answered")

    def test_it_is_suspended_and_goes_on(self) -> None:
        stopped = make_batch({"suspend": True}, status=RUNNING.status.to_dict())
        plan = decide(stopped, world(job(), pod(running())))
        assert [type(action) for action in plan.actions] == [Patch]
        assert told(plan)[0] == "Suspended"
        on = make_batch(status=status_of(plan).to_dict())
        (patch,) = decide(on, world(job(suspended=True))).actions
        assert isinstance(patch, Patch)
        assert patch.body["spec"] == {"suspend": False}

    def test_what_another_controller_holds_is_its_own_to_start(self) -> None:
        plan = decide(BATCH, world(job(held=True)))
        assert plan.actions == ()
        assert told(plan) == ("Pending", "Held")


def measured(step: int, **changes: Any) -> Progress:
    fields: dict[str, Any] = {"total_steps": 24, "epoch": step / 24, "total_epochs": 1.0, "time": NOON, "attempt": "a"}
    identity = JobIdentity(namespace="finetune", name="answers", uid=BATCH.metadata.uid)
    return Progress(job=identity, step=step, **(fields | {"failed_rows": 2, "eta_seconds": 90} | changes))


class TestProgress:
    def test_it_is_rows_of_all_models(self) -> None:
        progress = status_of(decide(RUNNING, world(job(), pod(running()), progress=measured(6)))).progress
        assert progress is not None
        assert (progress.done, progress.total, progress.failed, progress.percent) == (6, 24, 2, 25)
        assert (progress.summary, progress.eta_seconds, progress.eta) == ("25%", 90, "1m30s")

    def test_it_is_written_at_most_once_in_ten_seconds(self) -> None:
        seen = world(job(), pod(running()), progress=measured(6))
        batch = after(RUNNING, decide(RUNNING, seen))
        later = world(job(), pod(running()), progress=measured(7))
        assert decide(batch, later, 9.9).status == batch.status.to_dict()
        fresh = status_of(decide(batch, later, 12)).progress
        assert fresh is not None
        assert fresh.done == 7

    def test_what_is_no_news_is_not_written(self) -> None:
        seen = world(job(), pod(running()), progress=measured(6))
        batch = after(RUNNING, decide(RUNNING, seen))
        assert decide(batch, seen, 60).status == batch.status.to_dict()

    def test_a_stopped_one_has_no_time_left(self) -> None:
        batch = after(RUNNING, decide(RUNNING, world(job(), pod(running()), progress=measured(6))))
        progress = status_of(decide(batch, world(job(), said(AWAY, 1)), 20)).progress
        assert progress is not None
        assert (progress.done, progress.eta_seconds, progress.eta) == (6, None, None)


DEADLINE = job_condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
BAD_ENDS: dict[str, tuple[Object, PodFacts, str, str]] = {
    "the engine stayed away": (FAILED, said(AWAY, 1), "EngineUnavailable", "no answer for 600 s: see its log"),
    "the volume is full": (
        FAILED,
        said(make_failure(FailureReason.STORAGE_EXCEEDED, "no space left", "enlarge the volume"), 43),
        "StorageExceeded",
        "enlarge the volume",
    ),
    "too slow": (DEADLINE, said("", 143), "DeadlineExceeded", "spec.activeDeadlineSeconds"),
    "no word": (FAILED, said("Segmentation fault", 139), "PodFailed", "exited with 139: Segmentation fault"),
    "too little memory": (
        FAILED, pod(terminated(137, reason="OOMKilled"), "Failed"), "PodFailed", "lower spec.limit",
    ),
    "no report": (COMPLETE, said("what?"), "PodFailed", "without a readable report"),
}  # fmt: skip


class TestEnd:
    def test_a_report_becomes_the_status(self) -> None:
        report = make_batch_report(make_result_file(), make_result_file("tiny-llama", failed=1, first_error="too long"))
        plan = decide(RUNNING, world(job(BATCH, COMPLETE), said(report)), 100)
        status = status_of(plan)
        assert told(plan) == ("Succeeded", "Answered")
        assert conditions_of(plan) == {"Succeeded": "True", "Ready": "True"}
        assert status.message == "12 rows answered by plato-v1 and tiny-llama, 1 of them not, the first: too long"
        assert status.results is not None
        assert status.results.uri == f"volume://artifacts/finetune/batches/{BATCH.metadata.uid}"
        assert (status.results.rows, status.results.failed) == (12, 1)
        assert [model.file for model in status.results.models] == [
            "results/plato-v1.jsonl", "results/tiny-llama.jsonl",
        ]  # fmt: skip
        assert status.tokens is not None
        assert (status.tokens.prompt, status.tokens.completion) == (240, 120)
        assert status.progress is not None
        assert (status.progress.summary, status.progress.done, status.progress.failed) == ("100%", 24, 1)
        assert status.completion_time == NOON + timedelta(seconds=100)
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Answered")]

    @pytest.mark.parametrize(("ending", "ended", "reason", "message"), BAD_ENDS.values(), ids=BAD_ENDS.keys())
    def test_a_bad_one_says_what_to_change(self, ending: Object, ended: PodFacts, reason: str, message: str) -> None:
        plan = decide(RUNNING, world(job(BATCH, ending), ended))
        assert told(plan) == ("Failed", reason)
        assert message in str(status_of(plan).message)
        assert conditions_of(plan) == {"Succeeded": "False", "Ready": "False", "Stalled": "True"}
        assert [event.type for event in plan.events] == ["Warning"]
        directory = f"volume://artifacts/finetune/batches/{BATCH.metadata.uid}"
        assert status_of(plan).directory == directory
        assert str(status_of(plan).message).endswith(f"; answers so far, if any, are in {directory}")

    def test_a_pod_that_may_know_why_is_waited_for(self) -> None:
        going = job_condition("FailureTarget", "PodFailurePolicy", since="2026-01-01T12:00:00Z")
        seen = world(job(BATCH, going), pod(running()))
        plan = decide(RUNNING, seen, 5)
        assert (plan.status, plan.requeue_after_seconds) == (None, 35)
        assert told(decide(RUNNING, seen, 41)) == ("Failed", "PodFailed")

    def test_a_complete_job_whose_pod_is_yet_to_be_seen_to_end_is_waited_for(self) -> None:
        assert decide(RUNNING, world(job(BATCH, COMPLETE), pod(running()))) == Plan()

    def test_a_report_that_is_gone_with_its_pod_is_told_again_by_another(self) -> None:
        (action,) = decide(RUNNING, world(job(BATCH, COMPLETE))).actions
        assert isinstance(action, Delete)
        (create,) = decide(RUNNING, world()).actions
        assert isinstance(create, Create)

    def test_it_is_final(self) -> None:
        done = after(RUNNING, decide(RUNNING, world(job(BATCH, COMPLETE), said(REPORT))))
        assert is_finished(done)
        assert done.status.phase is BatchPhase.SUCCEEDED
        assert decide(done, world(versions=())) == Plan(status=done.status.to_dict())

    def test_only_then_its_job_is_told_when_to_go(self) -> None:
        seen = world(job(BATCH, COMPLETE), said(REPORT))
        done = after(RUNNING, decide(RUNNING, seen))
        assert not [action for action in decide(RUNNING, seen).actions if isinstance(action, Patch)]
        (patch,) = decide(done, seen).actions
        assert patch == Patch("jobs", batch_job_name(BATCH), {"spec": {"ttlSecondsAfterFinished": 600}})
