"""Orders, deduplicates and splits more rows than fit into memory, as `core.datasets.arranged` says.

A row is its prompt's key, 16 hexadecimal digits, followed by its line; or it is one that was dropped, written as
`!!<reason> <count> <row>`. Rows are collected by the first two digits, in a file once there are many; each part of it
is small enough to be sorted in memory, or else is sorted in pieces that are merged. The held-out prompts are the
last ones of the order, so that the test part is cut off the end of the file.
"""

import heapq
import json
import os
import tempfile
import threading
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, compress, groupby, islice
from operator import itemgetter, ne
from pathlib import Path
from queue import Queue
from typing import IO, NamedTuple

from finetune_operator.core.datasets import Digest, DropReason, held_out_count
from finetune_operator.store.datasets.space import too_large

KEY_BYTES = 16
# More digits would part two gigabytes and more without a merge, but the rows of a few hundred bytes that wait would be
# handled in lists of a few each, which takes longer than all of their sorting.
BUCKET_DIGITS = 2
BUCKETS = 16**BUCKET_DIGITS
# As long as a bucket's digits, so that what was dropped has a bucket of its own.
DROPPED_MARK = b"!!"
# Little enough that what is freed by writing a run is taken again by the next, and not given back to the system.
BUFFERED_MAX_BYTES = 4 * 1024 * 1024
# What is sorted at once when there is a choice: no more than a core's cache holds.
SORTED_BYTES = 512 * 1024
SORTED_MAX_BYTES = 8 * 1024 * 1024
WRITTEN_PARTS = 16
# Their lines stay in a core's cache until they are written.
WRITTEN_ROWS = 512
COPIED_BYTES = 1024 * 1024
DROPPED_SHOWN = 5
SHOWN_ROW_MAX_CHARACTERS = 24
DROPPED_NAME = "dropped.jsonl"
# Forty megabytes of names, and no more, where nearly all of a large table is left out.
NAMED_MAX_ROWS = 1_000_000
NAMED_ROW_MAX_CHARACTERS = 256
ROW_OVERHEAD_BYTES = 64
# What `map` calls without the interpreter.
_key = itemgetter(slice(KEY_BYTES))
_line = itemgetter(slice(KEY_BYTES, None))


class Parts(NamedTuple):
    """What was written."""

    rows: int
    test_rows: int
    digest: str


