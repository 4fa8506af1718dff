"""What the one-shot containers of the operator's image have in common."""

import fcntl
import os
import signal
from pathlib import Path
from threading import Thread
from typing import TypeVar

from pydantic import ValidationError

from finetune_operator.contract.base import Message
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.endings import TERMINATED_EXIT_CODE

Config = TypeVar("Config", bound=Message)


def read_config(config: type[Config], file: Path) -> Config:
    """The container's config. Raises `Refused` where the operator that wrote it is of another release."""
    try:
        return config.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise Refused.because(
            FailureReason.INVALID_CONFIG,
            f"{file} is not a {config.__name__}: {error}",
            "run the operator and its images from the same release",
        ) from None


def take_lock(descriptor: int, attempt: str) -> str | None:
    """Take the lock on an open file until it is closed; returns who holds it, if that is another attempt."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, attempt.encode(), 0)
    return None


def leave_when_asked() -> None:
    """At once, since another attempt can go on; without a handler a container's first process ignores SIGTERM.

    From a thread: a handler waits until the main thread is back from the database or the file that it reads.
    """
    received, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    Thread(target=_leave, args=(received,), daemon=True).start()


def _leave(received: int) -> None:
    while os.read(received, 1) != bytes([signal.SIGTERM]):
        pass
    os._exit(TERMINATED_EXIT_CODE)
