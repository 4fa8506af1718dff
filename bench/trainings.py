"""Trainings of a tiny model as processes of the trainer, timed from within; shared by what measures them."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import REPOSITORY, NotMeasurable
from demo.conversations import load_conversations
from tests.images.ml_environment import ensure_python
from tests.images.training import TOKEN, Job, environment_of_images, make_job

SHOWN_LOG_CHARACTERS = 1500
BASE_MODEL_SECONDS = 5
EXIT_TERMINATED = 143
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Training:
    """What one process measured of itself; `start_seconds` are those before its training began."""

    wall_seconds: float
    cpu_seconds: float
    steps: int
    start_seconds: float
    peak_resident_bytes: int
    peak_gpu_bytes: int | None


@dataclass(frozen=True)
class Trainings:
    """Trainings in one directory, all from the same base model, on one core."""

    python: Path
    directory: Path

    def job(self, name: str, rows: Rows, *, progress_url: str | None = None, **parameters: Any) -> Job:
        """A job as the product makes it."""
        job = make_job(
            self.python, self._base_model, self.directory, name, rows, progress_url=progress_url, **parameters
        )
        # The tests post more often than the product does.
        interval = type(job.config).model_fields["progress_interval_seconds"].default
        job.config = job.config.model_copy(update={"progress_interval_seconds": interval})
        return job

    def train(self, job: Job, variant: str = "product", *, exit_code: int = 0) -> Training:
        """One attempt at it; what `timed_training.py` says of the variants."""
        config, measured_file = self.directory / f"{job.name}.json", self.directory / f"{job.name}.measured"
        config.write_text(job.config.model_dump_json(by_alias=True, exclude_none=True))
        command = [str(self.python), str(REPOSITORY / "bench" / "timed_training.py"), variant, str(measured_file)]
        command += ["--config", str(config), "--artifacts", str(self.directory)]
        started = time.time()
        self._run([*command, "--termination-message", str(self.directory / f"{job.name}.termination")], exit_code)
        measured: dict[str, Any] = json.loads(measured_file.read_text())
        return Training(
            wall_seconds=measured["wall"],
            cpu_seconds=measured["cpu"],
            steps=measured["steps"],
            start_seconds=measured["began"] - started,
            peak_resident_bytes=measured["peakResidentBytes"],
            peak_gpu_bytes=measured["peakGpuBytes"],
        )

    def make_base_model(self) -> None:
        """A few seconds' worth: what it says does not matter here."""
        data = self.directory / "conversations.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in conversations()))
        command = [str(self.python), str(REPOSITORY / "trainer_image" / "base_model.py"), "--data", str(data)]
        self._run([*command, "--output", str(self._base_model), "--seconds", str(BASE_MODEL_SECONDS)], 0)

    @property
    def _base_model(self) -> Path:
        return self.directory / "tiny-llama"

    def _run(self, command: list[str], exit_code: int) -> None:
        environment = environment_of_images() | {"FINETUNE_INTERNAL_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] += f"{os.pathsep}{REPOSITORY / 'trainer_image'}"
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != exit_code:
            log = (done.stdout + done.stderr)[-SHOWN_LOG_CHARACTERS:].strip()
            raise NotMeasurable(f"`{' '.join(command)}` ended with {done.returncode}: {log}")


@contextmanager
def trainings() -> Iterator[Trainings]:
    """With their base model; raises NotMeasurable where the trainer's environment can't be made."""
    try:
        python = ensure_python()
    except (RuntimeError, subprocess.CalledProcessError) as error:
        raise NotMeasurable(f"the trainer's Python environment can't be made: {error}") from error
    with tempfile.TemporaryDirectory(prefix="trainings-") as directory:
        made = Trainings(python, Path(directory))
        made.make_base_model()
        yield made


def conversations() -> list[dict[str, Any]]:
    return [conversation(row.prompt, row.response) for row in load_conversations()]


def conversation(prompt: str, response: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]}


def in_turn(kinds: tuple[str, str], number: int) -> tuple[str, str]:
    """Who goes first changes from pair to pair, so that a machine that slows down favours neither."""
    return kinds if number % 2 == 0 else (kinds[1], kinds[0])


def listed(values: Iterable[float], digits: int = 3) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def median(values: Iterable[float]) -> float:
    return statistics.median(values)
