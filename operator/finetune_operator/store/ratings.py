"""What can be asked of `ml_analysis_rating`, which may be another application's table, besides for its rows.

Asked by the drivers themselves, in SQL that SQLite and PostgreSQL share: an export pays for no more than it needs.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.core.datasets import FilterCount
from finetune_operator.store.urls import DatabaseUrl, UnusableUrl, conninfo, parse_url, shown, without_secrets

TABLE = "ml_analysis_rating"
REQUIRED_COLUMNS = frozenset({"id", "prompt", "response", "rating"})
OPTIONAL_COLUMNS = frozenset({"philosopher", "domain", "task_type", "confidence"})
GROUPS_SHOWN = 100
EXAMPLES = 3
EXAMPLE_MAX_CHARACTERS = 500
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 5.0
CONNECT_TIMEOUT_MIN_SECONDS = 2
MESSAGE_MAX_CHARACTERS = 500
READ_ONLY = "-c default_transaction_read_only=on"

Answer = TypeVar("Answer")
Value = str | int | float
Row = tuple[object, ...]


class LargestRow(NamedTuple):
    """The row with the most text."""

    id: str
    bytes: int


class Example(NamedTuple):
    """One rating, with the beginnings of its texts."""

    prompt: str
    response: str
    rating: str


class Statistics(NamedTuple):
    """What the rows that all filters leave are like; lengths in characters. `by_filter` begins with the table."""

    rows: int
    by_filter: tuple[FilterCount, ...]
    by_domain: Mapping[str, int]
    by_task_type: Mapping[str, int]
    by_rating: Mapping[str, int]
    average_prompt_characters: float
    average_response_characters: float
    examples: tuple[Example, ...]
    """The first ones by their ids."""


def as_data(found: Statistics) -> dict[str, object]:
    """As JSON has it."""
    return found._asdict() | {
        "by_filter": [each._asdict() for each in found.by_filter],
        "examples": [each._asdict() for each in found.examples],
    }


class Filter(NamedTuple):
    """One condition, under the name by which the user set it; `{}` is where its value goes."""

    name: str
    condition: str
    value: Value | None = None


class Columns(NamedTuple):
    """The table's columns and their types, and, in PostgreSQL, the schema in which it was found."""

    types: Mapping[str, str] = {}
    schema: str = ""


class _Failed(Exception):
    """A driver's error: its words, and whether waiting can help."""

    def __init__(self, words: str, *, unreachable: bool, may_pass: bool) -> None:
        super().__init__(words)
        self.unreachable = unreachable
        self.may_pass = may_pass


def filters_of(source: RatingsSource, *, all_ratings: bool) -> tuple[Filter, ...]:
    """The source's filters in a fixed order. A pair needs its bad answer too, so pairs are made of all ratings."""
    chosen = [
        Filter(f"{label}={value!r}", f"{column} = {{}}", value)
        for label, column, value in (
            ("philosopher", "philosopher", source.philosopher),
            ("domain", "domain", source.domain),
            ("taskType", "task_type", source.task_type),
        )
        if value is not None
    ]
    if source.min_confidence is not None:
        chosen.append(Filter(f"minConfidence={source.min_confidence}", "confidence >= {}", source.min_confidence))
    if not all_ratings:
        if source.gold_star_only:
            gold = " AND ".join(
                f"lower(CAST({column} AS TEXT)) IN ('1', 'true', 't')"
                for column in ("is_gold_star", "use_as_sample_response")
            )
            chosen.append(Filter("goldStarOnly (is_gold_star and use_as_sample_response)", gold))
        chosen.append(Filter(f"minRating={source.min_rating}", "rating >= {}", source.min_rating))
    return tuple(chosen)


