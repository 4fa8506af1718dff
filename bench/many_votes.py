"""A million votes and samples of one ABTest, as an installation of an older release has them: copied in, not cast."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.many_resources import FAMILIES, NAMESPACE
from finetune_operator.store import migrations
from finetune_operator.store.migrations import MIGRATIONS, migrate
from finetune_operator.store.urls import DatabaseUrl

OLD_SCHEMA = 8
"""Counts nothing by itself, so that nothing is counted a million times."""
DAYS = 30
RATED_ONE_OF = 100
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHOICES = ("fine_tuned", "base", "fine_tuned", "tie", "both_bad")

Row = dict[str, Any]


async def fill(engine: AsyncEngine, url: DatabaseUrl, votes: int, samples: int) -> None:
    """Into a new database, which has an older schema then."""
    with patch.object(migrations, "MIGRATIONS", MIGRATIONS[:OLD_SCHEMA]):
        await migrate(engine)
    _copy(url, {"abtest_comparisons": (_comparison, votes), "abtest_votes": (_vote, votes)})
    _copy(url, {"abtest_samples": (_sample, samples), "feedback": (_feedback, samples // RATED_ONE_OF)})


async def fill_usage(engine: AsyncEngine, url: DatabaseUrl) -> None:
    """A month of answers of two gateways, of the first version of each family; into the newest schema."""
    await migrate(engine)
    _copy(url, {"version_usage": (_usage, FAMILIES * DAYS * 2)})
    if url.backend == "postgresql":
        # As autovacuum does before long.
        with psycopg.connect(_dsn(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")


def _copy(url: DatabaseUrl, tables: dict[str, tuple[Callable[[int], Row], int]]) -> None:
    for table, (row, count) in tables.items():
        rows = map(row, range(count))
        columns = tuple(row(0))
        if url.backend == "postgresql":
            with psycopg.connect(_dsn(url)) as connection, connection.cursor() as cursor:
                names = sql.SQL(", ").join(map(sql.Identifier, columns))
                command = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
                with cursor.copy(command) as copy:
                    for values in _values(rows):
                        copy.write_row(values)
        else:
            with closing(sqlite3.connect(str(url.database))) as connection, connection:
                places = ", ".join("?" * len(columns))
                statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - our own names
                connection.executemany(statement, _written(rows))


def _values(rows: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row.values()) for row in rows)


def _written(rows: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
    """Moments as SQLAlchemy writes them."""
    for values in _values(rows):
        yield tuple(
            f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime)
            else value.isoformat() if isinstance(value, date)
            else value
            for value in values
        )  # fmt: skip


def _dsn(url: DatabaseUrl) -> str:
    password = f":{url.password}" if url.password else ""
    return f"postgresql://{url.user}{password}@{url.host}:{url.port}/{url.database}"


def _comparison(number: int) -> Row:
    return {
        "id": f"{number:08}",
        "abtest_uid": "test-uid",
        "namespace": NAMESPACE,
        "name": "duel",
        "evaluator": f"voter-{number % 1000}",
        "number": number // 1000,
        "prompt": f"What is the use of question {number % 200}?",
        "baseline_served_name": "tiny-llama",
        "candidate_served_name": "family-0-v1",
        "baseline_answer": "It is of no use at all.",
        "candidate_answer": "It is of use to those who think about it.",
        "candidate_side": "a",
        "created_at": NOON + timedelta(seconds=number),
    }


def _vote(number: int) -> Row:
    return {
        "comparison_id": f"{number:08}",
        "evaluator": f"voter-{number % 1000}",
        "abtest_uid": "test-uid",
        "choice": CHOICES[number * 7 % 5],
        "late": False,
        "created_at": NOON + timedelta(seconds=number + 1),
    }


def _sample(number: int) -> Row:
    return {
        "abtest_uid": "test-uid",
        "request_id": f"request-{number:08}",
        "arm": "candidate" if number % 2 else "baseline",
        "served_name": "family-0-v1",
        "status": 200,
        "latency_ms": 100 + number % 50,
        "time": NOON + timedelta(seconds=number),
        "shadow": False,
    }


def _feedback(number: int) -> Row:
    return {
        "request_id": f"request-{number * RATED_ONE_OF:08}",
        "rating": 1 + number % 5,
        "created_at": NOON + timedelta(seconds=number),
    }


def _usage(number: int) -> Row:
    """The family's first version was made by the training of the family's number."""
    family, day = number % FAMILIES, number // FAMILIES
    return {
        "version_uid": f"uid-family-{family}-v1",
        "day": date(2026, 11, 1) + timedelta(days=day % DAYS),
        "reporter": f"gateway-{day // DAYS}",
        "calls": 1000,
        "failed": 1,
        "calls_with_tokens": 900,
        "prompt_tokens": 200_000,
        "completion_tokens": 90_000,
    }
