"""Puts more rows into order than fit into memory, as `core.datasets.arranged` says.

A row is its prompt's key, 16 hexadecimal digits, followed by its line; or it is one that was dropped, written as
`!!<reason> <count> <row>`. The rows of a block are sorted and go to a file as a run, in which those whose keys have the
same first two digits are a bucket. Neighbouring buckets are neighbours in every run, and as many are read together and
sorted as fit into a core's cache. The held-out prompts are the last ones of the order, so that the test part is cut off
the end of the file.
"""

import heapq
import os
import tempfile
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, compress, groupby, islice, pairwise
from operator import ne
from pathlib import Path
from typing import IO, NamedTuple

from finetune_operator.core.datasets import DropReason, held_out_count
from finetune_operator.store.datasets.dropped_rows import DROPPED_NAME, NAMED_MAX_ROWS, Dropped
from finetune_operator.store.datasets.part_files import COPIED_BYTES, KEY_BYTES, PartWriter, move_end
from finetune_operator.store.datasets.space import too_large

# More digits would part two gigabytes and more without a merge, but each piece of a run would be a few rows.
BUCKETS = tuple(b"%02x" % number for number in range(256))
DROPPED_MARK = b"!!"
# What is sorted at once when there is a choice.
SORTED_BYTES = 2 * 1024 * 1024
SORTED_MAX_BYTES = 8 * 1024 * 1024
Buckets = tuple[int, int]
"""The first, and the one after the last."""


class Parts(NamedTuple):
    """What was written."""

    rows: int
    test_rows: int
    digest: str


class Spool:
    """Rows on their way into a dataset; `directory` must be empty, and is left with the file of dropped rows."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed by close
        self._runs: list[array[int]] = []
        self._end = 0
        self._sizes = [0] * len(BUCKETS)
        self.rows = 0
        self.dropped = Dropped(directory / DROPPED_NAME)

    def add(self, block: bytes) -> None:
        """Take whole rows, each with its line feed; those that begin with the mark of dropped ones are counted instead.
        What comes together is sorted together, a megabyte or two at best. Raises `Refused` where they become more than
        the dataset may have.
        """
        rows = block[:-1].split(b"\n") if block else []
        if block.startswith(DROPPED_MARK) or b"\n" + DROPPED_MARK in block:
            for row in rows:
                if row.startswith(DROPPED_MARK):
                    reason, count, row_id = row[len(DROPPED_MARK) :].decode(errors="replace").split(" ", 2)
                    self.dropped.add(reason, row_id, int(count))
            rows = [row for row in rows if not row.startswith(DROPPED_MARK)]
        self.rows += len(rows)
        rows.sort()
        edges = [*(bisect_left(rows, digits) for digits in BUCKETS), len(rows)]
        parts = [b"\n".join([*rows[first:end], b""]) for first, end in pairwise(edges)]
        sizes = [len(part) for part in parts]
        self._runs.append(array("Q", accumulate(sizes, initial=self._end)))
        self._end += sum(sizes)
        if self._end > self._max_bytes:
            raise too_large(self._max_bytes)
        self._sizes = [before + size for before, size in zip(self._sizes, sizes, strict=True)]
        _write_all(self._file.fileno(), parts)

    def close(self) -> None:
        self._file.close()
        self.dropped.close()

    def write(self, train: Path, test: Path, test_fraction: float) -> Parts:
        """Write both parts, and drop the duplicates, each named by the row it equals."""
        groups: list[_Group] = []
        copies = _Copies()
        with PartWriter(train) as writer:
            for buckets in self._groups():
                content = self._content(buckets)
                group = _Group(buckets, 0, writer.rows, writer.bytes)
                found = 0
                for batch in [_ordered(content[:-1].split(b"\n"))] if content else _in_batches(self._merged(buckets)):
                    copies.add(writer.rows, batch.copies)
                    found += writer.write(batch.rows)
                groups.append(group._replace(prompts=found))
        rows, size = self._cut(groups, test_fraction, writer)
        move_end(train, test, size)
        for row, count in copies:
            place = f"{train.name}:{row + 1}" if row < rows else f"{test.name}:{row - rows + 1}"
            self.dropped.add(DropReason.DUPLICATE, place, count)
        if duplicates := self.rows - writer.rows:
            self.dropped.counts[DropReason.DUPLICATE] = duplicates
        self.dropped.finish()
        return Parts(rows, writer.rows - rows, writer.digest.close(rows, writer.rows - rows))

    def _cut(self, groups: list["_Group"], test_fraction: float, writer: PartWriter) -> tuple[int, int]:
        """How many rows and bytes of the ordered file are the training part."""
        left = held_out_count(sum(group.prompts for group in groups), test_fraction)
        if not left:
            return writer.rows, writer.bytes
        for buckets, found, rows, size in reversed(groups):
            if left == found:
                return rows, size
            if left < found:
                kept = found - left
                for _, prompt in islice(groupby(self._merged(buckets), key=lambda found: found[0][:KEY_BYTES]), kept):
                    for row, _ in prompt:
                        rows += 1
                        size += len(row) - KEY_BYTES + 1
                return rows, size
            left -= found
        raise AssertionError("fewer prompts than were counted")

    def _groups(self) -> Iterator[Buckets]:
        """Neighbouring buckets that are sorted together, from high to low."""
        end, size = len(BUCKETS), 0
        for number in reversed(range(len(BUCKETS))):
            if size and size + self._sizes[number] > SORTED_BYTES:
                yield number + 1, end
                end, size = number + 1, 0
            size += self._sizes[number]
        if size:
            yield 0, end

    def _content(self, buckets: Buckets) -> bytes | None:
        """Their rows, or none where they are too many to be sorted at once."""
        if sum(self._sizes[slice(*buckets)]) > SORTED_MAX_BYTES:
            return None
        return b"".join(_read(self._file.fileno(), *found) for found in self._ranges(buckets))

    def _ranges(self, buckets: Buckets) -> Iterator[tuple[int, int]]:
        """Where the buckets are, in each run: the first byte and how many."""
        first, end = buckets
        for begins in self._runs:
            if begins[end] > begins[first]:
                yield begins[first], begins[end] - begins[first]

    def _merged(self, buckets: Buckets) -> Iterator[tuple[bytes, int]]:
        """The buckets' rows, each once and how many copies it has, from high to low: sorted in pieces that fit into
        memory.
        """
        runs: list[IO[bytes]] = []
        try:
            for piece in self._pieces(buckets):
                run: IO[bytes] = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed below
                runs.append(run)
                run.writelines(row + b"\n" for row in sorted(piece, reverse=True))
                run.seek(0)
            ordered = heapq.merge(*(map(_without_end, run) for run in runs), reverse=True)
            yield from ((row, sum(1 for _ in same) - 1) for row, same in groupby(ordered))
        finally:
            for run in runs:
                run.close()

    def _pieces(self, buckets: Buckets) -> Iterator[list[bytes]]:
        """The buckets' rows, as they come, in parts that fit into memory."""
        piece = bytearray()
        for offset, size in self._ranges(buckets):
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

    buckets: Buckets
    prompts: int
    rows: int
    bytes: int


