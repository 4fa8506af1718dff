"""Backend Unsloth against backend HuggingFace (TRL and PEFT alone) on the same rows: speed and memory.

On a CPU Unsloth has none of its kernels, so that the figures say what the backends cost, not what Unsloth is for; the
table names the device.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.report import Figure, NotMeasurable, Report
from bench.trainings import Training, Trainings, conversations, in_turn, listed, median, trainings

PAIRS = 3
STEPS = 300
BATCH_SIZE = 8
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Pair:
    """Both backends, one after the other."""

    unsloth: Training
    hugging_face: Training

    @property
    def speed_ratio(self) -> float:
        """Of steps per second: above 1 where Unsloth is faster."""
        return self.hugging_face.wall_seconds / self.unsloth.wall_seconds

    @property
    def cpu_ratio(self) -> float:
        """The same of steps per CPU second, which other processes on the machine disturb less."""
        return self.hugging_face.cpu_seconds / self.unsloth.cpu_seconds

    @property
    def memory_ratio(self) -> float:
        """Of the peak: below 1 where Unsloth needs less."""
        return peak_bytes(self.unsloth) / peak_bytes(self.hugging_face)


def peak_bytes(training: Training) -> int:
    """Of the GPU where there is one, else of the process with all its libraries."""
    return training.peak_resident_bytes if training.peak_gpu_bytes is None else training.peak_gpu_bytes


def measure() -> Report:
    """The median over the pairs."""
    with trainings() as place:
        pairs = [_pair(place, number) for number in range(PAIRS)]
    return _report(pairs)


def _pair(place: Trainings, number: int) -> Pair:
    found = {backend: _train(place, backend, number) for backend in in_turn(("Unsloth", "HuggingFace"), number)}
    return Pair(found["Unsloth"], found["HuggingFace"])


def _train(place: Trainings, backend: str, number: int) -> Training:
    job = place.job(
        f"{backend}-{number}".lower(),
        conversations(),
        backend=backend,
        max_steps=STEPS,
        save_steps=10_000,
        batch_size=BATCH_SIZE,
    )
    training = place.train(job)
    if training.steps != STEPS:
        raise NotMeasurable(f"{job.name} made {training.steps} steps instead of {STEPS}")
    return training


def _report(pairs: list[Pair]) -> Report:
    device = "CPU" if pairs[0].unsloth.peak_gpu_bytes is None else "GPU"
    how = f"{device}: median of {len(pairs)} pairs in turn, {STEPS} steps of a tiny model"
    unsloth = median(pair.unsloth.wall_seconds for pair in pairs)
    hugging_face = median(pair.hugging_face.wall_seconds for pair in pairs)
    return Report(
        (
            Figure("steps/s, Unsloth", f"{STEPS / unsloth:.2f}", how),
            Figure("steps/s, HuggingFace", f"{STEPS / hugging_face:.2f}", how),
            Figure("ratio of steps/s", f"{median(pair.speed_ratio for pair in pairs):.2f}", f"{device}: of the pairs"),
            Figure(
                "ratio of steps per CPU second",
                f"{median(pair.cpu_ratio for pair in pairs):.2f}",
                "the same; other processes disturb it less",
            ),
            Figure("peak memory, Unsloth", _mebibytes(pair.unsloth for pair in pairs), _of_what(device)),
            Figure("peak memory, HuggingFace", _mebibytes(pair.hugging_face for pair in pairs), _of_what(device)),
            Figure(
                "ratio of peak memory", f"{median(pair.memory_ratio for pair in pairs):.2f}", f"{device}: of the pairs"
            ),
        ),
        (f"pairs, steps/s: {listed(pair.speed_ratio for pair in pairs)}",),
    )


def _mebibytes(found: Iterable[Training]) -> str:
    return f"{median(peak_bytes(training) for training in found) / MEBIBYTE:.0f} MiB"


def _of_what(device: str) -> str:
    return "torch's on the GPU" if device == "GPU" else "CPU: resident, most of it libraries: the model is tiny"
