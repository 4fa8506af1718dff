"""A training whose Job has a pod for each of several nodes."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.plan import Apply, Create, Delete, Plan
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
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
    prepared,
    running,
    terminated,
    training_pod,
    waiting,
    wire,
)

PRICED = replace(CONFIG, prices=PriceBook(per_hour={"nvidia.com/gpu": Decimal("3.60")}))
JOB = make_job({"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}})
UID = JOB.metadata.uid
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:50:00Z"}
PREPARED = terminated(0, wire(REPORT))
COMPLETE = (job_condition("Complete"),)


def node(index: int, trainer: Object | None, *, name: str = "", **options: Any) -> Object:
    """The pod of one node."""
    labels = {"batch.kubernetes.io/job-completion-index": str(index)}
    options = {"conditions": (SCHEDULED,), "prepare": PREPARED} | options
    return training_pod(name or f"pod-{index}", trainer=trainer, labels=labels, **options)


def world(*pods: Object, succeeded: int = 0, **job: Any) -> Observed:
    body = job_body(UID, **job)
    body["status"]["succeeded"] = succeeded
    return Observed(job_facts(body), tuple(pod_facts(pod) for pod in pods))


def decide(job: FineTuneJob, seen: Observed, seconds: int = 0) -> Plan:
    return reconcile(job, seen, NOON + timedelta(seconds=seconds), PRICED)


def status_of(plan: Plan) -> FineTuneJobStatus:
    assert plan.status is not None
    return FineTuneJobStatus.model_validate(plan.status)


BOTH = (node(0, running()), node(1, running()))
TRAINING = after(JOB, decide(JOB, world(*BOTH)))


def test_the_service_is_there_before_the_pods_that_look_for_each_other() -> None:
    service, job = decide(JOB, Observed(preparation=prepared(JOB))).actions
    assert isinstance(service, Apply)
    assert service.plural == "services"
    assert isinstance(job, Create)
    assert job.plural == "jobs"
    assert [type(action) for action in decide(make_job(), Observed()).actions] == [Create]


PRESENT: dict[str, tuple[tuple[Object, ...], int, Phase, str]] = {
    "both prepare": ((node(0, None, prepare=running()), node(1, None, prepare=running())), 0, Phase.PREPARING, ""),
    "one trains, the other prepares": (
        (node(0, running()), node(1, None, prepare=running())), 0, Phase.PENDING, "WaitingForNodes",
    ),
    "one trains, the other's volume can't be mounted": (
        (node(0, running()), node(1, waiting("PodInitializing"), prepare=waiting("PodInitializing"))),
        0, Phase.PENDING, "WaitingForNodes",
    ),
    "one trains, no node has room for the other": (
        (
            node(0, running()),
            node(1, None, prepare=None, conditions=(
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"},
            )),
        ),
        0, Phase.PENDING, "Unschedulable",
    ),
    "both train": (BOTH, 0, Phase.TRAINING, "Training"),
    "the second has ended with the training, the first exports": (
        (node(0, running()), node(1, terminated(0), phase="Succeeded")), 1, Phase.TRAINING, "Training",
    ),
    "the same, and the second pod is gone": ((node(0, running()),), 1, Phase.TRAINING, "Training"),
}  # fmt: skip


@pytest.mark.parametrize(("pods", "succeeded", "phase", "reason"), PRESENT.values(), ids=PRESENT.keys())
def test_it_trains_once_all_nodes_do(pods: tuple[Object, ...], succeeded: int, phase: Phase, reason: str) -> None:
    status = status_of(decide(JOB, world(*pods, succeeded=succeeded)))
    assert status.phase is phase
    told = {condition.type: condition for condition in status.conditions}["Reconciling"]
    assert told.reason == reason or not reason
    if reason == "WaitingForNodes":
        assert "1 of 2 pods" in told.message
        assert "ReadWriteMany" in told.message


def test_pods_that_end_together_are_one_attempt() -> None:
    lost = [node(0, terminated(69), phase="Failed"), node(1, terminated(1, "IndexError: 7"), phase="Failed")]
    again = [node(index, running(), name=f"pod-{index}-again") for index in (0, 1)]
    status = status_of(decide(TRAINING, world(*lost, *again), 60))
    assert TRAINING.status.attempts == 1
    assert status.attempts == 2
    assert status.last_failure is not None
    assert (status.last_failure.reason, status.last_failure.pod) == ("Crashed", "pod-1")


def test_each_pod_costs() -> None:
    """Both since ten minutes, at 3.60 an hour each."""
    assert status_of(decide(JOB, world(*BOTH))).cost is not None
    cost = status_of(decide(JOB, world(*BOTH))).cost
    assert cost is not None
    assert cost.spent == "1.20"


def test_the_first_nodes_result_is_the_jobs() -> None:
    pods = (node(0, terminated(0, wire(make_result())), phase="Succeeded"), node(1, terminated(0), phase="Succeeded"))
    plan = decide(TRAINING, world(*pods, succeeded=2, conditions=COMPLETE))
    assert status_of(plan).phase is Phase.SUCCEEDED
    assert [action.plural for action in plan.actions if isinstance(action, Create)] == ["modelversions"]


def test_a_result_is_asked_for_again_if_the_first_nodes_pod_is_gone() -> None:
    """What the other one ended with says nothing of the training."""
    plan = decide(TRAINING, world(node(1, terminated(0), phase="Succeeded"), succeeded=2, conditions=COMPLETE))
    assert [type(action) for action in plan.actions] == [Delete]


def test_why_any_process_gave_up_is_told() -> None:
    failed = (job_condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),)
    pods = (node(0, terminated(69), phase="Failed"), node(1, terminated(137, reason="OOMKilled"), phase="Failed"))
    status = status_of(decide(TRAINING, world(*pods, conditions=failed)))
    assert status.phase is Phase.FAILED
    assert "spec.resources.limits.memory" in (status.message or "")


STOPPED = "2026-01-01T12:00:00Z"
ON_A_DEAD_NODE = node(1, running())
"""Its kubelet never says that it has ended."""


def test_a_failure_is_told_although_a_pod_of_a_dead_node_never_ends() -> None:
    failed = (job_condition("FailureTarget", "BackoffLimitExceeded", "too often", since=STOPPED),)
    seen = world(node(0, terminated(1, "IndexError: 7"), phase="Failed"), ON_A_DEAD_NODE, conditions=failed)
    assert decide(TRAINING, seen, 10) == Plan(requeue_after_seconds=60)
    status = status_of(decide(TRAINING, seen, 70))
    assert status.phase is Phase.FAILED
    assert "IndexError: 7" in (status.message or "")


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "BackoffLimitExceeded"])
def test_what_was_published_stands_although_a_pod_of_a_dead_node_never_ends(reason: str) -> None:
    failed = (job_condition("FailureTarget", reason, "over", since=STOPPED),)
    done = node(0, terminated(0, wire(make_result())), phase="Succeeded")
    seen = world(done, ON_A_DEAD_NODE, succeeded=1, conditions=failed)
    waiting_for_it = decide(TRAINING, seen, 10)
    assert (waiting_for_it.actions, waiting_for_it.requeue_after_seconds) == ((), 60)
    plan = decide(TRAINING, seen, 70)
    assert status_of(plan).phase is Phase.SUCCEEDED
    assert [action.plural for action in plan.actions if isinstance(action, Create)] == ["modelversions"]
