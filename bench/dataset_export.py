"""A million ratings to a dataset, against DuckDB's own COPY of the same rows by one thread, from both databases.

The export does more than the copy: it drops duplicates, orders the rows by their content, holds out a part by prompt,
and hashes everything. Each run is a process of its own, whose largest resident memory is read when it ends; import
times count for neither.
"""

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.report import REPOSITORY, Figure, NotMeasurable, Report
from local_cluster.console import Refused
from tests import postgres_server

ROWS = 1_000_000
REPEATED_EVERY = 50
ROUNDS = 3
GOALS = {"SQLite": 1.2, "PostgreSQL": 1.5}
MEMORY_GOAL_MB = 150
COLUMNS = (
    "id BIGINT PRIMARY KEY, prompt TEXT NOT NULL, response TEXT NOT NULL, rating INTEGER NOT NULL, "
    "is_gold_star BOOLEAN NOT NULL, use_as_sample_response BOOLEAN NOT NULL, philosopher VARCHAR(256), "
    "domain VARCHAR(256), task_type VARCHAR(256), confidence DOUBLE PRECISION, created_at TIMESTAMP NOT NULL"
)


@dataclass(frozen=True)
class Run:
    """One process."""

    seconds: float
    cpu_seconds: float
    memory_mb: float
    digest: str = ""


def measure() -> Report:
    with tempfile.TemporaryDirectory(prefix="dataset-export-") as name:
        directory = Path(name)
        database = directory / "ratings.db"
        fill_ratings(database)
        try:
            with postgres_server.running() as server:
                url = server.database()
                _fill_postgres(url, database)
                urls = {"SQLite": f"sqlite:///{database}", "PostgreSQL": url}
                # The scanner of PostgreSQL takes the address as it is.
                sources = {
                    "SQLite": f"'{database}' AS source (TYPE sqlite, READ_ONLY)",
                    "PostgreSQL": f"'{url}' AS source (TYPE postgres, READ_ONLY)",
                }
                runs: dict[str, list[tuple[Run, Run]]] = {kind: [] for kind in urls}
                for _ in range(ROUNDS):
                    for kind, address in urls.items():
                        copied = _run("copy", sources[kind], directory)
                        runs[kind].append((copied, _run("export", address, directory)))
        except Refused as error:
            raise NotMeasurable(str(error)) from error
    digests = {ours.digest for pairs in runs.values() for _, ours in pairs}
    return Report(
        tuple(figure for kind, pairs in runs.items() for figure in _figures(kind, pairs)),
        (
            f"{ROWS:,} rows, one of {REPEATED_EVERY} a duplicate; digests of all exports: "
            + ("the same" if len(digests) == 1 else f"DIFFERENT: {digests}"),
            "the export uses two threads of DuckDB, the copy one; CPU seconds count all threads of the process, not "
            "those of the PostgreSQL server",
        ),
    )


def _figures(kind: str, pairs: list[tuple[Run, Run]]) -> Iterator[Figure]:
    ratio = statistics.median(ours.seconds / copied.seconds for copied, ours in pairs)
    how = f"median of {ROUNDS} rounds, copy and export in turn"

    def middle(values: Iterator[float]) -> str:
        return f"{statistics.median(values):.2f}"

    yield Figure(f"{kind}: export / copy, time", f"{ratio:.2f}", how, f"<= {GOALS[kind]}", ratio <= GOALS[kind])
    for name, index in (("copy", 0), ("export", 1)):
        seconds = middle(pair[index].seconds for pair in pairs)
        cpu = middle(pair[index].cpu_seconds for pair in pairs)
        yield Figure(f"{kind}: {name}, s / CPU s", f"{seconds} / {cpu}", how)
    yield Figure(f"{kind}: copy, resident MB", f"{max(copied.memory_mb for copied, _ in pairs):.0f}", "the largest")
    memory = max(ours.memory_mb for _, ours in pairs)
    goal = f"<= {MEMORY_GOAL_MB}"
    yield Figure(f"{kind}: export, resident MB", f"{memory:.0f}", "the largest", goal, memory <= MEMORY_GOAL_MB)


def _run(what: str, address: str, directory: Path) -> Run:
    with tempfile.TemporaryDirectory(dir=directory) as target:
        done = subprocess.run(
            [sys.executable, "-m", "bench.dataset_process", what, target],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"operator{os.pathsep}.", "DATASET_EXPORT_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise NotMeasurable(f"{what} failed: {done.stderr[-1500:]}")
    return Run(**json.loads(done.stdout))


def _rows(count: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(1)  # noqa: S311 - data, not secrets
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(3000)]
    words[:6] = ['"quoted"', "naïve", "日本語", "line\nbreak", "back\\slash", "tab\t"]
    texts = ("", "")
    for number in range(1, count + 1):
        if number == 1 or number % REPEATED_EVERY:
            texts = (" ".join(chance.choices(words, k=12)), " ".join(chance.choices(words, k=28)))
        domain = ("coding", "legal", "finance", "ethics")[number % 4]
        yield (number, *texts, 4 + number % 2, True, True, "plato", domain, "visualization", 0.5, "2026-11-21 12:00:00")


def fill_ratings(file: Path, rows: int = ROWS) -> None:
    """A new SQLite database of ratings, each a gold star."""
    connection = sqlite3.connect(file)
    connection.execute(f"CREATE TABLE ml_analysis_rating ({COLUMNS.replace('id BIGINT', 'id INTEGER')})")
    connection.executemany(f"INSERT INTO ml_analysis_rating VALUES ({', '.join('?' * 11)})", _rows(rows))  # noqa: S608 - only marks
    connection.commit()
    connection.close()


def _fill_postgres(url: str, database: Path) -> None:
    source = sqlite3.connect(database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE ml_analysis_rating ({COLUMNS})".encode())
        with connection.cursor().copy("COPY ml_analysis_rating FROM STDIN") as copy:
            for row in source.execute("SELECT * FROM ml_analysis_rating"):
                copy.write_row([*row[:4], bool(row[4]), bool(row[5]), *row[6:]])
        connection.execute("VACUUM ANALYZE ml_analysis_rating")
    source.close()
