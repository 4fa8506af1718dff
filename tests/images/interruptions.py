"""Attempts at one training, each killed at a random moment but the last; runs in the trainer's environment.

    python interruptions.py <trainer_image> <config.json> <artifacts> <kills> <seed> <report.json>

What an attempt imports takes longer than what it trains here. So it is imported once, and each attempt is a fork: a
process of its own that runs the trainer's `main`, dies by SIGKILL like any other, and leaves its lock to the kernel.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from trainer_host import import_trainer, start

TICK_SECONDS = 0.002
ATTEMPT_TIMEOUT_SECONDS = 120.0
MOST_STEPS = 12
MOST_SAVES = 2
SHARE_OF_KILLS_IN_SAVES = 0.4


class Log:
    """An attempt's log, of which each line is read once: reading must not take the processor from the training."""

    def __init__(self, path: Path) -> None:
        self.path, self._position = path, 0
        self.entries: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()

    def follow(self) -> None:
        """Take in the whole lines that have come."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        new = [json.loads(line) for line in whole.splitlines() if line.startswith(b'{"time"')]
        self.entries += new
        self.counts.update(entry["message"] for entry in new)


def being_saved(checkpoints: Path) -> bool:
    return any(not (path / "complete.json").exists() for path in checkpoints.glob("checkpoint-*"))


def attempt(train: Any, arguments: list[str], log_file: Path, checkpoints: Path, chance: random.Random | None) -> Any:
    """One attempt's story; without chance it is left alone."""
    pid = start(train, arguments, log_file)
    log = Log(log_file)
    in_save = chance is not None and chance.random() < SHARE_OF_KILLS_IN_SAVES
    count = chance.randint(0, MOST_SAVES if in_save else MOST_STEPS) if chance else 0
    deadline = time.monotonic() + ATTEMPT_TIMEOUT_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        log.follow()
        if ended:
            return story(log, "ended", os.waitstatus_to_exitcode(status))
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return story(log, "timed out", None)
        if chance and is_time(log, checkpoints, in_save, count):
            time.sleep(chance.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            log.follow()
            return story(log, "killed in a save" if in_save else "killed", None)
        time.sleep(TICK_SECONDS)


def is_time(log: Log, checkpoints: Path, in_save: bool, count: int) -> bool:
    """After so many steps, or while the checkpoint after so many others is being written."""
    if not log.counts["training"]:
        return False
    if in_save:
        return log.counts["checkpoint"] >= count and being_saved(checkpoints)
    return log.counts["step"] >= count


def story(log: Log, end: str, exit_code: int | None) -> dict[str, Any]:
    training = next((entry for entry in log.entries if entry["message"] == "training"), None)
    return {
        "end": end,
        "exit_code": exit_code,
        "resumed_from": training and training["resumed_from"],
        "losses": {entry["step"]: entry["loss"] for entry in log.entries if entry["message"] == "step"},
        "not_whole": [
            entry["checkpoint"] for entry in log.entries if entry["message"].startswith("a checkpoint is not whole")
        ],
        "tail": "" if exit_code in (0, None) else log.path.read_text()[-3000:],
    }


def main() -> None:
    trainer_image, config, artifacts, kills, seed, report = sys.argv[1:]
    checkpoints = (
        next(Path(artifacts).glob(f"*/*/{json.loads(Path(config).read_text())['job']['uid']}")) / "checkpoints"
    )
    train = import_trainer(Path(trainer_image))
    arguments = ["--config", config, "--artifacts", artifacts, "--termination-message", f"{report}.termination"]
    chance = random.Random(int(seed))
    stories = []
    for number in range(int(kills) + 1):
        may_live = None if number == int(kills) else chance
        stories.append(attempt(train, arguments, Path(f"{report}.{number}.log"), checkpoints, may_live))
        if stories[-1]["end"] in ("ended", "timed out"):
            break
    Path(report).write_text(json.dumps(stories))
    os._exit(0)


if __name__ == "__main__":
    main()
