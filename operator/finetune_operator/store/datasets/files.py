"""Files as sources: JSONL and Parquet below a volume's root, or an object brought from a store.

A file is recognised by its first bytes, never by its name. What is compressed as a whole is refused, since nothing
bounds what comes out of it; Parquet is read by DuckDB, in a bounded part of memory.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar

import duckdb

from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.dataset_records import EXPECTED, Format, InvalidRecord, Record, parse_record
from finetune_operator.store.datasets.engine import ROOMS, line_blocks, opened

LINE_MAX_BYTES = 16 * 1024 * 1024
MESSAGE_MAX_CHARACTERS = 300
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PARQUET_MAGIC = b"PAR1"
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7-Zip",
}

Numbered = tuple[int, Record]
R = TypeVar("R")


class Rows(NamedTuple, Generic[R]):
    """What the rows of a file are: the format's name, how a row looks, and how it is read, raising `InvalidRecord`."""

    name: str
    expected: str
    parse: Callable[[bytes], R]


def inside(root: Path, relative_path: str) -> Path:
    """The file behind a user's path, symbolic links resolved, which must not lead out of the volume."""
    try:
        file = (root / relative_path).resolve(strict=True)
        is_inside = file.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        raise _bad_path(relative_path, "does not exist on the volume") from None
    if not is_inside:
        raise _bad_path(relative_path, "leads out of its volume")
    if not file.is_file():
        raise _bad_path(relative_path, "is not a file")
    return file


def records(file: Path, name: str, record_format: Format, work: Path) -> Iterator[Numbered]:
    """The records of a file and their numbers, as of `rows`."""
    parse: Callable[[bytes], Record] = partial(parse_record, record_format=record_format)
    return rows(file, name, Rows(record_format, EXPECTED[record_format], parse), work)


def rows(file: Path, name: str, kind: Rows[R], work: Path) -> Iterator[tuple[int, R]]:
    """The rows of a file and their numbers, from 1. Raises `Refused` with the number of the first that is bad."""
    # Opened once, so that what is recognised is what is read, whatever becomes of the path.
    with file.open("rb") as content:
        head = content.read(8)
        content.seek(0)
        _require_uncompressed(head, name)
        if head.startswith(PARQUET_MAGIC):
            yield from _parquet(content, name, kind, work)
        else:
            yield from _json_lines(content, name, kind)


def json_lines(content: IO[bytes], name: str, record_format: Format) -> Iterator[Numbered]:
    """As `records`, of what has to be JSON lines."""
    head = content.read(8)
    content.seek(0)
    _require_uncompressed(head, name)
    parse: Callable[[bytes], Record] = partial(parse_record, record_format=record_format)
    yield from _json_lines(content, name, Rows(record_format, EXPECTED[record_format], parse))


def _require_uncompressed(head: bytes, name: str) -> None:
    for magic, compression in COMPRESSED.items():
        if head.startswith(magic):
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"{name} is compressed with {compression}",
                "decompress it, or write it as Parquet, whose columns may be compressed",
            )


def _require_lines(first: bytes, name: str) -> None:
    if first.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"["):
        raise Refused.because(
            FailureReason.DATASET_INVALID,
            f"{name} is one JSON array, where each line has to be a record",
            "write a record a line: jq -c '.[]' file.json > file.jsonl",
        )


def _json_lines(content: IO[bytes], name: str, kind: Rows[R]) -> Iterator[tuple[int, R]]:
    number = 0
    while line := content.readline(LINE_MAX_BYTES + 1):
        number += 1
        if number == 1:
            _require_lines(line, name)
        if len(line) > LINE_MAX_BYTES:
            raise _bad_row(name, number, f"longer than {LINE_MAX_BYTES} bytes", kind)
        line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if line.strip():
            yield number, _parsed(line, name, number, kind)


def _parquet(content: IO[bytes], name: str, kind: Rows[R], work: Path) -> Iterator[tuple[int, R]]:
    number = 0
    source = f"/proc/self/fd/{content.fileno()}"
    # The last room has one thread: rows are numbered, so their order counts.
    with opened(work, ROOMS[-1]) as connection:
        connection.execute("SET preserve_insertion_order = true")
        query = f"SELECT to_json(row)::VARCHAR FROM read_parquet('{source}') AS row"  # noqa: S608 - a number
        try:
            for block in line_blocks(connection, query, {}):
                for line in block[:-1].split(b"\n"):
                    number += 1
                    if len(line) > LINE_MAX_BYTES:
                        raise _bad_row(name, number, f"longer than {LINE_MAX_BYTES} bytes", kind)
                    yield number, _parsed(line, name, number, kind)
        except duckdb.Error as error:
            words = " ".join(str(error).split())[:MESSAGE_MAX_CHARACTERS].replace(source, name)
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"{name} can't be read as Parquet after row {number}: {words}",
                "write the file anew, with smaller row groups if it is memory that lacked",
            ) from None


def _parsed(line: bytes, name: str, number: int, kind: Rows[R]) -> R:
    try:
        return kind.parse(line)
    except InvalidRecord as error:
        raise _bad_row(name, number, str(error), kind) from None


def _bad_path(relative_path: str, what: str) -> Refused:
    return Refused.because(
        FailureReason.DATASET_INVALID,
        f"dataset.volume.path {relative_path!r} {what}",
        "name a JSONL or Parquet file below the volume's root",
    )


def _bad_row(name: str, number: int, what: str, kind: Rows[R]) -> Refused:
    return Refused.because(
        FailureReason.DATASET_INVALID,
        f"row {number} of {name} is not a {kind.name} record: {what}",
        f"each row must look like {kind.expected}",
    )
