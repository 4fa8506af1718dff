"""Steps per second of the trainer with its callbacks against the same training without them, in turn.

With: progress is posted to a local HTTP server at the product's interval, checkpoints are synced and marked. Without:
checkpoints are still saved by Transformers. Both run on one core, since a second one is where everything else runs.
"""

import json
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import REPOSITORY, Figure, NotMeasurable, Report
from demo.conversations import load_conversations
from tests.images.ml_environment import ensure_python
from tests.images.training import TOKEN, Job, environment_of_images, make_job, progress_server

PAIRS = 4
STEPS = 300
CHECKPOINT_STEPS = 50  # the default of spec.training.saveSteps
BATCH_SIZE = 8
GOAL_RATIO = 0.98
SHOWN_LOG_CHARACTERS = 1500
BASE_MODEL_SECONDS = 5


@dataclass(frozen=True)
class Training:
    """What one training of `STEPS` steps took."""

    wall_seconds: float
    cpu_seconds: float


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
    try:
        python = ensure_python()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        raise NotMeasurable(f"the trainer's Python environment can't be made: {error}") from error
    with tempfile.TemporaryDirectory() as directory, progress_server() as server:
        trainings = Trainings(python, Path(directory), server.url)
        trainings.make_base_model()
        pairs = [trainings.pair(number) for number in range(PAIRS)]
        posts = len(server.received) / PAIRS
    if not posts:
        raise NotMeasurable("no progress was posted: what was measured is not the product")
    return _report(pairs, posts)


def _report(pairs: list[Pair], posts: float) -> Report:
    ratio, cpu_ratio = (
        statistics.median(values) for values in zip(*((p.ratio, p.cpu_ratio) for p in pairs), strict=True)
    )
    product = STEPS / statistics.median(pair.product.wall_seconds for pair in pairs)
    bare = STEPS / statistics.median(pair.bare.wall_seconds for pair in pairs)
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
            "pairs, steps/s: " + ", ".join(f"{pair.ratio:.3f}" for pair in pairs),
            "pairs, steps per CPU second: " + ", ".join(f"{pair.cpu_ratio:.3f}" for pair in pairs),
            f"{posts:.0f} progress posts and {STEPS // CHECKPOINT_STEPS} checkpoints in a training; pairs that differ "
            "by more than a few hundredths say that the machine was not quiet, and the ratio then says little",
        ),
    )


@dataclass(frozen=True)
class Trainings:
    """Trainings in one directory, all from the same base model and rows."""

    python: Path
    directory: Path
    progress_url: str

    def make_base_model(self) -> None:
        """A few seconds' worth: what it says does not matter here."""
        data = self.directory / "conversations.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in _rows()))
        command = [str(self.python), str(REPOSITORY / "trainer_image" / "base_model.py"), "--data", str(data)]
        self._run([*command, "--output", str(self._base_model), "--seconds", str(BASE_MODEL_SECONDS)])

    def pair(self, number: int) -> Pair:
        """Who goes first changes from pair to pair, so that a machine that slows down favours neither."""
        kinds = ("product", "bare") if number % 2 == 0 else ("bare", "product")
        return Pair(**{kind: self._train(kind, f"{kind}-{number}") for kind in kinds})

    @property
    def _base_model(self) -> Path:
        return self.directory / "tiny-llama"

    def _train(self, kind: str, name: str) -> Training:
        """The training alone: imports and the loading of the model come before its clock starts."""
        job = self._job(name, self.progress_url)
        config, seconds = self.directory / f"{name}.json", self.directory / f"{name}.seconds"
        config.write_text(job.config.model_dump_json(by_alias=True, exclude_none=True))
        command = [str(self.python), str(REPOSITORY / "bench" / "timed_training.py"), kind, str(seconds)]
        command += ["--config", str(config), "--artifacts", str(self.directory)]
        self._run([*command, "--termination-message", str(self.directory / f"{name}.termination")])
        measured: dict[str, float] = json.loads(seconds.read_text())
        if measured["steps"] != STEPS:
            raise NotMeasurable(f"{name} made {measured['steps']} steps instead of {STEPS}")
        return Training(measured["wall"], measured["cpu"])

    def _job(self, name: str, progress_url: str) -> Job:
        parameters: dict[str, Any] = {"max_steps": STEPS, "save_steps": CHECKPOINT_STEPS, "batch_size": BATCH_SIZE}
        job = make_job(
            self.python, self._base_model, self.directory, name, _rows(), progress_url=progress_url, **parameters
        )
        # The tests post more often than the product does.
        interval = type(job.config).model_fields["progress_interval_seconds"].default
        job.config = job.config.model_copy(update={"progress_interval_seconds": interval})
        return job

    def _run(self, command: list[str]) -> None:
        environment = environment_of_images() | {"FINETUNE_INTERNAL_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] += f"{os.pathsep}{REPOSITORY / 'trainer_image'}"
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            log = (done.stdout + done.stderr)[-SHOWN_LOG_CHARACTERS:].strip()
            raise NotMeasurable(f"`{' '.join(command)}` ended with {done.returncode}: {log}")


def _rows() -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.response}]}
        for row in load_conversations()
    ]