class _Batch(NamedTuple):
    """Rows, each once and from high to low; `copies` has how many more there were of a row, by its place."""

    rows: list[bytes]
    copies: dict[int, int]


class _Copies:
    """How many copies the rows of the ordered file had, as far as they will be named."""

    def __init__(self) -> None:
        self._rows = array("Q")
        self._counts = array("Q")

    def add(self, rows_before: int, copies: dict[int, int]) -> None:
        for place, count in islice(copies.items(), NAMED_MAX_ROWS - len(self._rows)):
            self._rows.append(rows_before + place)
            self._counts.append(count)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._rows, self._counts, strict=True)


def _ordered(rows: list[bytes]) -> _Batch:
    rows.sort(reverse=True)
    is_first = list(map(ne, rows, chain((None,), rows)))
    kept = list(compress(rows, is_first))
    copies: Counter[int] = Counter()
    if len(kept) < len(rows):
        copied = (place for place, first in enumerate(is_first) if not first)
        copies.update(place - found - 1 for found, place in enumerate(copied))
    return _Batch(kept, copies)


def _without_end(row: bytes) -> bytes:
    return row[:-1]


def _read(file: int, offset: int, size: int) -> bytes:
    found = os.pread(file, size, offset)
    if len(found) < size:
        return found + _read(file, offset + len(found), size - len(found))
    return found


def _write_all(file: int, parts: list[bytes]) -> None:
    written = os.writev(file, parts)
    if written < sum(map(len, parts)):
        left = memoryview(b"".join(parts))[written:]
        while left:
            left = left[os.write(file, left) :]


def _in_batches(rows: Iterable[tuple[bytes, int]]) -> Iterator[_Batch]:
    batch = _Batch([], {})
    size = 0
    for row, copies in rows:
        if copies:
            batch.copies[len(batch.rows)] = copies
        batch.rows.append(row)
        size += len(row)
        if size > COPIED_BYTES:
            yield batch
            batch, size = _Batch([], {}), 0
    if batch.rows:
        yield batch
