"""Reports a running training to the api and keeps its checkpoints honest; never slows or fails the training.

A thread posts the latest measurement; while the api is down, older ones are dropped and the newest waits.
"""

import json
import shutil
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attempt import Termination
from failures import log
from publish import sync
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_operator.contract.training import JobIdentity, Progress

COMPLETE_MARKER = "complete.json"
POST_TIMEOUT_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 30.0


class Reporter:
    """Posts the latest progress at most once per interval, from its own thread."""

    def __init__(self, url: str, token: str | None, interval_seconds: float) -> None:
        self._url, self._token, self._interval = url, token, interval_seconds
        self._changed = threading.Condition()
        self._latest: Progress | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def offer(self, progress: Progress) -> None:
        """Replace what waits to be posted; returns at once."""
        with self._changed:
            self._latest = progress
            self._changed.notify()

    def close(self, wait_seconds: float = POST_TIMEOUT_SECONDS) -> None:
        """Post what still waits, without the interval, for at most this long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(wait_seconds)

    def _run(self) -> None:
        failures = 0
        while (progress := self._next()) is not None:
            error = self._post(progress)
            if error is None:
                if failures:
                    log("progress is reported again", failed_posts=failures)
                failures = 0
                pause = self._interval
            else:
                if not failures:
                    log("progress can't be reported; the training goes on", url=self._url, error=error)
                failures += 1
                pause = min(LONGEST_RETRY_SECONDS, self._interval * 2 ** min(failures, 10))
                self._put_back(progress)
            self._pause(pause)
            if error is not None and self._closing:
                return

    def _next(self) -> Progress | None:
        with self._changed:
            self._changed.wait_for(lambda: self._latest is not None or self._closing)
            progress, self._latest = self._latest, None
            return progress

    def _put_back(self, progress: Progress) -> None:
        with self._changed:
            if self._latest is None:
                self._latest = progress

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=seconds)

    def _post(self, progress: Progress) -> str | None:
        """The error as text, or None."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        body = progress.model_dump_json(by_alias=True).encode()
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=POST_TIMEOUT_SECONDS) as response:  # noqa: S310
                response.read()
        except (OSError, ValueError) as error:
            return str(error)
        return None


class ProgressCallback(TrainerCallback):
    """Turns the trainer's state into `Progress`, forced at the start and at the end."""

    def __init__(self, reporter: Reporter | None, job: JobIdentity, attempt: str) -> None:
        self._reporter, self._job, self._attempt = reporter, job, attempt
        self._first_step, self._started = 0, 0.0
        self._loss: float | None = None
        self._best: float | None = None
        self._rate: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._first_step, self._started = state.global_step, time.monotonic()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self._best = min(losses, default=None)
        self._offer(args, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._loss, self._rate = float(logs["loss"]), logs.get("learning_rate")
            self._best = min(self._loss, self._best if self._best is not None else self._loss)
            log("step", step=state.global_step, total_steps=state.max_steps, loss=self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._offer(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._offer(args, state)

    def _offer(self, args: TrainingArguments, state: TrainerState) -> None:
        if self._reporter is None:
            return
        done = state.global_step - self._first_step
        pace = (time.monotonic() - self._started) / done if done else None
        self._reporter.offer(
            Progress(
                job=self._job,
                attempt=self._attempt,
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=round(state.epoch or 0.0, 4),
                total_epochs=state.num_train_epochs,
                loss=self._loss,
                best_loss=self._best,
                learning_rate=self._rate,
                eta_seconds=None if pace is None else round(pace * (state.max_steps - state.global_step)),
                time=datetime.now(UTC),
            )
        )


class CheckpointCallback(TrainerCallback):
    """Marks each checkpoint that is whole, and makes one when the node asks the pod to leave."""

    def __init__(self, termination: Termination, seconds_before: float) -> None:
        self._termination, self._seconds_before = termination, seconds_before
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._termination.requested:
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        directory = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        # TRL's DPO trainer saves its reference adapter too; Transformers would then load that one alone on resuming.
        # It is made anew from the seed.
        shutil.rmtree(directory / "ref", ignore_errors=True)
        for path in directory.iterdir():
            sync(path)
        seconds = self._seconds_before + time.monotonic() - self._started
        marker = directory / COMPLETE_MARKER
        marker.write_text(json.dumps({"step": state.global_step, "trainSeconds": seconds}))
        sync(marker)
        sync(directory)
        log("checkpoint", step=state.global_step)


def last_complete_checkpoint(directory: Path) -> tuple[Path, float] | None:
    """The newest checkpoint with its marker and the seconds trained until then; a torn one is not taken."""
    found = [
        (int(marker.parent.name.removeprefix("checkpoint-")), marker)
        for marker in directory.glob(f"checkpoint-*/{COMPLETE_MARKER}")
    ]
    if not found:
        return None
    marker = max(found)[1]
    return marker.parent, float(json.loads(marker.read_text())["trainSeconds"])
