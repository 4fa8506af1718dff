"""Orders, deduplicates and splits more rows than fit into memory, as `core.datasets.arranged` says.

A row is its prompt's key, 16 hexadecimal digits, followed by its line; or it is one that was dropped, written as
`!<reason> <count> <row>`. Rows are collected by the first two digits, in
files once there are many; each of these is small enough to be sorted in memory, or else is sorted in runs that are
merged. The held-out prompts are the last ones of the order, so that the test part is cut off the end of the file.
"""

import heapq
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from queue import Queue
from typing import IO, NamedTuple

from finetune_operator.core.datasets import Digest, DropReason, held_out_count

KEY_BYTES = 16
BUCKET_DIGITS = 2
DROPPED_MARK = b"!"
BUFFERED_MAX_BYTES = 12 * 1024 * 1024
SORTED_MAX_BYTES = 8 * 1024 * 1024
COPIED_BYTES = 1024 * 1024
DROPPED_SHOWN = 5
SHOWN_ROW_MAX_CHARACTERS = 24
ROW_OVERHEAD_BYTES = 64


class Parts(NamedTuple):
    """What was written."""

    rows: int
    test_rows: int
    digest: str


class Dropped:
    """Counts what is left out, and remembers the first few rows of each reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}

    def add(self, reason: str, row: str, count: int = 1) -> None:
        self.counts[reason] += count
        shown = self._rows.setdefault(reason, [])
        if len(shown) < DROPPED_SHOWN:
            shown.append(row[:SHOWN_ROW_MAX_CHARACTERS])

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        return {reason: tuple(rows) for reason, rows in sorted(self._rows.items())}


class Spool:
    """Rows on their way into a dataset; `directory` must be empty and is left empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._buckets: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._files: dict[bytes, IO[bytes]] = {}
        self._buffered = 0
        self._bytes = 0
        self.rows = 0
        self.dropped = Dropped()

    def add(self, rows: Sequence[bytes]) -> None:
        """Take rows that hold no line feed; those that begin with the mark of dropped ones are counted instead."""
        buckets = self._buckets
        for row in rows:
            buckets[row[:BUCKET_DIGITS]].append(row)
        self.rows += len(rows)
        self._buffered += len(rows)
        for digits in [digits for digits in buckets if digits.startswith(DROPPED_MARK)]:
            dropped = buckets.pop(digits)
            self.rows -= len(dropped)
            for row in dropped:
                reason, count, row_id = row[1:].decode(errors="replace").split(" ", 2)
                self.dropped.add(reason, row_id, int(count))
        self._bytes += sum(map(len, rows))
        if self._bytes + ROW_OVERHEAD_BYTES * self._buffered > BUFFERED_MAX_BYTES:
            self._spill()

    def close(self) -> None:
        for file in self._files.values():
            name = file.name
            file.close()
            Path(name).unlink()
        self._files.clear()
        self._buckets.clear()

    def write(self, train: Path, test: Path, test_fraction: float) -> Parts:
        """Write both parts, and count the duplicates as dropped."""
        prompts: list[tuple[bytes, int, int, int]] = []
        with _HashingWriter(train) as writer:
            for digits in sorted({*self._files, *self._buckets}, reverse=True):
                start = writer.rows, writer.bytes
                found = sum(writer.write(batch) for batch in self._sorted(digits))
                prompts.append((digits, found, *start))
        duplicates = self.rows - writer.rows
        if duplicates:
            self.dropped.counts[DropReason.DUPLICATE] = duplicates
        rows, size = self._cut(prompts, test_fraction, writer)
        _move_end(train, test, size)
        return Parts(rows, writer.rows - rows, writer.digest.close(rows, writer.rows - rows))

    def _cut(
        self, prompts: list[tuple[bytes, int, int, int]], test_fraction: float, writer: "_HashingWriter"
    ) -> tuple[int, int]:
        """How many rows and bytes of the ordered file are the training part."""
        left = held_out_count(sum(found for _, found, _, _ in prompts), test_fraction)
        if not left:
            return writer.rows, writer.bytes
        for digits, found, rows, size in reversed(prompts):
            if left == found:
                return rows, size
            if left < found:
                kept = found - left
                ordered = chain.from_iterable(self._sorted(digits))
                for _, group in islice(groupby(ordered, key=lambda row: row[:KEY_BYTES]), kept):
                    for row in group:
                        rows += 1
                        size += len(row) - KEY_BYTES + 1
                return rows, size
            left -= found
        raise AssertionError("fewer prompts than were counted")

    def _spill(self) -> None:
        for digits, rows in self._buckets.items():
            file = self._files.get(digits)
            if file is None:
                file = self._files[digits] = (self._directory / f"bucket-{digits.hex()}").open("w+b")
            file.write(b"\n".join(rows))
            file.write(b"\n")
        self._buckets.clear()
        self._buffered = 0
        self._bytes = 0

    def _sorted(self, digits: bytes) -> Iterator[list[bytes]]:
        """The bucket's rows, each once, from high to low."""
        rows = self._buckets.get(digits, [])
        file = self._files.get(digits)
        if file is None:
            yield sorted(set(rows), reverse=True)
            return
        if rows:
            file.write(b"\n".join(rows) + b"\n")
            self._buckets.pop(digits)
        file.flush()
        if file.tell() <= SORTED_MAX_BYTES:
            file.seek(0)
            content = file.read()
            yield sorted(set(content[:-1].split(b"\n")), reverse=True)
        else:
            yield from self._merged(file)

    def _merged(self, file: IO[bytes]) -> Iterator[list[bytes]]:
        file.seek(0)
        runs: list[IO[bytes]] = []
        try:
            while lines := file.readlines(SORTED_MAX_BYTES):
                run: IO[bytes] = (self._directory / f"run-{len(runs)}").open("w+b")
                runs.append(run)
                run.write(b"".join(sorted(set(lines), reverse=True)))
                run.seek(0)
            merged = (row[:-1] for row, _ in groupby(heapq.merge(*runs, reverse=True)))
            for _, group in groupby(merged, key=lambda row: row[:KEY_BYTES]):
                yield from _in_batches(group)
        finally:
            file.seek(0, os.SEEK_END)
            for run in runs:
                run.close()
                Path(run.name).unlink()


def _in_batches(rows: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row)
        if size > COPIED_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _HashingWriter:
    """Writes and hashes in a thread of its own, both of which leave the interpreter free to sort the next rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: Queue[bytes | None] = Queue(maxsize=2)
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="dataset-writer", daemon=True)
        self._last_key = b""
        self.digest = Digest()
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> "_HashingWriter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def write(self, rows: list[bytes]) -> int:
        """Write sorted rows without their keys; returns how many prompts are new."""
        if not rows:
            return 0
        keys = {row[:KEY_BYTES] for row in rows}
        found = len(keys) - (self._last_key in keys)
        self._last_key = rows[-1][:KEY_BYTES]
        lines = b"\n".join([row[KEY_BYTES:] for row in rows]) + b"\n"
        self.rows += len(rows)
        self.bytes += len(lines)
        self._queue.put(lines)
        return found

    def _work(self) -> None:
        try:
            with self._path.open("wb") as file:
                while (lines := self._queue.get()) is not None:
                    file.write(lines)
                    self.digest.add(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._error = error
            while self._queue.get() is not None:
                pass


def _move_end(train: Path, test: Path, size: int) -> None:
    """Everything after `size` bytes becomes a file of its own."""
    with train.open("r+b") as source, test.open("wb") as target:
        source.seek(size)
        while block := source.read(COPIED_BYTES):
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
        source.truncate(size)
        os.fsync(source.fileno())
