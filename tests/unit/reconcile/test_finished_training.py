"""A training at its end: nothing makes it train again, and its cost is closed."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.core import allocations
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.manifests.training import training_job
from finetune_operator.reconcile.finetunejob import Observed, is_finished, reconcile
from finetune_operator.reconcile.plan import Patch, Plan
from finetune_operator.resources.finetunejob import FineTuneJob, Phase
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

PRICED = replace(CONFIG, prices=PriceBook(per_hour={"nvidia.com/gpu": Decimal("3.60")}))
JOB = make_job({"resources": {"limits": {"nvidia.com/gpu": 1}}, "ttlSecondsAfterFinished": 600})
KUBERNETES_JOB = "plato-ethics-1"
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:50:00Z"}
COMPLETE = job_condition("Complete")


def trainer_pod(trainer: Object, phase: str, **options: Any) -> Object:
    return training_pod(
        prepare=terminated(0, wire(REPORT)), trainer=trainer, phase=phase, conditions=(SCHEDULED,), **options
    )


DONE = trainer_pod(terminated(0, wire(make_result()), finished="2026-01-01T11:58:00Z"), "Succeeded")
OUT_OF_MEMORY = trainer_pod(terminated(137, reason="OOMKilled", finished="2026-01-01T11:58:00Z"), "Failed")
RUNNING = trainer_pod(running(), "Running")


def world(*pods: Object, gone: bool = False, **job: Any) -> Observed:
    found = None if gone else job_facts(job_body(JOB.metadata.uid, **job))
    return Observed(found, tuple(pod_facts(pod) for pod in pods))


def decide(job: FineTuneJob, seen: Observed, seconds: int = 0, config: OperatorConfig = PRICED) -> Plan:
    return reconcile(job, seen, NOON + timedelta(seconds=seconds), config)


def cancelled(job: FineTuneJob) -> FineTuneJob:
    return job.model_copy(update={"spec": job.spec.model_copy(update={"cancel": True})})


ENDS = {
    Phase.SUCCEEDED: (JOB, world(DONE, conditions=(COMPLETE,))),
    Phase.FAILED: (JOB, world(OUT_OF_MEMORY, conditions=(job_condition("Failed", "PodFailurePolicy"),))),
    Phase.CANCELLED: (cancelled(JOB), world(gone=True)),
}


def ended(phase: Phase) -> FineTuneJob:
    """As its status says once it has ended in this way."""
    job, seen = ENDS[phase]
    job = after(job, decide(job, seen))
    assert job.status.phase is phase
    return job


class TestTimeToLive:
    """Kubernetes counts it from the Job's end, whether or not an operator was there to see that end."""

    def test_a_job_whose_end_nobody_has_seen_yet_has_none(self) -> None:
        assert "ttlSecondsAfterFinished" not in training_job(JOB, CONFIG)["spec"]

    @pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
    def test_it_is_told_once_the_end_is_in_the_status(self, phase: Phase) -> None:
        job, seen = ENDS[phase]
        told = Patch("jobs", KUBERNETES_JOB, {"spec": {"ttlSecondsAfterFinished": 600}})
        assert told not in decide(job, seen).actions
        plan = decide(ended(phase), seen)
        assert plan.actions == (told,)
        assert plan.status == ended(phase).status.to_dict()
        assert decide(ended(phase), world(ttl_seconds=600)).actions == ()

    @pytest.mark.parametrize("phase", ENDS)
    def test_the_job_that_is_gone_is_not_made_anew(self, phase: Phase) -> None:
        job = ended(phase)
        assert decide(job, world(gone=True), 3600) == Plan(status=job.status.to_dict())

    @pytest.mark.parametrize("later", [3600, None])
    def test_it_can_be_changed_afterwards(self, later: int | None) -> None:
        job = ended(Phase.FAILED)
        edited = job.model_copy(
            update={
                "spec": job.spec.model_copy(update={"ttl_seconds_after_finished": later}),
                "metadata": job.metadata.model_copy(update={"generation": 2}),
            }
        )
        plan = decide(edited, world(ttl_seconds=600))
        assert plan.actions == (Patch("jobs", KUBERNETES_JOB, {"spec": {"ttlSecondsAfterFinished": later}}),)
        assert decide(after(edited, plan), world(ttl_seconds=later)).actions == ()

    def test_what_a_policy_of_the_cluster_makes_of_it_stays(self) -> None:
        assert decide(ended(Phase.FAILED), world(ttl_seconds=60)).actions == ()

    def test_the_job_of_somebody_else_is_left_alone(self) -> None:
        foreign = Observed(job_facts(job_body("somebody-else")))
        job = after(JOB, decide(JOB, foreign))
        assert is_finished(job)
        assert decide(job, foreign).actions == ()