class Dropped:
    """Counts what is left out, remembers the first few rows of each reason, and writes all of them to a file.

    A line of it is {"reason": ..., "row": ..., "rows": ...}, `rows` being how many are counted by this one; the last
    ones have no `row`: what was not named, such as duplicates, which are equal to a row that was taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}
        self._named: Counter[str] = Counter()
        self._file = path.open("w", encoding="utf-8")

    def add(self, reason: str, row: str, count: int = 1) -> None:
        self.counts[reason] += count
        shown = self._rows.setdefault(reason, [])
        if len(shown) < DROPPED_SHOWN:
            shown.append(row[:SHOWN_ROW_MAX_CHARACTERS])
        if self._named.total() < NAMED_MAX_ROWS:
            self._named[reason] += count
            self._write({"reason": reason, "row": row[:NAMED_ROW_MAX_CHARACTERS], "rows": count})

    def finish(self) -> None:
        """Write what was counted alone."""
        for reason, count in sorted((self.counts - self._named).items()):
            self._write({"reason": reason, "rows": count})
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def rows(self) -> dict[str, tuple[str, ...]]:
        return {reason: tuple(rows) for reason, rows in sorted(self._rows.items())}

    def _write(self, line: Mapping[str, str | int]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


class Spool:
    """Rows on their way into a dataset; `directory` must be empty, and is left with the file of dropped rows.

    Rows wait in memory by the first digits of their keys. Once they are many they go to one file as a run: the buckets
    one after the other, from high to low digits. So neighbouring buckets are neighbours in every run, and as many are
    read together as are sorted fastest. A bucket is sorted while it waits, which leaves the last sort a few merges of
    rows that lie in memory as they are ordered.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by close
        self._buckets: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._runs: list[array[int]] = []
        self._end = 0
        self._sizes = array("Q", bytes(8 * BUCKETS))
        self._buffered = 0
        self._bytes = 0
        self._spilled = 0
        self.rows = 0
        self.dropped = Dropped(directory / DROPPED_NAME)

    def add(self, rows: Sequence[bytes]) -> None:
        """Take rows that hold no line feed; those that begin with the mark of dropped ones are counted instead. Raises
        `Refused` where they become more than the dataset may have.
        """
        buckets = self._buckets
        for row in rows:
            buckets[row[:BUCKET_DIGITS]].append(row)
        dropped = buckets.pop(DROPPED_MARK, ())
        kept = len(rows) - len(dropped)
        self.rows += kept
        self._buffered += kept
        self._bytes += sum(map(len, rows)) - sum(map(len, dropped))
        for row in dropped:
            reason, count, row_id = row[len(DROPPED_MARK) :].decode(errors="replace").split(" ", 2)
            self.dropped.add(reason, row_id, int(count))
        if self._spilled + self._bytes > self._max_bytes:
            raise too_large(self._max_bytes)
        if self._bytes + ROW_OVERHEAD_BYTES * self._buffered > BUFFERED_MAX_BYTES:
            self._spill()

    def close(self) -> None:
        self._file.close()
        self.dropped.close()
        self._buckets.clear()

    def write(self, train: Path, test: Path, test_fraction: float) -> Parts:
        """Write both parts, and count the duplicates as dropped."""
        self._spill()
        groups: list[_Group] = []
        with _HashingWriter(train) as writer:
            for first, end in self._groups():
                rows, size = writer.rows, writer.bytes
                found = sum(writer.write(batch) for batch in self._sorted(first, end))
                groups.append(_Group(first, end, found, rows, size))
        duplicates = self.rows - writer.rows
        if duplicates:
            self.dropped.counts[DropReason.DUPLICATE] = duplicates
        self.dropped.finish()
        rows, size = self._cut(groups, test_fraction, writer)
        _move_end(train, test, size)
        return Parts(rows, writer.rows - rows, writer.digest.close(rows, writer.rows - rows))

    def _cut(self, groups: list["_Group"], test_fraction: float, writer: "_HashingWriter") -> tuple[int, int]:
        """How many rows and bytes of the ordered file are the training part."""
        left = held_out_count(sum(group.prompts for group in groups), test_fraction)
        if not left:
            return writer.rows, writer.bytes
        for first, end, found, rows, size in reversed(groups):
            if left == found:
                return rows, size
            if left < found:
                kept = found - left
                ordered = chain.from_iterable(self._sorted(first, end))
                for _, prompt in islice(groupby(ordered, key=lambda row: row[:KEY_BYTES]), kept):
                    for row in prompt:
                        rows += 1
                        size += len(row) - KEY_BYTES + 1
                return rows, size
            left -= found
        raise AssertionError("fewer prompts than were counted")

    def _spill(self) -> None:
        """Write what waits as one run."""
        if not self._buckets:
            return
        begin, sizes = self._end, array("Q", bytes(8 * BUCKETS))
        parts: list[bytes] = []
        for digits in sorted(self._buckets, reverse=True):
            rows = self._buckets.pop(digits)
            rows.sort(reverse=True)
            rows.append(b"")
            parts.append(b"\n".join(rows))
            number = BUCKETS - 1 - int(digits, 16)
            sizes[number] = len(parts[-1])
            self._sizes[number] += len(parts[-1])
            if len(parts) == WRITTEN_PARTS:
                self._append(parts)
                parts = []
        self._append(parts)
        self._runs.append(array("Q", accumulate(sizes, initial=begin)))
        self._spilled += self._bytes
        self._buffered = 0
        self._bytes = 0

    def _append(self, parts: list[bytes]) -> None:
        size = sum(map(len, parts))
        written = os.writev(self._file.fileno(), parts) if parts else 0
        if written < size:
            _write_all(self._file.fileno(), b"".join(parts)[written:])
        self._end += size

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Ranges of neighbouring buckets that are sorted together."""
        first = size = 0
        for number, bucket_size in enumerate(self._sizes):
            if size and size + bucket_size > SORTED_BYTES:
                yield first, number
                first, size = number, 0
            size += bucket_size
        if size:
            yield first, BUCKETS

    def _ranges(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the buckets are, in each run: the first byte and how many."""
        for begins in self._runs:
            if begins[end] > begins[first]:
                yield begins[first], begins[end] - begins[first]

    def _sorted(self, first: int, end: int) -> Iterator[list[bytes]]:
        """The buckets' rows, each once, from high to low."""
        if sum(self._sizes[first:end]) > SORTED_MAX_BYTES:
            yield from self._merged(first, end)
            return
        content = b"".join(_read(self._file.fileno(), *found) for found in self._ranges(first, end))
        yield _sorted_once(content[:-1].split(b"\n"))

    def _merged(self, first: int, end: int) -> Iterator[list[bytes]]:
        """Sorted in pieces that fit into memory, which are then merged."""
        runs: list[IO[bytes]] = []
        try:
            for piece in self._pieces(first, end):
                run: IO[bytes] = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed below
                runs.append(run)
                run.writelines(row + b"\n" for row in _sorted_once(piece))
                run.seek(0)
            ordered = heapq.merge(*(map(_without_end, run) for run in runs), reverse=True)
            yield from _in_batches(row for row, _ in groupby(ordered))
        finally:
            for run in runs:
                run.close()

    def _pieces(self, first: int, end: int) -> Iterator[list[bytes]]:
        """The buckets' rows, as they come, in parts that fit into memory."""
        piece = bytearray()
        for offset, size in self._ranges(first, end):
            for start in range(offset, offset + size, SORTED_MAX_BYTES):
                piece += _read(self._file.fileno(), start, min(SORTED_MAX_BYTES, offset + size - start))
                if len(piece) >= SORTED_MAX_BYTES:
                    *rows, rest = bytes(piece).split(b"\n")
                    if rows:
                        yield rows
                    piece = bytearray(rest)
        if piece:
            yield bytes(piece[:-1]).split(b"\n")


class _Group(NamedTuple):
    """Buckets that were sorted together, how many prompts they hold, and the rows and bytes written before them."""

    first: int
    end: int
    prompts: int
    rows: int
    bytes: int


def _sorted_once(rows: list[bytes]) -> list[bytes]:
    rows.sort(reverse=True)
    return list(compress(rows, map(ne, rows, chain((None,), rows))))


def _without_end(row: bytes) -> bytes:
    return row[:-1]


def _read(file: int, offset: int, size: int) -> bytes:
    found = os.pread(file, size, offset)
    if len(found) < size:
        return found + _read(file, offset + len(found), size - len(found))
    return found


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


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
        self._queue: Queue[bytes | None] = Queue(maxsize=4)
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
        found = 0
        for first in range(0, len(rows), WRITTEN_ROWS):
            part = rows[first : first + WRITTEN_ROWS]
            keys = set(map(_key, part))
            found += len(keys) - (self._last_key in keys)
            self._last_key = _key(part[-1])
            lines = b"\n".join([*map(_line, part), b""])
            self.rows += len(part)
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
