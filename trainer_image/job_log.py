"""The trainer's log on the volume, where it outlives the pod: `train.log` in the job's directory.

Every line of every attempt, with the attempt's name; a file that is full becomes `train.log.1`, in the place of the one
before. A volume that takes no more lines does not end a training.
"""

import atexit
import json
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import failures

from finetune_operator.contract.job_logs import LOG_MAX_BYTES
from finetune_operator.contract.places import OLDER_LOG_NAME, TRAINER_CONTAINER
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.log_posts import LogPosts

LAST_PART_BYTES = 4 * LOG_MAX_BYTES
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


class PostedLog:
    """The end of the log, this attempt's and what those before it have left on the volume, for the api to keep."""

    def __init__(self) -> None:
        self._posts: LogPosts | None = None

    def begin(self, config: TrainingConfig, file: Path) -> None:
        self._posts = LogPosts(
            config,
            TRAINER_CONTAINER,
            os.environ,
            lambda: last_part(file),
            lambda error: failures.log("the log can't be posted; the training goes on", error=error),
        )
        atexit.register(self.close)

    def close(self) -> None:
        """Before the process ends in a way of which the interpreter learns nothing."""
        if self._posts is not None:
            self._posts.close()


POSTED = PostedLog()


def last_part(file: Path) -> str:
    """Whole lines from the end of both files."""
    parts = []
    for each in (file.with_name(OLDER_LOG_NAME), file):
        try:
            with each.open("rb") as log:
                begin = max(0, log.seek(0, os.SEEK_END) - LAST_PART_BYTES)
                log.seek(begin)
                content = log.read(LAST_PART_BYTES)
        except FileNotFoundError:
            continue
        parts.append(content.partition(b"\n")[2] if begin else content)
    return b"".join(parts).decode(errors="replace")


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
