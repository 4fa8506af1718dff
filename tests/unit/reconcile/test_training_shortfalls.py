"""A training that is good, but whose evaluation or best checkpoint is not: told, and no reason to fail."""

from typing import Any

import pytest

from finetune_operator.contract.artifacts import Output, OutputError
from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import LostCheckpoint
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile import finetunejob
from finetune_operator.reconcile.plan import Create, Plan
from finetune_operator.resources.finetunejob import FineTuneJobStatus, Phase
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    job_body,
    job_condition,
    make_failure,
    make_job,
    make_result,
    running,
    terminated,
    training_pod,
    wire,
)

LOST = LostCheckpoint(step=8, eval_loss=1.25, published_step=16, published_eval_loss=1.5)
WANTED: Object = {"evaluation": {"metrics": ["RougeL"]}, "training": {"earlyStopping": {"patience": 2}}}
CUT_SHORT = EvaluationReport(error="the trainer was ended while it evaluated: raise the limit")
RESULT = make_result(evaluation=CUT_SHORT, output_errors=(OutputError(output=Output.MERGED_WEIGHTS, message="ended"),))
COMPLETE = job_condition("Complete")


def decide(*pods: Object, condition: Object | None = COMPLETE, spec: Object | None = None) -> Plan:
    job = make_job(spec or {}, status={"phase": "Training"})
    conditions = (condition,) if condition else ()
    found = job_facts(job_body(job.metadata.uid, conditions=conditions))
    return finetunejob.reconcile(job, finetunejob.Observed(found, tuple(map(pod_facts, pods))), NOON, CONFIG)


def ended_well(**changes: Any) -> Object:
    return training_pod(prepare=terminated(0), trainer=terminated(0, wire(make_result(**changes))), phase="Succeeded")


def told(plan: Plan, condition: str) -> tuple[str, str, str] | None:
    found = find(FineTuneJobStatus.model_validate(plan.status).conditions, condition)
    return (found.status.value, found.reason, found.message) if found else None


def warnings(plan: Plan) -> list[str]:
    return [event.reason for event in plan.events if event.type == "Warning"]


def publishes(plan: Plan) -> bool:
    return any(isinstance(action, Create) and action.plural == "modelversions" for action in plan.actions)


def test_what_was_asked_for_and_came_is_a_condition() -> None:
    plan = decide(ended_well(evaluation=EvaluationReport(examples=12)), spec=WANTED)

    assert told(plan, "Evaluated") == ("True", "Evaluated", "12 held-out rows")
    assert told(plan, "BestPublished") == (
        "True",
        "BestPublished",
        "the state of the lowest held-out loss is published",
    )
    assert warnings(plan) == []


def test_what_was_not_asked_for_is_not_told() -> None:
    plan = decide(ended_well())

    assert (told(plan, "Evaluated"), told(plan, "BestPublished")) == (None, None)


def test_a_failed_evaluation_is_a_warning_and_a_success() -> None:
    plan = decide(ended_well(evaluation=CUT_SHORT), spec=WANTED)

    assert told(plan, "Evaluated") == ("False", "EvaluationFailed", CUT_SHORT.error)
    assert warnings(plan) == ["EvaluationFailed"]
    assert publishes(plan)
    assert (plan.status or {})["phase"] == Phase.SUCCEEDED


def test_a_loss_that_could_not_be_measured_is_told_without_metrics_too() -> None:
    plan = decide(ended_well(evaluation=CUT_SHORT, test_loss=None, base_test_loss=None))

    assert told(plan, "Evaluated") == ("False", "EvaluationFailed", CUT_SHORT.error)


@pytest.mark.parametrize(("loss", "words"), [(1.5, "published is step 16 (loss 1.5)"), (None, "(never evaluated)")])
def test_another_state_than_the_best_is_not_published_silently(loss: float | None, words: str) -> None:
    lost = LOST.model_copy(update={"published_eval_loss": loss})
    plan = decide(ended_well(lost_best=lost), spec=WANTED)

    status, reason, message = told(plan, "BestPublished") or ("", "", "")
    assert (status, reason) == ("False", "BestCheckpointLost")
    assert "best evaluation (step 8, loss 1.25) is damaged or gone" in message
    assert words in message
    assert "volume" in message
    assert warnings(plan) == ["BestCheckpointLost"]
    assert publishes(plan)


def cut_short(exit_code: int, reason: str = "", **options: Any) -> Object:
    """A trainer that was ended after it had published."""
    trainer = terminated(exit_code, wire(RESULT), reason=reason)
    return training_pod(prepare=terminated(0), trainer=trainer, phase="Failed", **options)


FAILED = job_condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
LATER_FAILURE = training_pod(
    "pod-2",
    created="2026-01-01T11:45:00Z",
    phase="Failed",
    prepare=terminated(47, wire(make_failure(FailureReason.DATABASE_UNREACHABLE))),
)
ENDINGS: dict[str, tuple[Object, tuple[Object, ...]]] = {
    "out of memory": (FAILED, (cut_short(137, "OOMKilled"),)),
    "killed, and nobody says by whom": (FAILED, (cut_short(137),)),
    "a native crash, four times": (job_condition("Failed", "BackoffLimitExceeded"), (cut_short(139),)),
    "the deadline": (job_condition("Failed", "DeadlineExceeded"), (cut_short(143),)),
    "a pod that follows fails for good": (FAILED, (cut_short(143), LATER_FAILURE)),
}


@pytest.mark.parametrize(("condition", "pods"), ENDINGS.values(), ids=ENDINGS.keys())
def test_a_trainer_that_was_ended_after_it_had_published_has_succeeded(
    condition: Object, pods: tuple[Object, ...]
) -> None:
    plan = decide(*pods, condition=condition, spec=WANTED | {"outputs": ["MergedWeights"]})

    assert publishes(plan)
    assert (plan.status or {})["phase"] == Phase.SUCCEEDED
    assert told(plan, "Evaluated") == ("False", "EvaluationFailed", CUT_SHORT.error)
    assert told(plan, "Exported") == ("False", "OutputFailed", "MergedWeights: ended")


def test_a_pod_that_still_runs_is_waited_for() -> None:
    second = training_pod("pod-2", created="2026-01-01T11:45:00Z", prepare=terminated(0), trainer=running())

    plan = decide(cut_short(139), second, condition=None, spec=WANTED)

    assert not publishes(plan)
    assert (plan.status or {})["phase"] == Phase.TRAINING
