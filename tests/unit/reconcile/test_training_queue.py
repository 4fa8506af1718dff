"""A training that waits in a queue or is held by somebody else: who starts it, who stops it, and what is told."""

from dataclasses import replace

from finetune_operator.core.conditions import find
from finetune_operator.manifests.training import training_job
from finetune_operator.reconcile.finetunejob import Observed
from finetune_operator.reconcile.plan import Create, Patch
from finetune_operator.resources.finetunejob import Phase
from tests.builders import Object, after, prepared, terminated
from tests.unit.reconcile.priced_trainings import (
    DELETE_JOB,
    JOB,
    KUBERNETES_JOB,
    PRICED,
    QUEUE,
    QUEUED,
    UID,
    changed,
    decide,
    trained,
    trainer_pod,
    world,
)
from tests.unit.reconcile.trainings import status_of

MARK = "finetune.dev/suspended"
SUSPEND_JOB = Patch("jobs", KUBERNETES_JOB, {"metadata": {"annotations": {MARK: "true"}}, "spec": {"suspend": True}})
START_JOB = Patch("jobs", KUBERNETES_JOB, {"metadata": {"annotations": {MARK: None}}, "spec": {"suspend": False}})


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
