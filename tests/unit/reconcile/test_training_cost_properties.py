"""Whatever happens to a training, the time that it pays for and its attempts only grow."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core import allocations
from finetune_operator.reconcile.finetunejob import Observed, is_finished
from tests.builders import NOON, after, running, terminated
from tests.unit.reconcile.priced_trainings import JOB, QUEUE, QUEUED, changed, decide, measured, trainer_pod, world

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
