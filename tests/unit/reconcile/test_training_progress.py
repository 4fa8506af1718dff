"""What is told of a training's progress while its trainer runs, and how often."""

from datetime import timedelta

import pytest

from finetune_operator.reconcile.finetunejob import Observed, reconcile, wants_progress
from tests.builders import CONFIG, NOON, after, make_job, terminated, training_pod
from tests.unit.reconcile.trainings import (
    FAILED,
    JOB,
    STATUS_OF_TRAINING,
    TRAINING_POD,
    decide,
    measured,
    seen,
    status_of,
)


class TestProgress:
    def test_what_a_measurement_looks_like(self) -> None:
        progress = status_of(decide(JOB, seen(TRAINING_POD, progress=measured()))).progress
        assert progress is not None
        assert progress.to_dict() == {
            "summary": "67%",
            "percent": 67,
            "step": 402,
            "totalSteps": 600,
            "epoch": "2.0",
            "totalEpochs": "3.0",
            "loss": "0.234",
            "bestLoss": "0.189",
            "etaSeconds": 1200,
            "eta": "20m",
            "lastUpdateTime": "2026-01-01T12:00:00Z",
        }

    @pytest.mark.parametrize(("seconds", "step"), [(0, 402), (9, 402), (10, 402), (12, 450), (600, 450)])
    def test_at_most_one_write_in_ten_seconds(self, seconds: int, step: int) -> None:
        job = after(JOB, decide(JOB, seen(TRAINING_POD, progress=measured(402))))
        later = NOON + timedelta(seconds=seconds)
        plan = reconcile(job, seen(TRAINING_POD, progress=measured(450)), later, CONFIG)
        progress = status_of(plan).progress
        assert progress is not None
        assert progress.step == step

    def test_the_same_measurement_is_not_written_again(self) -> None:
        world = seen(TRAINING_POD, progress=measured())
        job = after(JOB, decide(JOB, world))
        later = reconcile(job, world, NOON + timedelta(hours=1), CONFIG)
        assert later.status == job.status.to_dict()

    def test_no_news_changes_nothing(self) -> None:
        job = after(JOB, decide(JOB, seen(TRAINING_POD, progress=measured())))
        assert status_of(decide(job, seen(TRAINING_POD, progress=None))).progress == job.status.progress

    @pytest.mark.parametrize(
        "world",
        [
            seen(training_pod(phase="Failed", trainer=terminated(1))),
            seen(training_pod(phase="Failed", trainer=terminated(137)), conditions=(FAILED,)),
        ],
        ids=["retrying", "failed"],
    )
    def test_what_does_not_run_has_no_remaining_time(self, world: Observed) -> None:
        progress = status_of(decide(make_job(status=STATUS_OF_TRAINING), world)).progress
        assert progress is not None
        assert (progress.percent, progress.eta, progress.eta_seconds) == (50, None, None)

    def test_the_api_is_asked_only_while_the_trainer_runs(self) -> None:
        assert wants_progress(make_job(status={"phase": "Training"}))
        assert not wants_progress(make_job(status={"phase": "Preparing"}))
        assert not wants_progress(make_job(status={"phase": "Training"}, deleting=True))
