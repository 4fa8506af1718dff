"""Forks attempts off a process that has imported what they import, which takes longer than what most of them train.

    python trainer_host.py <trainer_image> [Axolotl]

Runs in the trainer's environment. Each line of standard input starts an attempt: {"arguments": [...], "environment":
{...}, "log": path}; its process id is the answer. How it ended is written to `<log>.exit`. An attempt is a process of
its own, which runs the trainer's `main`, takes signals and dies like any other, and leaves its lock to the kernel.
"""

import json
import os
import select
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.02


LIBRARIES = {
    "Unsloth": ("unsloth",),
    "Axolotl": ("axolotl.cli.config", "axolotl.common.datasets", "axolotl.train", "axolotl.core.builders"),
}
PARTS = ("checkpoints", "held_out", "progress", "starting_point", "trackers", "trainers", "trl", "peft")


def import_trainer(directory: Path, backend: str = "Unsloth") -> Any:
    """All that an attempt would import; the backend's own first, as the trainer has it."""
    sys.path.insert(0, str(directory))
    import axolotl_backend
    import peft_models
    import train

    os.environ.update(axolotl_backend.ENVIRONMENT)
    peft_models.hide_vllm()
    for name in (*LIBRARIES[backend], *PARTS):
        __import__(name)
    return train


def start(train: Any, arguments: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None) -> int:
    """The process id of a new attempt, which writes to that log."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment or {})
    sys.argv = ["train.py", *arguments]
    code = 1
    try:
        code = train.main()
    except SystemExit as error:
        code = int(error.code or 0)
    except Exception:  # noqa: BLE001 - as the interpreter ends a program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reap(logs: dict[int, Path]) -> None:
    """Tell of those that have ended."""
    for pid in list(logs):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            log = logs.pop(pid)
            told = log.with_name(f"{log.name}.exit.new")
            told.write_text(str(os.waitstatus_to_exitcode(status)))
            told.rename(log.with_name(f"{log.name}.exit"))


def main() -> None:
    train = import_trainer(Path(sys.argv[1]), *sys.argv[2:])
    logs: dict[int, Path] = {}
    while True:
        if select.select([sys.stdin], [], [], TICK_SECONDS)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            asked = json.loads(line)
            log = Path(asked["log"])
            pid = start(train, asked["arguments"], log, asked["environment"])
            logs[pid] = log
            print(pid, flush=True)
        reap(logs)


if __name__ == "__main__":
    main()