@dataclass(frozen=True)
class RatingsDatabase:
    """A database whose table was checked; each query connects, and is tried again for `timeout_seconds` while the
    server can't be reached.
    """

    url: DatabaseUrl
    timeout_seconds: float
    table: Columns = field(default_factory=Columns)

    @classmethod
    def open(cls, url_text: str, timeout_seconds: float) -> "RatingsDatabase":
        """Connect and check the table. Raises `Refused` with what to change."""
        try:
            url = parse_url(url_text)
        except UnusableUrl as error:
            raise unreachable(str(error)) from None
        if url.backend == "sqlite" and not Path(str(url.database)).is_file():
            raise unreachable(f"there is no SQLite database {url.database}; is ratings.claimName set?")
        database = cls(url, timeout_seconds)
        return replace(database, table=database._read_columns())

    @property
    def columns(self) -> Mapping[str, str]:
        return self.table.types

    def check(self, source: RatingsSource, *, all_ratings: bool) -> None:
        """Whether the filters can be asked of this table at all. Raises `Refused`."""
        named = {
            "philosopher": source.philosopher,
            "domain": source.domain,
            "task_type": source.task_type,
            "confidence": source.min_confidence,
        }
        used = {name for name, value in named.items() if value is not None}
        if source.gold_star_only and not all_ratings:
            used |= {"is_gold_star", "use_as_sample_response"}
        if missing := used - self.columns.keys():
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the table {TABLE} lacks {', '.join(sorted(missing))}, which a filter names",
                "add them, or remove the filters of spec.dataset.ratings that need them",
            )
        if self.url.backend == "postgresql":
            for name, value in named.items():
                if isinstance(value, str) and "\0" in value:
                    raise Refused.because(
                        FailureReason.DATASET_INVALID,
                        f"the filter {name} holds a NUL, which no text of PostgreSQL does",
                        f"correct {name} in spec.dataset.ratings",
                    )

    def largest_row(self) -> LargestRow:
        """By which a row that is too large to be read is named."""
        size = "octet_length(prompt) + octet_length(response)"
        if self.url.backend == "sqlite":
            size = "length(CAST(prompt AS BLOB)) + length(CAST(response AS BLOB))"
        query = f"SELECT CAST(id AS TEXT), {size} AS bytes FROM {TABLE} ORDER BY bytes DESC LIMIT 1"  # noqa: S608 - names of ours only
        ((row_id, found),) = self._rows(query)
        return LargestRow(str(row_id), _number(found))

    def statistics(self, source: RatingsSource, *, all_ratings: bool) -> Statistics:
        """Counted by the database."""
        filters = filters_of(source, all_ratings=all_ratings)

        def counts(column: str) -> dict[str, int]:
            if column not in self.columns:
                return {}
            grouped = f"GROUP BY {column} ORDER BY {column} LIMIT {GROUPS_SHOWN}"
            rows = self._selected(f"{column}, count(*)", filters, grouped)
            return {"(none)" if name is None else str(name): _number(count) for name, count in rows}

        left, prompt, response = self._left(filters)
        if not left[-1].rows:
            return Statistics(0, left, {}, {}, {}, 0, 0, ())
        return Statistics(
            left[-1].rows,
            left,
            counts("domain"),
            counts("task_type"),
            counts("rating"),
            round(float(str(prompt or 0)), 1),
            round(float(str(response or 0)), 1),
            self._examples(filters),
        )

    def count_by_filter(self, source: RatingsSource, *, all_ratings: bool) -> tuple[FilterCount, ...]:
        """How many rows are left as each filter is added."""
        return self._left(filters_of(source, all_ratings=all_ratings))[0]

    def _left(self, filters: Sequence[Filter]) -> tuple[tuple[FilterCount, ...], object, object]:
        """In one pass; with the average lengths of prompts and responses that all filters leave."""
        passed, all_of_them = "0", len(filters)
        for number, filter_ in reversed(tuple(enumerate(filters, 1))):
            then = number if number == all_of_them else passed
            passed = f"CASE WHEN {filter_.condition} THEN {then} ELSE {number - 1} END"
        # The planner would work out the filters for each count anew without a bound that bounds nothing.
        fence = "LIMIT -1" if self.url.backend == "sqlite" else "OFFSET 0"
        counts = [f"count(CASE WHEN passed >= {number} THEN 1 END)" for number in range(all_of_them + 1)]
        lengths = [f"avg(CASE WHEN passed = {all_of_them} THEN length({text}) END)" for text in ("prompt", "response")]
        inner = f"SELECT {passed} AS passed, prompt, response FROM {TABLE} {fence}"  # noqa: S608 - names are ours
        values = tuple(filter_.value for filter_ in filters if filter_.value is not None)
        query = f"SELECT {', '.join((*counts, *lengths))} FROM ({inner}) AS rated"  # noqa: S608 - names are ours
        ((*found, prompt, response),) = self._rows(self._marked(query), values)
        names = ("the table", *(filter_.name for filter_ in filters))
        left = tuple(FilterCount(name, _number(count)) for name, count in zip(names, found, strict=True))
        return left, prompt, response

    def _examples(self, filters: Sequence[Filter]) -> tuple[Example, ...]:
        texts = (f"substr(CAST({text} AS TEXT), 1, {EXAMPLE_MAX_CHARACTERS + 1})" for text in ("prompt", "response"))
        rows = self._selected(f"{', '.join(texts)}, rating", filters, f"ORDER BY id LIMIT {EXAMPLES}")
        return tuple(
            Example(_beginning(prompt), _beginning(response), str(rating)) for prompt, response, rating in rows
        )

    def close(self) -> None:
        """Nothing stays open; for those who hold it as a resource."""

    def _selected(self, columns: str, filters: Sequence[Filter], grouped: str = "") -> list[Row]:
        where = " AND ".join(["TRUE", *(filter_.condition for filter_ in filters)])
        values = tuple(filter_.value for filter_ in filters if filter_.value is not None)
        query = f"SELECT {columns} FROM {TABLE} WHERE {where} {grouped}"  # noqa: S608 - names are ours
        return self._rows(self._marked(query), values)

    def _marked(self, query: str) -> str:
        return query.replace("{}", "?" if self.url.backend == "sqlite" else "%s")

    def _read_columns(self) -> Columns:
        if self.url.backend == "sqlite":
            # Those that a virtual table hides are no columns of anybody's.
            rows = self._rows("SELECT name, type, '' FROM pragma_table_xinfo(?) WHERE hidden <> 1", (TABLE,))
        else:
            rows = self._patiently(lambda: _columns_of_postgresql(self.url, self.timeout_seconds))
        if not rows:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the database {shown(self.url)} has no table {TABLE}",
                "point ratings.secretRef at the database that has it, or create it (its columns: docs/datasets.md)",
            )
        present = {str(name): str(type_) for name, type_, _ in rows}
        if missing := REQUIRED_COLUMNS - present.keys():
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the table {TABLE} lacks the columns {', '.join(sorted(missing))}",
                "add them, or make a view of that name that has them",
            )
        return Columns(present, str(rows[0][2]))

    def _rows(self, query: str, values: tuple[Value, ...] = ()) -> list[Row]:
        fetch = _from_sqlite if self.url.backend == "sqlite" else _from_postgresql
        return self._patiently(lambda: fetch(self.url, self.timeout_seconds, query, values))

    def _patiently(self, fetch: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self.timeout_seconds
        backoff_seconds = BACKOFF_FIRST_SECONDS
        while True:
            try:
                return fetch()
            except _Failed as error:
                # The driver's own words, without the statement and without secrets.
                words = without_secrets(" ".join(str(error).split()), self.url)[:MESSAGE_MAX_CHARACTERS]
                if not error.unreachable:
                    raise Refused.because(
                        FailureReason.DATASET_INVALID,
                        f"the database {shown(self.url)} refused the query: {words}",
                        f"compare the table {TABLE} with the columns that the filters name",
                    ) from None
                left = deadline - time.monotonic()
                if left <= 0 or not error.may_pass:
                    raise unreachable(f"{shown(self.url)}: {words}") from None
                time.sleep(min(backoff_seconds, left))
                backoff_seconds = min(BACKOFF_MAX_SECONDS, backoff_seconds * 2)


def _from_sqlite(url: DatabaseUrl, timeout_seconds: float, query: str, values: tuple[Value, ...]) -> list[Row]:
    """Never writes, not even the files beside the database: a directory that is not writable can't hold its
    shared-memory file, so that the database is then read as immutable, without locks and without its write-ahead log.
    """
    path = Path(str(url.database))
    immutable = "" if is_writable(path.parent) else "&immutable=1"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro{immutable}", uri=True, timeout=timeout_seconds)
        ) as (connection):
            connection.text_factory = _readable
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        # Its only passing state is a lock.
        passing = getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        unreachable_ = isinstance(error, sqlite3.OperationalError)
        raise _Failed(str(error), unreachable=unreachable_, may_pass=passing) from None


