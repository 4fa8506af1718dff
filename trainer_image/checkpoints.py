"""Checkpoints that can be trusted: marked when they are whole, checked before they are loaded.

A checkpoint is a directory of many files, and a pod can be killed at any moment. `complete.json` is written last, in
one rename, with the size and CRC of each file; what has none, or doesn't agree with it, is never loaded.
"""

import json
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import durable
from attempt import Termination
from failures import log
from process_group import ProcessGroup
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

COMPLETE_MARKER = "complete.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A whole one: what was done until then, earlier attempts included."""

    directory: Path
    step: int
    train_seconds: float
    tokens: int
    time: datetime


class CheckpointCallback(TrainerCallback):
    """Marks each checkpoint that is whole, and makes one when the node of any process asks its pod to leave."""

    def __init__(
        self, termination: Termination, resumed: Checkpoint | None, tokens: Callable[[], int], group: ProcessGroup
    ) -> None:
        self._termination, self._tokens, self._group = termination, tokens, group
        self._seconds_before = resumed.train_seconds if resumed else 0.0
        self._started = 0.0
        self.last = resumed

    @property
    def asked_to_leave(self) -> bool:
        """Whether the training ends now only to go on in another pod."""
        return self._termination.requested

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.monotonic()
        if state.global_step >= state.max_steps:
            control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._group.any(self._termination.requested):
            self._termination.requested = True
            control.should_save = True
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        directory = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if not self._group.is_leader:
            # Its random state is all that a process writes itself.
            durable.sync(directory / f"rng_state_{self._group.rank}.pth")
        self._group.wait_for_all()
        if not self._group.is_leader:
            return
        # TRL's DPO trainer saves its reference adapter too; Transformers would then load that one alone on resuming.
        # It is made anew from the seed.
        shutil.rmtree(directory / "ref", ignore_errors=True)
        seconds = self._seconds_before + time.monotonic() - self._started
        self.last = mark(Checkpoint(directory, state.global_step, seconds, self._tokens(), datetime.now(UTC)))
        log("checkpoint", step=state.global_step)


def stop_at_the_end(trainer: Any) -> None:
    """Let a callback's `on_train_begin` end a training before its first step.

    An attempt can die between the last checkpoint and the result. Transformers asks whether to stop only after a step,
    so that the one that follows would train a step too many wherever the training ends in mid-epoch.
    """
    run_epoch = trainer._run_epoch

    def unless_at_the_end(*args: Any, **kwargs: Any) -> None:
        if not trainer.control.should_training_stop:
            run_epoch(*args, **kwargs)

    trainer._run_epoch = unless_at_the_end


def mark(checkpoint: Checkpoint) -> Checkpoint:
    """Put the files on the disk, and only then say so."""
    directory = checkpoint.directory
    for path in directory.iterdir():
        durable.sync(path)
    content = {
        "step": checkpoint.step,
        "trainSeconds": checkpoint.train_seconds,
        "tokens": checkpoint.tokens,
        "time": checkpoint.time.isoformat(),
        "files": fingerprints(directory),
    }
    durable.write(directory / COMPLETE_MARKER, json.dumps(content))
    return checkpoint


def last_complete_checkpoint(root: Path) -> Checkpoint | None:
    """The newest that is whole; those that are not are removed, so that nothing can mistake them for one."""
    newest_first = sorted(root.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    whole: Checkpoint | None = None
    for directory in newest_first:
        checkpoint, damage = read(directory)
        if checkpoint is None:
            log("a checkpoint is not whole and is not taken", checkpoint=directory.name, damage=damage)
            shutil.rmtree(directory, ignore_errors=True)
        whole = whole or checkpoint
    return whole


def read(directory: Path) -> tuple[Checkpoint | None, str]:
    """The checkpoint, or what is wrong with it."""
    try:
        content = json.loads((directory / COMPLETE_MARKER).read_text())
        damaged = [name for name, found in content["files"].items() if fingerprint(directory / name) != found]
        checkpoint = Checkpoint(
            directory,
            content["step"],
            content["trainSeconds"],
            content["tokens"],
            datetime.fromisoformat(content["time"]),
        )
    except FileNotFoundError as error:
        return None, f"{Path(error.filename).name} is missing"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return None, f"{COMPLETE_MARKER}: {error!r}"
    return (None, f"{damaged[0]} has changed") if damaged else (checkpoint, "")


def fingerprints(directory: Path) -> dict[str, list[int]]:
    return {
        path.name: fingerprint(path)
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.endswith(COMPLETE_MARKER)
    }


def fingerprint(path: Path) -> list[int]:
    """Size and CRC-32: against tearing and decay, not against malice."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
    return [size, crc]
