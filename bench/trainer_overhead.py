"""Steps per second of the trainer with its callbacks against the same training without them, in turn.

With: progress is posted to a local HTTP server at the product's interval, checkpoints are synced and marked. Without:
checkpoints are still saved by Transformers. Both run on one core, since a second one is where everything else runs.
"""

from dataclasses import dataclass

from bench.report import Figure, NotMeasurable, Report
from bench.trainings import Training, Trainings, conversations, in_turn, listed, median, trainings
from tests.images.training import progress_server

PAIRS = 4
STEPS = 300
CHECKPOINT_STEPS = 50  # the default of spec.training.saveSteps
BATCH_SIZE = 8
GOAL_RATIO = 0.98


@dataclass(frozen=True)
class Pair:
    """Both variants, one after the other."""

    product: Training
    bare: Training

    @property
    def ratio(self) -> float:
        """Of steps per second: 1 where the callbacks cost nothing."""
        return self.bare.wall_seconds / self.product.wall_seconds

    @property
    def cpu_ratio(self) -> float:
        """The same of steps per CPU second, which other processes on the machine disturb less."""
        return self.bare.cpu_seconds / self.product.cpu_seconds


def measure() -> Report:
    """The median over the pairs; raises NotMeasurable where the trainer's environment can't be made or it fails."""
    with trainings() as place, progress_server() as server:
        pairs = [_pair(place, number, server.url) for number in range(PAIRS)]
        posts = len(server.received) / PAIRS
    if not posts:
        raise NotMeasurable("no progress was posted: what was measured is not the product")
    return _report(pairs, posts)


def _pair(place: Trainings, number: int, progress_url: str) -> Pair:
    return Pair(**{kind: _train(place, kind, number, progress_url) for kind in in_turn(("product", "bare"), number)})


def _train(place: Trainings, kind: str, number: int, progress_url: str) -> Training:
    """The training alone: imports and the loading of the model come before its clock starts."""
    job = place.job(
        f"{kind}-{number}",
        conversations(),
        progress_url=progress_url,
        max_steps=STEPS,
        save_steps=CHECKPOINT_STEPS,
        batch_size=BATCH_SIZE,
    )
    training = place.train(job, kind)
    if training.steps != STEPS:
        raise NotMeasurable(f"{job.name} made {training.steps} steps instead of {STEPS}")
    return training


def _report(pairs: list[Pair], posts: float) -> Report:
    ratio, cpu_ratio = median(pair.ratio for pair in pairs), median(pair.cpu_ratio for pair in pairs)
    product = STEPS / median(pair.product.wall_seconds for pair in pairs)
    bare = STEPS / median(pair.bare.wall_seconds for pair in pairs)
    how = f"median of {len(pairs)} pairs in turn, {STEPS} steps each, one core"
    goal = f">= {GOAL_RATIO}"
    return Report(
        (
            Figure("steps/s with the callbacks", f"{product:.2f}", how),
            Figure("steps/s without them", f"{bare:.2f}", how),
            Figure("ratio of steps/s", f"{ratio:.3f}", "median of the pairs' ratios", goal, ratio >= GOAL_RATIO),
            Figure("ratio of steps per CPU second", f"{cpu_ratio:.3f}", "the same; other processes disturb it less"),
        ),
        (
            f"pairs, steps/s: {listed(pair.ratio for pair in pairs)}",
            f"pairs, steps per CPU second: {listed(pair.cpu_ratio for pair in pairs)}",
            f"{posts:.0f} progress posts and {STEPS // CHECKPOINT_STEPS} checkpoints in a training; pairs that differ "
            "by more than a few hundredths say that the machine was not quiet, and the ratio then says little",
        ),
    )
