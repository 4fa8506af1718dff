"""The two files of a dataset, written and hashed as they are."""

import os
import threading
from operator import itemgetter
from pathlib import Path
from queue import Queue

from finetune_operator.core.datasets import Digest

COPIED_BYTES = 1024 * 1024
SYNCED_BYTES = 32 * 1024 * 1024
KEY_BYTES = 16
WAITING_MAX = 2
# What `map` calls without the interpreter.
_key = itemgetter(slice(KEY_BYTES))
_line = itemgetter(slice(KEY_BYTES, None))


class PartWriter:
    """Writes and hashes in a thread of its own, both of which leave the interpreter free to sort the next rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: Queue[bytes | None] = Queue(maxsize=WAITING_MAX)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="dataset-writer", daemon=True)
        self._last_key = b""
        self.digest = Digest()
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> "PartWriter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def write(self, rows: list[bytes]) -> int:
        """Write sorted rows without their keys; returns how many prompts are new."""
        keys = set(map(_key, rows))
        found = len(keys) - (self._last_key in keys)
        self._last_key = _key(rows[-1])
        lines = b"\n".join([*map(_line, rows), b""])
        self.rows += len(rows)
        self.bytes += len(lines)
        self._queue.put(lines)
        return found

    def _work(self) -> None:
        try:
            with self._path.open("wb") as file:
                unsynced = 0
                while (lines := self._queue.get()) is not None:
                    file.write(lines)
                    self.digest.add(lines)
                    unsynced += len(lines)
                    if unsynced > SYNCED_BYTES:
                        # While the next rows are sorted, instead of all of it at the end.
                        file.flush()
                        os.fdatasync(file.fileno())
                        unsynced = 0
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:  # noqa: BLE001 - whoever writes waits for this thread, and a file cut short is none
            self._error = error
            while self._queue.get() is not None:
                pass


def move_end(train: Path, test: Path, size: int) -> None:
    """Everything after `size` bytes becomes a file of its own."""
    with train.open("r+b") as source, test.open("wb") as target:
        source.seek(size)
        while block := source.read(COPIED_BYTES):
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
        source.truncate(size)
        os.fsync(source.fileno())