STOPPED_AT = "2026-01-01T12:00:00Z"
OVER_TIME = job_condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified", since=STOPPED_AT)


def stopped() -> FineTuneJob:
    """As it is when its time is over and its pod was told to leave."""
    job = after(JOB, decide(JOB, world(RUNNING)))
    return after(job, decide(job, world(RUNNING, conditions=(OVER_TIME,)), 2))


class TestDeadline:
    """The pod has a minute to write its checkpoint, which costs as much as any other."""

    def test_it_is_told_while_the_pod_leaves_and_final_when_it_has_ended(self) -> None:
        job = stopped()
        assert job.status.phase is Phase.TRAINING
        assert not is_finished(job)
        reconciling = find(job.status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "DeadlineExceeded"
        left = trainer_pod(terminated(143, finished="2026-01-01T12:00:40Z"), "Failed")
        job = after(job, decide(job, world(left, conditions=(OVER_TIME,)), 60))
        assert (job.status.phase, spent(job), open_pods(job)) == (Phase.FAILED, "0.6400", 0)
        stalled = find(job.status.conditions, "Stalled")
        assert stalled is not None
        assert stalled.reason == "DeadlineExceeded"

    def test_the_same_again_is_no_news_and_asks_to_look_later(self) -> None:
        plan = decide(stopped(), world(RUNNING, conditions=(OVER_TIME,)), 10)
        assert (plan.status, plan.actions, plan.events) == (stopped().status.to_dict(), (), ())
        assert plan.requeue_after_seconds == 60

    def test_a_pod_of_a_dead_node_is_not_waited_for(self) -> None:
        """Its kubelet never says that it has ended; it can't have run for longer than its grace period."""
        job = after(stopped(), decide(stopped(), world(RUNNING, conditions=(OVER_TIME,)), 70))
        assert (job.status.phase, spent(job), open_pods(job)) == (Phase.FAILED, "0.6600", 0)

    def test_pods_that_are_gone_have_ended_too(self) -> None:
        job = after(stopped(), decide(stopped(), world(conditions=(OVER_TIME,)), 30))
        assert (job.status.phase, spent(job), open_pods(job)) == (Phase.FAILED, "0.6300", 0)


@pytest.mark.parametrize("phase", ENDS)
@pytest.mark.parametrize("pod", [RUNNING, DONE, OUT_OF_MEMORY])
def test_whatever_ends_a_training_its_cost_is_closed(phase: Phase, pod: Object) -> None:
    """Also where a second pod, of another node or of a Job that was made twice, has not been seen to end."""
    began = after(JOB, decide(JOB, world(RUNNING)))
    job, seen = ENDS[phase]
    second = pod_facts(pod | {"metadata": pod["metadata"] | {"name": "pod-2", "uid": "uid-of-pod-2"}})
    job = job.model_copy(update={"status": began.status})
    for seconds in (0, 3600):
        job = after(job, decide(job, replace(seen, pods=(*seen.pods, second)), seconds))
    if is_finished(job):
        assert open_pods(job) == 0
    else:
        assert (phase, pod) == (Phase.CANCELLED, RUNNING)


def spent(job: FineTuneJob) -> str | None:
    return job.status.cost.spent if job.status.cost else None


def open_pods(job: FineTuneJob) -> int:
    assert job.status.allocation is not None
    return allocations.running(job.status.allocation)
