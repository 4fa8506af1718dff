"""Trainings and their Kubernetes Jobs, as reconciles see them."""

from typing import Any

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile.finetunejob import Observed, is_finished, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    NOON,
    REPORT,
    Object,
    after,
    job_body,
    job_condition,
    make_job,
    make_result,
    running,
    terminated,
    training_pod,
    wire,
)

JOB = make_job()
UID = JOB.metadata.uid
COMPLETE = job_condition("Complete")
FAILED = job_condition("Failed", "PodFailurePolicy", "container trainer failed")
PREPARED = terminated(0, wire(REPORT))
RESULT = make_result()
SUCCEEDED_POD = training_pod(phase="Succeeded", prepare=PREPARED, trainer=terminated(0, wire(RESULT)))
TRAINING_POD = training_pod(prepare=PREPARED, trainer=running())
STATUS_OF_TRAINING = {
    "phase": "Training",
    "jobName": "plato-ethics-1",
    "startTime": "2026-01-01T11:00:00Z",
    "progress": {"summary": "50%", "percent": 50, "eta": "20m", "etaSeconds": 1200},
}


def seen(
    *pods: Object,
    conditions: tuple[Object, ...] = (),
    versions: tuple[ModelVersion, ...] = (),
    progress: Progress | None = None,
    owner: str = UID,
    suspended: bool = False,
) -> Observed:
    """A world in which the Job exists."""
    body = job_body(owner, suspended=suspended, conditions=conditions)
    return Observed(job_facts(body), tuple(pod_facts(pod) for pod in pods), versions, progress)


def decide(job: FineTuneJob, world: Observed) -> Plan:
    return reconcile(job, world, NOON, CONFIG)


def status_of(plan: Plan) -> FineTuneJobStatus:
    assert plan.status is not None
    return FineTuneJobStatus.model_validate(plan.status)


def measured(step: int = 402, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "step": step,
        "total_steps": 600,
        "epoch": 2.0,
        "total_epochs": 3.0,
        "loss": 0.234,
        "best_loss": 0.189,
        "eta_seconds": 1200,
    }
    identity = JobIdentity(namespace="finetune", name=JOB.metadata.name, uid=UID)
    return Progress(job=identity, attempt="pod-1", time=NOON, **(values | changes))


def assert_failed(plan: Plan, reason: FailureReason, hint: str) -> None:
    """Final, with the reason for programs, and for people the remedy."""
    status = status_of(plan)
    assert (status.phase, status.completion_time) == (Phase.FAILED, NOON)
    stalled = find(status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.status, stalled.reason) == (ConditionStatus.TRUE, reason.value)
    for type_ in ("Trained", "Succeeded", "Ready", "Published"):
        found = find(status.conditions, type_)
        assert found is not None
        assert (found.status, found.reason) == (ConditionStatus.FALSE, reason.value)
    assert find(status.conditions, "Reconciling") is None
    assert status.message is not None
    assert hint in status.message
    assert is_finished(after(JOB, plan))
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", reason.value)]
    assert plan.requeue_after_seconds is None
