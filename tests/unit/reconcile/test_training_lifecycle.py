"""A training that is queued, interrupted or cancelled, and what it has cost by then."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core import allocations
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import job_facts, pod_facts
from finetune_operator.manifests.training import training_job
from finetune_operator.reconcile.finetunejob import Observed, is_finished, reconcile
from finetune_operator.reconcile.plan import Create, Delete, Patch, Plan
from finetune_operator.resources.common import ConditionStatus
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
    make_version,
    prepared,
    running,
    terminated,
    training_pod,
    wire,
)

QUEUE = "kueue.x-k8s.io/queue-name"
PRICED = replace(CONFIG, prices=PriceBook(per_hour={"nvidia.com/gpu": Decimal("3.60"), "cpu": Decimal("0.036")}))
ON_GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
JOB = make_job(ON_GPU)
UID = JOB.metadata.uid
KUBERNETES_JOB = "plato-ethics-1"
MARK = "finetune.dev/suspended"
SUSPEND_JOB = Patch("jobs", KUBERNETES_JOB, {"metadata": {"annotations": {MARK: "true"}}, "spec": {"suspend": True}})
START_JOB = Patch("jobs", KUBERNETES_JOB, {"metadata": {"annotations": {MARK: None}}, "spec": {"suspend": False}})
DELETE_JOB = Delete("jobs", KUBERNETES_JOB, f"uid-of-{KUBERNETES_JOB}")
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T11:50:00Z"}
DRAINED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
PREPARED = terminated(0, wire(REPORT))


def trainer_pod(name: str = "pod-1", *extra: Object, trainer: Object | None = None, **options: Any) -> Object:
    """On its node since ten minutes."""
    state = running() if trainer is None else trainer
    return training_pod(name, prepare=PREPARED, trainer=state, conditions=(SCHEDULED, *extra), **options)


def world(*pods: Object, progress: Progress | None = None, gone: bool = False, **job: Any) -> Observed:
    found = None if gone else job_facts(job_body(UID, **job))
    return Observed(found, tuple(pod_facts(pod) for pod in pods), progress=progress)


def decide(job: FineTuneJob, seen: Observed, seconds: int = 0) -> Plan:
    return reconcile(job, seen, NOON + timedelta(seconds=seconds), PRICED)


def status_of(plan: Plan) -> FineTuneJobStatus:
    assert plan.status is not None
    return FineTuneJobStatus.model_validate(plan.status)


def trained(job: FineTuneJob = JOB) -> FineTuneJob:
    """As it is while its trainer runs."""
    return after(job, decide(job, world(trainer_pod())))


def changed(job: FineTuneJob, labels: dict[str, str] | None = None, **spec: object) -> FineTuneJob:
    metadata = job.metadata.model_copy(update={"labels": labels}) if labels is not None else job.metadata
    return job.model_copy(update={"spec": job.spec.model_copy(update=spec), "metadata": metadata})


def measured(step: int = 402, **changes: Any) -> Progress:
    identity = JobIdentity(namespace="finetune", name=JOB.metadata.name, uid=UID)
    values: dict[str, Any] = {"step": step, "total_steps": 600, "epoch": 2.0, "total_epochs": 3.0, "eta_seconds": 1200}
    return Progress(job=identity, attempt="pod-1", time=NOON, **(values | changes))


SAVED: dict[str, Any] = {
    "checkpoint_step": 400,
    "checkpoint_time": NOON.replace(microsecond=654321) - timedelta(seconds=9),
}


class TestCheckpoint:
    def test_it_is_shown_with_the_progress(self) -> None:
        status = status_of(decide(JOB, world(trainer_pod(), progress=measured(**SAVED))))
        assert status.checkpoint is not None
        assert status.checkpoint.to_dict() == {"step": 400, "time": "2026-01-01T11:59:51Z"}

    def test_none_was_made_yet(self) -> None:
        assert status_of(decide(JOB, world(trainer_pod(), progress=measured()))).checkpoint is None

    @pytest.mark.parametrize(("seconds", "step"), [(9, 400), (12, 450)])
    def test_a_newer_one_waits_for_the_next_write_of_progress(self, seconds: int, step: int) -> None:
        job = after(JOB, decide(JOB, world(trainer_pod(), progress=measured(**SAVED))))
        newer = measured(402, checkpoint_step=450, checkpoint_time=NOON)
        plan = decide(job, world(trainer_pod(), progress=newer), seconds)
        checkpoint = status_of(plan).checkpoint
        assert checkpoint is not None
        assert checkpoint.step == step
        assert (plan.status == job.status.to_dict()) == (step == 400)

    def test_the_same_again_is_not_written(self) -> None:
        seen = world(trainer_pod(), progress=measured(**SAVED))
        job = after(JOB, decide(JOB, seen))
        assert decide(job, seen, 3600).status == job.status.to_dict()

    def test_it_outlives_the_pod_that_made_it(self) -> None:
        job = after(JOB, decide(JOB, world(trainer_pod(), progress=measured(**SAVED))))
        status = status_of(decide(changed(job, suspend=True), world(suspended=True)))
        assert status.checkpoint == job.status.checkpoint


def cost(plan: Plan) -> tuple[str | None, str | None]:
    status = status_of(plan)
    assert status.cost is not None
    return status.cost.spent, status.cost.estimated


class TestCost:
    def test_ten_minutes_of_a_gpu_and_twenty_to_come(self) -> None:
        """3.60 an hour is a tenth of a cent a second."""
        plan = decide(JOB, world(trainer_pod(), progress=measured(eta_seconds=1200)))
        assert cost(plan) == ("0.6000", "1.80")
        status = status_of(plan)
        assert status.cost is not None
        assert (status.cost.currency, status.cost.basis) == (
            "USD",
            "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour",
        )
        assert is_true(status.conditions, "CostKnown")

    def test_without_an_end_in_sight_there_is_no_estimate(self) -> None:
        assert cost(decide(JOB, world(trainer_pod()))) == ("0.6000", None)

    def test_a_job_without_a_gpu_is_priced_by_its_cores(self) -> None:
        job = make_job({"resources": {"requests": {"cpu": "2"}}})
        assert cost(decide(job, world(trainer_pod()))) == ("0.0120", None)

    def test_the_clock_alone_writes_nothing(self) -> None:
        job = trained()
        assert decide(job, world(trainer_pod()), 3600).status == job.status.to_dict()

    def test_it_moves_with_the_progress(self) -> None:
        job = after(JOB, decide(JOB, world(trainer_pod(), progress=measured(402))))
        plan = decide(job, world(trainer_pod(), progress=measured(450, eta_seconds=600)), 600)
        assert cost(plan) == ("1.20", "1.80")

    def test_failed_attempts_count(self) -> None:
        crashed = trainer_pod("pod-1", trainer=terminated(1, finished="2026-01-01T11:55:00Z"), phase="Failed")
        again = trainer_pod("pod-2", created="2026-01-01T11:56:00Z")
        assert cost(decide(JOB, world(crashed, again))) == ("0.9000", None)

    def test_suspended_attempts_count_although_their_pods_are_deleted(self) -> None:
        """Kubernetes deletes the pods of a suspended Job."""
        asked = changed(trained(), suspend=True)
        stopping = after(asked, decide(asked, world(trainer_pod())))
        gone = after(stopping, decide(stopping, world(suspended=True), 30))
        assert gone.status.cost is not None
        assert gone.status.cost.spent == "0.6300"
        resumed = changed(gone, suspend=False)
        later = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T13:00:00Z"}
        pod = training_pod("pod-2", prepare=PREPARED, trainer=running(), conditions=(later,))
        plan = reconcile(resumed, world(pod), datetime.fromisoformat("2026-01-01T13:10:00Z"), PRICED)
        assert cost(plan) == ("1.23", None)
        assert status_of(plan).attempts == 2

    def test_an_unknown_price_is_no_0(self) -> None:
        plan = reconcile(JOB, world(trainer_pod()), NOON, CONFIG)
        status = status_of(plan)
        assert cost(plan) == (None, None)
        known = find(status.conditions, "CostKnown")
        assert known is not None
        assert (known.status, known.reason) == (ConditionStatus.FALSE, "NoPrice")
        assert 'set prices.perHour."nvidia.com/gpu"' in known.message

    def test_a_price_that_comes_later_prices_the_time_before(self) -> None:
        job = after(JOB, reconcile(JOB, world(trainer_pod()), NOON, CONFIG))
        assert cost(decide(job, world(trainer_pod()), 60)) == ("0.6600", None)

    def test_the_end_settles_it(self) -> None:
        pod = trainer_pod(
            trainer=terminated(0, wire(make_result()), finished="2026-01-01T11:58:00Z"), phase="Succeeded"
        )
        plan = decide(trained(), world(pod, conditions=(job_condition("Complete"),)), 3600)
        assert cost(plan) == ("0.4800", None)


CANCELLED = changed(trained(), cancel=True)


class TestCancel:
    def test_its_kubernetes_job_goes_and_with_it_the_pod(self) -> None:
        plan = decide(CANCELLED, world(trainer_pod()))
        assert plan.actions == (DELETE_JOB,)
        status = status_of(plan)
        assert status.phase is Phase.TRAINING
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "Cancelling"
        assert not is_finished(after(CANCELLED, plan))

    def test_it_is_final_when_the_last_pod_has_ended(self) -> None:
        waiting = decide(CANCELLED, world(trainer_pod(), gone=True))
        assert waiting.actions == ()
        assert status_of(waiting).phase is Phase.TRAINING
        plan = decide(CANCELLED, world(gone=True), 60)
        status = status_of(plan)
        assert (status.phase, status.completion_time) == (Phase.CANCELLED, NOON + timedelta(seconds=60))
        for type_ in ("Succeeded", "Trained", "Published", "Ready"):
            found = find(status.conditions, type_)
            assert found is not None
            assert (found.status, found.reason) == (ConditionStatus.FALSE, "Cancelled")
        for type_ in ("Reconciling", "Stalled", "Suspended"):
            assert find(status.conditions, type_) is None, type_
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Cancelled")]
        assert cost(plan) == ("0.6600", None)

    def test_nothing_brings_it_back(self) -> None:
        job = after(CANCELLED, decide(CANCELLED, world(gone=True)))
        for seen in (world(gone=True), world(trainer_pod()), world(conditions=(job_condition("Complete"),))):
            assert decide(job, seen, 60) == Plan(status=job.status.to_dict())

    @pytest.mark.parametrize("job", [make_job({"cancel": True}), make_job({"cancel": True, "suspend": True})])
    def test_what_has_not_begun_never_begins(self, job: FineTuneJob) -> None:
        plan = decide(job, world(gone=True))
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.CANCELLED

    def test_a_suspended_one_can_be_cancelled(self) -> None:
        job = make_job({"cancel": True, "suspend": True})
        assert decide(job, world(suspended=True)).actions == (DELETE_JOB,)

    def test_a_job_of_somebody_else_is_left_alone(self) -> None:
        foreign = Observed(job_facts(job_body("somebody-else")))
        plan = decide(make_job({"cancel": True}), foreign)
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.CANCELLED

    def test_it_comes_too_late_for_what_is_published(self) -> None:
        published = replace(world(trainer_pod()), versions=(make_version(4, {"lineage": {"jobUid": UID}}),))
        assert status_of(decide(CANCELLED, published)).phase is Phase.SUCCEEDED

    def test_it_comes_in_time_for_what_is_trained_but_not_published(self) -> None:
        done = trainer_pod(trainer=terminated(0, wire(make_result())), phase="Succeeded")
        plan = decide(CANCELLED, world(done, conditions=(job_condition("Complete"),)))
        assert plan.actions == (DELETE_JOB,)


QUEUED = make_job(ON_GPU, labels={QUEUE: "gpus"})


def in_queue(*pods: Object, suspended: bool, queue: str = "gpus") -> Observed:
    return world(*pods, suspended=suspended, labels={QUEUE: queue})


class TestQueue:
    """Kueue suspends and starts the Job; what is played here is what Kueue does to it."""

    def test_it_is_made_suspended_and_says_that_it_waits(self) -> None:
        plan = decide(QUEUED, replace(world(gone=True), preparation=prepared(QUEUED)))
        assert plan.actions == (Create("jobs", training_job(QUEUED, PRICED), UID),)
        status = status_of(plan)
        assert (status.phase, status.attempts) == (Phase.QUEUED, None)
        assert "LocalQueue gpus" in (status.message or "")

    def test_the_operator_does_not_start_it(self) -> None:
        plan = decide(QUEUED, in_queue(suspended=True))
        assert plan.actions == ()
        reconciling = find(status_of(plan).conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "Queued"

    def test_nor_does_it_stop_what_kueue_has_started(self) -> None:
        plan = decide(QUEUED, in_queue(trainer_pod(), suspended=False))
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.TRAINING

    def test_a_training_that_kueue_preempts_queues_again_and_has_not_failed(self) -> None:
        job = after(QUEUED, decide(QUEUED, in_queue(trainer_pod(), suspended=False)))
        leaving = trainer_pod(trainer=terminated(143), phase="Failed")
        plan = decide(job, in_queue(leaving, suspended=True))
        assert plan.actions == ()
        assert plan.events == ()
        assert (status_of(plan).phase, status_of(plan).last_failure) == (Phase.QUEUED, None)

    def test_suspended_by_its_user_it_leaves_the_queue(self) -> None:
        """Kueue starts each suspended Job that it has admitted, whoever suspended it."""
        job = changed(QUEUED, suspend=True)
        plan = decide(job, in_queue(trainer_pod(), suspended=False))
        assert plan.actions == (DELETE_JOB,)
        assert status_of(plan).phase is Phase.SUSPENDED
        assert decide(job, world(gone=True)).actions == ()

    def test_resumed_it_queues_again_once_the_pod_has_ended(self) -> None:
        assert decide(QUEUED, world(trainer_pod(), gone=True)).actions == ()
        assert isinstance(decide(QUEUED, world(gone=True)).actions[0], Create)

    def test_another_queue_is_taken_while_it_waits(self) -> None:
        moved = changed(QUEUED, labels={QUEUE: "spot"})
        relabel = Patch("jobs", KUBERNETES_JOB, {"metadata": {"labels": {QUEUE: "spot"}}})
        assert decide(moved, in_queue(suspended=True)).actions == (relabel,)
        assert decide(moved, in_queue(trainer_pod(), suspended=False)).actions == ()

    def test_a_queue_that_kueue_gave_it_by_default_is_respected_too(self) -> None:
        assert decide(JOB, in_queue(suspended=True)).actions == ()

    def test_without_a_queue_the_operator_starts_it(self) -> None:
        assert decide(JOB, world(suspended=True)).actions == (START_JOB,)
        assert decide(changed(JOB, suspend=True), world(trainer_pod())).actions == (SUSPEND_JOB,)


class TestHeld:
    """Kueue with `manageJobsWithoutQueueName` suspends a Job that names no queue, and leaves no trace of that."""

    def test_nobody_disputes_it_and_the_status_says_what_to_do(self) -> None:
        plan = decide(JOB, world(held=True))
        assert plan.actions == ()
        status = status_of(plan)
        assert (status.phase, status.attempts) == (Phase.QUEUED, None)
        assert f"label this FineTuneJob {QUEUE}" in (status.message or "")
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "Held"
        assert decide(after(JOB, plan), world(held=True), 60).status == plan.status

    def test_a_label_that_comes_later_goes_to_its_job(self) -> None:
        labelled = changed(JOB, labels={QUEUE: "gpus"})
        relabel = Patch("jobs", KUBERNETES_JOB, {"metadata": {"labels": {QUEUE: "gpus"}}})
        assert decide(labelled, world(held=True)).actions == (relabel,)
        assert decide(labelled, in_queue(suspended=True)).actions == ()

    def test_a_training_that_is_stopped_by_somebody_else_is_not_started_again(self) -> None:
        leaving = trainer_pod(trainer=terminated(143), phase="Failed")
        plan = decide(trained(), world(leaving, held=True))
        assert (plan.actions, plan.events) == ((), ())
        assert (status_of(plan).phase, status_of(plan).last_failure) == (Phase.QUEUED, None)

    def test_whoever_held_it_may_start_it(self) -> None:
        job = after(JOB, decide(JOB, world(held=True)))
        plan = decide(job, world(trainer_pod()))
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.TRAINING

    def test_suspended_by_its_user_too_its_job_goes_lest_somebody_starts_it(self) -> None:
        assert decide(changed(JOB, suspend=True), world(held=True)).actions == (DELETE_JOB,)

    def test_what_we_have_suspended_ourselves_we_start_again(self) -> None:
        asked = changed(trained(), suspend=True)
        assert decide(asked, world(trainer_pod())).actions == (SUSPEND_JOB,)
        quickly_resumed = changed(asked, suspend=False)
        assert decide(quickly_resumed, world(suspended=True)).actions == (START_JOB,)

    def test_what_an_earlier_release_has_suspended_we_start_too(self) -> None:
        """It left no mark, but its status said so."""
        job = after(JOB, decide(changed(JOB, suspend=True), world(suspended=True)))
        assert job.status.phase is Phase.SUSPENDED
        assert decide(job, world(held=True)).actions == (START_JOB,)


class TestLastFailure:
    def test_a_drained_pod_is_told_once_with_its_reason(self) -> None:
        drained = trainer_pod(
            "pod-1", DRAINED, trainer=terminated(143, finished="2026-01-01T11:59:00Z"), phase="Failed"
        )
        plan = decide(trained(), world(drained))
        failure = status_of(plan).last_failure
        assert failure is not None
        assert (failure.reason, failure.pod) == ("NodeDrained", "pod-1")
        assert failure.time == NOON - timedelta(seconds=60)
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "NodeDrained")]
        assert status_of(plan).phase is Phase.PENDING
        again = decide(after(JOB, plan), world(drained, trainer_pod("pod-2", created="2026-01-01T11:59:30Z")))
        assert [event.reason for event in again.events] == ["TrainingStarted"]
        assert status_of(again).last_failure == failure

    def test_each_occurrence_is_told(self) -> None:
        first = trainer_pod("pod-1", DRAINED, trainer=terminated(143), phase="Failed")
        job = after(JOB, decide(trained(), world(first)))
        second = trainer_pod("pod-2", trainer=terminated(1, "boom"), phase="Failed", created="2026-01-01T11:59:30Z")
        plan = decide(job, world(first, second))
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "Crashed")]
        assert "boom" in plan.events[0].message

    def test_a_drain_is_told_before_the_pod_has_ended(self) -> None:
        plan = decide(trained(), world(trainer_pod("pod-1", DRAINED)))
        assert [event.reason for event in plan.events] == ["NodeDrained"]

    def test_to_be_suspended_is_no_failure(self) -> None:
        leaving = trainer_pod(trainer=terminated(143), phase="Failed")
        plan = decide(changed(trained(), suspend=True), world(leaving, suspended=True))
        assert plan.events == ()
        assert status_of(plan).last_failure is None

    def test_a_final_failure_is_in_the_conditions_instead(self) -> None:
        killed = trainer_pod(trainer=terminated(137, reason="OOMKilled"), phase="Failed")
        plan = decide(trained(), world(killed, conditions=(job_condition("Failed", "PodFailurePolicy"),)))
        assert status_of(plan).last_failure is None
        assert [event.reason for event in plan.events] == ["OutOfMemory"]


TRAINERS = st.sampled_from([running(), terminated(143), terminated(1, "boom"), terminated(137, reason="OOMKilled")])
PODS = st.builds(
    trainer_pod,
    st.sampled_from(["pod-1", "pod-2", "pod-3"]),
    trainer=TRAINERS,
    phase=st.sampled_from(["Pending", "Running", "Failed"]),
    created=st.sampled_from(["2026-01-01T11:30:00Z", "2026-01-01T11:40:00Z"]),
)
WORLDS = st.builds(
    lambda pods, suspended, queued, gone, step: world(
        *{pod["metadata"]["name"]: pod for pod in pods}.values(),
        suspended=suspended,
        labels={QUEUE: "gpus"} if queued else {},
        gone=gone,
        progress=measured(step, checkpoint_step=step, checkpoint_time=NOON),
    ),
    st.lists(PODS, max_size=3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 600),
)
WISHES = st.sampled_from([{}, {}, {"suspend": True}, {"cancel": True}])
HISTORY = st.lists(st.tuples(WORLDS, WISHES, st.integers(1, 3600)), min_size=1, max_size=6)


@given(HISTORY, st.booleans())
def test_whatever_happens_time_and_attempts_only_grow_and_the_same_again_is_no_news(
    history: list[tuple[Observed, dict[str, bool], int]], queued: bool
) -> None:
    job = QUEUED if queued else JOB
    seconds, attempts, cancel = 0, 0, False
    for seen, wishes, later in history:
        seconds += later
        cancel = cancel or "cancel" in wishes
        job = changed(job, suspend="suspend" in wishes, cancel=cancel)
        before, plan = job, decide(job, seen, seconds)
        if plan.status is None:
            continue
        job = after(job, plan)
        if is_finished(before):
            assert (plan.actions, plan.events, job.status) == ((), (), before.status)
            continue
        again = decide(job, seen, seconds + 5)
        assert again.events == () or plan.actions
        assert again.status == job.status.to_dict() or plan.actions
        old, new = before.status.allocation, job.status.allocation
        assert new is not None
        now = NOON + timedelta(seconds=seconds)
        assert allocations.seconds(new, now) >= (allocations.seconds(old, NOON) if old else 0)
        assert (job.status.attempts or 0) >= attempts
        attempts = job.status.attempts or 0
        assert len(job.status.to_dict().get("conditions", [])) <= 16
