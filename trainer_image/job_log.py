"""The trainer's log on the volume, where it outlives the pod: `train.log` in the job's directory.

Every line of every attempt, with the attempt's name; a file that is full becomes `train.log.1`, in the place of the one
before. A volume that takes no more lines does not end a training.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import failures

from finetune_operator.contract.places import OLDER_LOG_NAME

MOST_BYTES = 50_000_000
"""Of one file; there are at most two."""


class JobLog:
    """Appends whole lines, so that two attempts can write at once; the one that waits for the lock does, too."""

    def __init__(self, file: Path, attempt: str, most_bytes: int = MOST_BYTES) -> None:
        self._file, self._attempt, self._most_bytes = file, attempt, most_bytes
        self._descriptor: int | None = None
        self._failed = False

    def write(self, line: dict[str, Any]) -> None:
        if self._failed:
            return
        time = {"time": line.get("time"), "attempt": self._attempt}
        content = (json.dumps(time | line, default=str) + "\n").encode()
        try:
            os.write(self._open(), content)
        except OSError as error:
            self._failed = True
            failures.log("the log can no longer be kept on the volume", file=self._file, error=error)

    def _open(self) -> int:
        """Looks where the file is each time: another attempt may have put it aside."""
        if self._descriptor is not None and self._is_current(self._descriptor):
            if os.fstat(self._descriptor).st_size < self._most_bytes:
                return self._descriptor
            self._file.replace(self._file.with_name(OLDER_LOG_NAME))
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat())
        except FileNotFoundError:
            return False


def keep_log(file: Path, attempt: str, *, crashes_only: bool = False) -> None:
    """From now on the log goes to this file as well, and so does the traceback of what nobody catches.

    Of several processes one writes all, the others how they crash: lines from many nodes at once would overwrite each
    other on NFS.
    """
    log = JobLog(file, attempt)
    if not crashes_only:
        failures.COPIES.append(log.write)
    told_before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        log.write(failures.line_of("the trainer crashed", {"error": text}))
        told_before(kind, error, trace)

    sys.excepthook = tell
