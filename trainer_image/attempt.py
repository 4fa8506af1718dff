"""One attempt at a training: who may train, and how it ends early when the node wants it to leave.

Kubernetes may start two pods of one Job (a node that comes back, a slow deletion). Both share the volume.
"""

import fcntl
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from failures import log

EXIT_TERMINATED = 128 + signal.SIGTERM  # what a shell reports for a process ended by SIGTERM; the Job tries again
EXIT_LOCKED = 75  # EX_TEMPFAIL of sysexits.h; the Job tries again


def new_attempt_id() -> str:
    """The pod's name, and a part that tells a restarted container of one pod from its predecessor."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@contextmanager
def exclusive(lock_file: Path, attempt: str, wait_seconds: float) -> Iterator[None]:
    """Hold the job's lock; wait for an attempt that holds it, then leave with `EXIT_LOCKED`.

    The kernel (or the file server) drops the lock with its holder, so a dead attempt never blocks the next. It is not
    success to find the lock taken: the Job would be complete, and the pod that trains would be stopped.
    """
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        _acquire(descriptor, wait_seconds)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, attempt.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            if time.monotonic() >= deadline:
                log("another attempt is training; leaving", holder=holder)
                raise SystemExit(EXIT_LOCKED) from None
            if not told:
                log("another attempt is training; waiting for it", holder=holder, wait_seconds=wait_seconds)
                told = True
            time.sleep(0.5)
        else:
            return


class Termination:
    """SIGTERM: at once before the training, at the next step with a checkpoint during it.

    As a container's first process, Python has no default action for SIGTERM: without a handler it would be ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        self.training = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self.training:
            raise SystemExit(EXIT_TERMINATED)
