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
from pathlib import Path
from typing import Any

from trainer_host import import_trainer, start

TICK_SECONDS = 0.002
ATTEMPT_TIMEOUT_SECONDS = 120.0
MOST_STEPS = 12
MOST_SAVES = 2
SHARE_OF_KILLS_IN_SAVES = 0.4


def entries(log_file: Path) -> list[dict[str, Any]]:
    """The whole lines of a log that may still grow."""
    text = log_file.read_text() if log_file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith('{"time"')]


def being_saved(checkpoints: Path) -> bool:
    return any(not (path / "complete.json").exists() for path in checkpoints.glob("checkpoint-*"))


def attempt(train: Any, arguments: list[str], log_file: Path, checkpoints: Path, chance: random.Random | None) -> Any:
    """One attempt's story; without chance it is left alone."""
    pid = start(train, arguments, log_file)
    in_save = chance is not None and chance.random() < SHARE_OF_KILLS_IN_SAVES
    count = chance.randint(0, MOST_SAVES if in_save else MOST_STEPS) if chance else 0
    deadline = time.monotonic() + ATTEMPT_TIMEOUT_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return story(log_file, "ended", os.waitstatus_to_exitcode(status))
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return story(log_file, "timed out", None)
        if chance and is_time(entries(log_file), checkpoints, in_save, count):
            time.sleep(chance.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return story(log_file, "killed in a save" if in_save else "killed", None)
        time.sleep(TICK_SECONDS)


def is_time(log: list[dict[str, Any]], checkpoints: Path, in_save: bool, count: int) -> bool:
    """After so many steps, or while the checkpoint after so many others is being written."""
    messages = [entry["message"] for entry in log]
    if "training" not in messages:
        return False
    if in_save:
        return messages.count("checkpoint") >= count and being_saved(checkpoints)
    return messages.count("step") >= count


def story(log_file: Path, end: str, exit_code: int | None) -> dict[str, Any]:
    log = entries(log_file)
    training = next((entry for entry in log if entry["message"] == "training"), None)
    return {
        "end": end,
        "exit_code": exit_code,
        "resumed_from": training and training["resumed_from"],
        "losses": {entry["step"]: entry["loss"] for entry in log if entry["message"] == "step"},
        "not_whole": [entry["checkpoint"] for entry in log if entry["message"].startswith("a checkpoint is not whole")],
        "tail": "" if exit_code in (0, None) else log_file.read_text()[-3000:],
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