def _readable(text: bytes) -> str:
    """SQLite takes whatever bytes it is given for a text."""
    return text.decode(errors="replace")


def _columns_of_postgresql(url: DatabaseUrl, timeout_seconds: float) -> list[Row]:
    """By DuckDB, which an export needs anyway: Python's own driver would take 10 MB of memory for this one question."""
    import duckdb

    from finetune_operator.store.datasets.engine import ROOMS, SETTINGS, literal, load_scanner

    query = (
        "SELECT attname::text, format_type(atttypid, NULL), nspname::text FROM pg_attribute "
        "JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE attrelid = to_regclass('ml_analysis_rating') AND attnum > 0 AND NOT attisdropped"
    )
    try:
        with duckdb.connect(config={**SETTINGS, **ROOMS[0]._asdict()}) as connection:
            load_scanner(connection, url.backend)
            address = literal(_patient(url, timeout_seconds))
            connection.execute(f"ATTACH {address} AS source (TYPE postgres, READ_ONLY)")
            return connection.execute(f"FROM postgres_query('source', {literal(query)})").fetchall()
    except duckdb.Error as error:
        lost = isinstance(error, duckdb.IOException)
        raise _Failed(str(error), unreachable=lost, may_pass=lost) from None


def _from_postgresql(url: DatabaseUrl, timeout_seconds: float, query: str, values: tuple[Value, ...]) -> list[Row]:
    # Only those who count, or whose export failed, need it.
    import psycopg

    try:
        with psycopg.connect(_patient(url, timeout_seconds)) as connection:
            return connection.execute(query.encode(), values).fetchall()
    except psycopg.Error as error:
        lost = isinstance(error, psycopg.OperationalError)
        raise _Failed(str(error), unreachable=lost, may_pass=lost) from None


def _patient(url: DatabaseUrl, timeout_seconds: float) -> str:
    patience = {"connect_timeout": str(max(CONNECT_TIMEOUT_MIN_SECONDS, int(timeout_seconds))), "options": READ_ONLY}
    return conninfo(url.parameters | patience)


def is_writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK)


def unreachable(message: str) -> Refused:
    return Refused.because(
        FailureReason.DATABASE_UNREACHABLE,
        message,
        "check the URL in the Secret that ratings.secretRef names, and that the database accepts connections "
        "from this namespace",
    )


def _beginning(text: object) -> str:
    said = "" if text is None else str(text)
    return said if len(said) <= EXAMPLE_MAX_CHARACTERS else f"{said[:EXAMPLE_MAX_CHARACTERS]}\u2026"


def _number(value: object) -> int:
    """A count, which both drivers give as an integer."""
    if not isinstance(value, int):
        raise TypeError(f"the database counted {value!r}")
    return value
