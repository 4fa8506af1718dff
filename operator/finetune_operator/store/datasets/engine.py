"""DuckDB as this product uses it: in memory, bounded, without network, and its text results as a stream of lines.

The scanners for SQLite and PostgreSQL come from wheels; DuckDB checks their signature when it loads them.
"""

import fcntl
import os
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
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
# Small enough that splitting what was read finds it in the core's cache.
READ_BYTES = 128 * 1024
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


def lines(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, str | int | float]
) -> Generator[list[bytes]]:
    """The lines that a query of one text column gives, in blocks; no value may hold a line feed or a NUL.

    DuckDB writes them to a pipe, which is several times faster than making each a Python object of its own, and goes
    on scanning while the reader works. Raises what ended the scan, mostly a `duckdb.Error`, after what could be read.
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
    rest = b""
    try:
        with open(read_end, "rb", buffering=0) as pipe:
            while block := pipe.read(READ_BYTES):
                found = (rest + block).split(b"\n")
                rest = found.pop()
                if found:
                    yield found
    finally:
        writer.join()
    if errors:
        raise errors[0]
