"""What is told of a training that may be or was interrupted: its last checkpoint, and why an attempt has ended."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.resources.finetunejob import Phase
from tests.builders import NOON, after, job_condition, make_failure, terminated, wire
from tests.unit.reconcile.priced_trainings import JOB, changed, decide, measured, trained, trainer_pod, world
from tests.unit.reconcile.trainings import status_of

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


DRAINED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}


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
        told = wire(make_failure(FailureReason.OUT_OF_MEMORY))
        given_up = trainer_pod(trainer=terminated(EXIT_CODES[FailureReason.OUT_OF_MEMORY], told), phase="Failed")
        plan = decide(trained(), world(given_up, conditions=(job_condition("Failed", "PodFailurePolicy"),)))
        assert status_of(plan).last_failure is None
        assert [event.reason for event in plan.events] == ["OutOfMemory"]
