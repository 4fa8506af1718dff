"""A training that SIGTERM interrupts once, midway, and that another process resumes, against one that nothing does.

Counted is the time from the call of `train` to its return, of both attempts: all steps, the checkpoint that the first
writes because it has to leave, and in the second its loading and the rows that are passed over. What an attempt takes
before that, such as imports and the base model, is the same with every start and is told apart: it depends on the
model and the machine, not on the length of the training.
"""

from dataclasses import dataclass

from bench.report import Figure, NotMeasurable, Report
from bench.trainings import (
    EXIT_TERMINATED,
    Training,
    Trainings,
    conversations,
    in_turn,
    listed,
    median,
    trainings,
)

PAIRS = 3
STEPS = 600
INTERRUPTED_AFTER = 310  # between two checkpoints
CHECKPOINT_STEPS = 50  # the default of spec.training.saveSteps
BATCH_SIZE = 8
GOAL_SHARE = 0.05


@dataclass(frozen=True)
class Pair:
    """The same training twice; interrupted, it has two attempts."""

    unbroken: Training
    first: Training
    second: Training

    @property
    def overhead(self) -> float:
        """Share of the unbroken training's time that the interruption adds."""
        return (self.first.wall_seconds + self.second.wall_seconds) / self.unbroken.wall_seconds - 1

    @property
    def overhead_seconds(self) -> float:
        return self.first.wall_seconds + self.second.wall_seconds - self.unbroken.wall_seconds

    @property
    def cpu_overhead(self) -> float:
        """The same of CPU seconds, which other processes on the machine disturb less."""
        return (self.first.cpu_seconds + self.second.cpu_seconds) / self.unbroken.cpu_seconds - 1


def measure() -> Report:
    """The median over the pairs; raises NotMeasurable where an attempt does not end as it should."""
    with trainings() as place:
        pairs = [_pair(place, number) for number in range(PAIRS)]
    return _report(pairs)


def _pair(place: Trainings, number: int) -> Pair:
    attempts: dict[str, tuple[Training, ...]] = {}
    for kind in in_turn(("unbroken", "interrupted"), number):
        job = place.job(
            f"{kind}-{number}",
            conversations(),
            max_steps=STEPS,
            save_steps=CHECKPOINT_STEPS,
            batch_size=BATCH_SIZE,
        )
        if kind == "unbroken":
            attempts[kind] = (place.train(job),)
        else:
            first = place.train(job, f"leave@{INTERRUPTED_AFTER}", exit_code=EXIT_TERMINATED)
            if not INTERRUPTED_AFTER <= first.steps <= INTERRUPTED_AFTER + 1:
                raise NotMeasurable(f"{job.name} left after {first.steps} steps instead of {INTERRUPTED_AFTER}")
            attempts[kind] = (first, place.train(job))
        if attempts[kind][-1].steps != STEPS:
            raise NotMeasurable(f"{job.name} ended at step {attempts[kind][-1].steps} instead of {STEPS}")
    return Pair(*attempts["unbroken"], *attempts["interrupted"])


def _report(pairs: list[Pair]) -> Report:
    overhead = median(pair.overhead for pair in pairs)
    how = f"median of {len(pairs)} pairs in turn, {STEPS} steps, SIGTERM after {INTERRUPTED_AFTER}, one core"
    return Report(
        (
            Figure("time uninterrupted", f"{median(p.unbroken.wall_seconds for p in pairs):.1f} s", how),
            Figure("what one interruption adds", f"{median(p.overhead_seconds for p in pairs):.2f} s", how),
            Figure(
                "share of the steps' time",
                f"{100 * overhead:.1f} %",
                "median of the pairs' shares",
                f"<= {100 * GOAL_SHARE:.0f} %",
                overhead <= GOAL_SHARE,
            ),
            Figure(
                "share of CPU seconds",
                f"{100 * median(p.cpu_overhead for p in pairs):.1f} %",
                "the same; other processes disturb it less",
            ),
            Figure(
                "start of the second process",
                f"{median(p.second.start_seconds for p in pairs):.1f} s",
                "not counted above: from its start to the call of train, imports and loading included",
            ),
        ),
        (
            f"pairs, share of the steps' time: {listed(pair.overhead for pair in pairs)}",
            "counted: train() of both attempts, hence the checkpoint of leaving, its loading, and skipped rows; no "
            "step is made twice, since SIGTERM writes a checkpoint",
        ),
    )
