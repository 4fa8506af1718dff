"""DuckDB as this product uses it: in memory, bounded, without network, and its text results as a stream of lines.

The scanners for SQLite and PostgreSQL come from wheels; DuckDB checks their signature when it loads them.
"""

import fcntl
import os
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from io import RawIOBase
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import duckdb


class Room(NamedTuple):
    """What DuckDB may take."""

    memory_limit: str
    threads: int


# DuckDB works on 2048 rows at a time, so that what it needs grows with the rows: the first is enough for a few hundred
# bytes each, the last is half of what the container has.
ROOMS = (Room("56MB", 2), Room("128MB", 1), Room("512MB", 1))
PIPE_BYTES = 1024 * 1024
# What is sorted at once: a core's cache holds it, and the rows cut out of it.
BLOCK_BYTES = 1024 * 1024
WAITING_MAX = 4
SETTINGS: Mapping[str, str | int | bool] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "preserve_insertion_order": False,
}
SCANNERS = {"sqlite": "sqlite_scanner", "postgresql": "postgres_scanner"}


@contextmanager
def opened(work: Path, room: Room = ROOMS[0]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to `work`."""
    connection = duckdb.connect(config={**SETTINGS, **room._asdict(), "temp_directory": str(work / "duckdb")})
    try:
        yield connection
    finally:
        connection.close()


def load_scanner(connection: duckdb.DuckDBPyConnection, backend: str) -> None:
    name = SCANNERS[backend]
    extension = files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    connection.execute(f"LOAD {literal(str(extension))}")


def literal(text: str) -> str:
    """Text as an SQL literal, for the statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def line_blocks(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, str | int | float]
) -> Generator[bytes]:
    """The lines that a query of one text column gives, in blocks of whole ones; no value may hold a line feed or a NUL.

    DuckDB writes them to a pipe, which is several times faster than making each a Python object of its own, and goes
    on scanning while the reader works. Raises what ended scan or reading, mostly a `duckdb.Error`, after what was read.
    """
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    errors: list[BaseException] = []
    # Quoting by nothing is forced, since each character would be looked at for whether it needs it.
    copy = (
        f"COPY ({query}) TO '/dev/fd/{write_end}' "
        "(FORMAT csv, HEADER false, QUOTE '', FORCE_QUOTE *, ESCAPE '', DELIMITER '\x01', NULLSTR '', "
        "USE_TMP_FILE false)"
    )

    def work() -> None:
        try:
            connection.execute(copy, dict(parameters))
        except BaseException as error:  # noqa: BLE001 - a scan that ended early must not look like a whole one
            errors.append(error)
        finally:
            os.close(write_end)

    writer = threading.Thread(target=work, name="dataset-scan", daemon=True)
    writer.start()
    try:
        with open(read_end, "rb", buffering=0) as pipe:
            yield from _ahead(whole_lines(pipe))
    finally:
        writer.join()
    if errors:
        raise errors[0]


def _ahead(blocks: Iterator[bytes]) -> Generator[bytes]:
    """The same, read by a thread of its own: while a block is worked at, the pipe alone would soon be full."""
    waiting: Queue[bytes | None] = Queue(maxsize=WAITING_MAX)
    is_left = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for block in blocks:
                if is_left.is_set():
                    break
                waiting.put(block)
        except BaseException as error:  # noqa: BLE001 - what ended early must not look like the whole
            errors.append(error)
        finally:
            waiting.put(None)

    reader = threading.Thread(target=work, name="dataset-reader", daemon=True)
    reader.start()
    block: bytes | None = b""
    try:
        while block := waiting.get():
            yield block
    finally:
        is_left.set()
        while block is not None:
            block = waiting.get()
        reader.join()
    if errors:
        raise errors[0]


def whole_lines(source: RawIOBase) -> Iterator[bytes]:
    """What is read, cut after a line feed; a line that ends without one is left out."""
    buffer, filled = bytearray(BLOCK_BYTES), 0
    while read := source.readinto(memoryview(buffer)[filled:]):
        filled += read
        if filled < len(buffer):
            continue
        end = buffer.rfind(b"\n") + 1
        if not end:
            buffer += bytes(len(buffer))
            continue
        yield bytes(memoryview(buffer)[:end])
        rest = buffer[end:]
        filled = len(rest)
        buffer[:filled] = rest
    if end := buffer.rfind(b"\n", 0, filled) + 1:
        yield bytes(memoryview(buffer)[:end])
