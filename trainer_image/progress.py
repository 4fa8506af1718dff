"""Turns the trainer's state into the `Progress` that is reported."""

import time
from datetime import UTC, datetime
from typing import Any

from checkpoints import CheckpointCallback
from failures import log
from reporter import Reporter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune_operator.contract.training import JobIdentity, Progress


class ProgressCallback(TrainerCallback):
    """Offers a step once all that belongs to it has happened: its log, its evaluation and its checkpoint.

    What is not measured at every step keeps its last value.
    """

    def __init__(
        self, reporter: Reporter | None, job: JobIdentity, attempt: str, checkpoints: CheckpointCallback
    ) -> None:
        self._reporter, self._job, self._attempt, self._checkpoints = reporter, job, attempt, checkpoints
        self._first_step, self._started = 0, 0.0
        self._best: float | None = None
        self._last: dict[str, float | None] = {}
        self._tokens: int | None = None
        self._tokens_at, self._tokens_per_second = 0.0, None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._first_step, self._started = state.global_step, time.monotonic()
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self._best = min(losses, default=None)
        evaluated = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        self._last["eval_loss"] = evaluated[-1] if evaluated else None
        if not control.should_training_stop:
            self._offer(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        for name in ("loss", "learning_rate", "grad_norm", "eval_loss"):
            if name in logs:
                self._last[name] = float(logs[name])
        if "loss" in logs:
            loss = float(logs["loss"])
            self._best = min(loss, self._best if self._best is not None else loss)
            log("step", step=state.global_step, total_steps=state.max_steps, loss=loss)
        if "eval_loss" in logs:
            log("evaluated", step=state.global_step, eval_loss=logs["eval_loss"])
        if "num_tokens" in logs:
            self._count(int(logs["num_tokens"]))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._offer(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The last step may come early: what was planned beyond it will not be done."""
        self._offer(state, is_last=not self._checkpoints.asked_to_leave)

    def _count(self, tokens: int) -> None:
        now = time.monotonic()
        if self._tokens is not None and now > self._tokens_at:
            self._tokens_per_second = (tokens - self._tokens) / (now - self._tokens_at)
        self._tokens, self._tokens_at = tokens, now

    def _offer(self, state: TrainerState, *, is_last: bool = False) -> None:
        if self._reporter is None:
            return
        total_steps = state.global_step if is_last else state.max_steps
        done = state.global_step - self._first_step
        pace = (time.monotonic() - self._started) / done if done else None
        saved = self._checkpoints.last
        self._reporter.offer(
            Progress(
                job=self._job,
                attempt=self._attempt,
                step=state.global_step,
                total_steps=total_steps,
                epoch=round(state.epoch or 0.0, 4),
                total_epochs=state.num_train_epochs,
                best_loss=self._best,
                eta_seconds=None if pace is None else round(pace * (total_steps - state.global_step)),
                tokens=self._tokens,
                tokens_per_second=self._tokens_per_second,
                gpu_memory_bytes=gpu_memory_bytes(),
                checkpoint_step=saved.step if saved else None,
                checkpoint_time=saved.time if saved else None,
                time=datetime.now(UTC),
                **self._last,
            )
        )


def gpu_memory_bytes() -> int | None:
    """The most that torch ever had reserved on this process's GPU; asking it does not wait for the GPU."""
    import torch

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None
