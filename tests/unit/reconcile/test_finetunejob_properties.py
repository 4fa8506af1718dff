"""What holds for a FineTuneJob in whatever world: the same again is no news, and what has finished stays as it is."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.conditions import find
from finetune_operator.reconcile.finetunejob import Observed, is_finished, reconcile
from finetune_operator.reconcile.plan import Create, Plan
from tests.builders import (
    CONFIG,
    NOON,
    REPORT,
    after,
    job_condition,
    make_failure,
    make_job,
    make_version,
    running,
    terminated,
    training_pod,
    waiting,
    wire,
)
from tests.unit.reconcile.trainings import COMPLETE, FAILED, JOB, RESULT, TRAINING_POD, UID, decide, measured, seen


class TestFinished:
    @pytest.mark.parametrize("type_", ["Succeeded", "Stalled"])
    @pytest.mark.parametrize("world", [Observed(), seen(TRAINING_POD), seen(conditions=(FAILED,))])
    def test_nothing_happens_to_a_finished_job_any_more(self, type_: str, world: Observed) -> None:
        condition = {
            "type": type_,
            "status": "True",
            "reason": "Published",
            "message": "",
            "lastTransitionTime": "2026-01-01T11:00:00Z",
        }
        job = make_job(status={"conditions": [condition]}, generation=2)
        assert decide(job, world) == Plan(status=job.status.to_dict() | {"observedGeneration": 2})


CONTAINERS = st.sampled_from(
    [
        None,
        running(),
        waiting("PodInitializing"),
        waiting("ImagePullBackOff", "no such image"),
        terminated(0, wire(RESULT)),
        terminated(0, wire(REPORT)),
        terminated(0, "bye"),
        terminated(1, "Traceback"),
        terminated(44, wire(make_failure(FailureReason.DATASET_EMPTY))),
        terminated(137, reason="OOMKilled"),
    ]
)
PODS = st.builds(
    training_pod,
    st.sampled_from(["pod-1", "pod-2"]),
    prepare=CONTAINERS,
    trainer=CONTAINERS,
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    created=st.sampled_from(["2026-01-01T11:30:00Z", "2026-01-01T11:40:00Z"]),
)
WORLDS = st.one_of(
    st.just(Observed()),
    st.builds(
        lambda pods, conditions, versions, progress, suspended: seen(
            *pods, conditions=conditions, versions=versions, progress=progress, suspended=suspended
        ),
        st.lists(PODS, max_size=2),
        st.sampled_from([(), (COMPLETE,), (FAILED,), (job_condition("Failed", "DeadlineExceeded"),)]),
        st.sampled_from([(), (make_version(1),), (make_version(2, {"lineage": {"jobUid": UID}}),)]),
        st.sampled_from([None, measured(1), measured(402), measured(600, loss=None, eta_seconds=None)]),
        st.booleans(),
    ),
)
STEPS = st.lists(st.tuples(WORLDS, st.booleans(), st.integers(min_value=1, max_value=3600)), min_size=1, max_size=4)


@given(STEPS)
def test_nothing_changes_means_no_write_and_times_move_with_status_only(
    steps: list[tuple[Observed, bool, int]],
) -> None:
    """However a job got where it is: the same world again plans no other status, whatever the clock says."""
    job, now = JOB, NOON
    for world, suspend, seconds in steps:
        now += timedelta(seconds=seconds)
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"suspend": suspend})})
        plan = reconcile(job, world, now, CONFIG)
        if plan.status is None:
            continue
        before, job = job, after(job, plan)
        for entry in job.status.conditions:
            old = find(before.status.conditions, entry.type)
            assert (entry.last_transition_time == now) or (old is not None and old.status is entry.status)
        again = reconcile(job, world, now + timedelta(seconds=5), CONFIG)
        if not any(isinstance(action, Create) and action.plural == "jobs" for action in plan.actions):
            assert again.status == job.status.to_dict()
            assert again.events == ()


@given(STEPS)
def test_a_finished_job_stays_as_it_is(steps: list[tuple[Observed, bool, int]]) -> None:
    job, now = JOB, NOON
    for world, _, seconds in steps:
        now += timedelta(seconds=seconds)
        plan = reconcile(job, world, now, CONFIG)
        if is_finished(job):
            assert plan == Plan(status=job.status.to_dict())
        if plan.status is not None:
            job = after(job, plan)
