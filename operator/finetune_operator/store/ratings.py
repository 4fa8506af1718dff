"""What can be asked of `ml_analysis_rating`, which may be another application's table, besides for its rows."""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import URL, ColumnElement, Engine, LargeBinary, String, and_, cast, func, inspect, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.types import TypeEngine

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.datasets import FilterCount, Refused
from finetune_operator.store.database import UnusableUrl, parse_url, read_only_engine, shown, without_secrets
from finetune_operator.store.tables import Rating

REQUIRED_COLUMNS = frozenset({"id", "prompt", "response", "rating"})
OPTIONAL_COLUMNS = frozenset({"philosopher", "domain", "task_type", "confidence"})
GROUPS_SHOWN = 100
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 5.0
MESSAGE_MAX_CHARACTERS = 500

Answer = TypeVar("Answer")


class LargestRow(NamedTuple):
    """The row with the most text."""

    id: str
    bytes: int


class Statistics(NamedTuple):
    """What the rows that all filters leave are like; lengths in characters."""

    rows: int
    by_domain: Mapping[str, int]
    by_task_type: Mapping[str, int]
    by_rating: Mapping[str, int]
    average_prompt_characters: float
    average_response_characters: float


class Filter(NamedTuple):
    """One condition, under the name by which the user set it."""

    name: str
    condition: ColumnElement[bool]


def filters_of(source: RatingsSource, *, all_ratings: bool) -> tuple[Filter, ...]:
    """The source's filters in a fixed order. A pair needs its bad answer too, so pairs are made of all ratings."""
    chosen = [
        Filter(f"{label}={value!r}", column == value)
        for label, column, value in (
            ("philosopher", Rating.philosopher, source.philosopher),
            ("domain", Rating.domain, source.domain),
            ("taskType", Rating.task_type, source.task_type),
        )
        if value is not None
    ]
    if source.min_confidence is not None:
        chosen.append(Filter(f"minConfidence={source.min_confidence}", Rating.confidence >= source.min_confidence))
    if not all_ratings:
        if source.gold_star_only:
            gold = and_(Rating.is_gold_star.is_(True), Rating.use_as_sample_response.is_(True))
            chosen.append(Filter("goldStarOnly (is_gold_star and use_as_sample_response)", gold))
        chosen.append(Filter(f"minRating={source.min_rating}", Rating.rating >= source.min_rating))
    return tuple(chosen)


@dataclass(frozen=True)
class RatingsDatabase:
    """An opened database; each query is tried again for `timeout_seconds` while the server can't be reached."""

    url: URL
    engine: Engine
    timeout_seconds: float
    columns: Mapping[str, TypeEngine[Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, url_text: str, timeout_seconds: float) -> "RatingsDatabase":
        """Connect and check the table. Raises `Refused` with what to change."""
        try:
            url = parse_url(url_text)
        except UnusableUrl as error:
            raise _unreachable(str(error)) from None
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
            raise _unreachable(f"there is no SQLite database {url.database}; is ratings.claimName set?")
        database = cls(url, read_only_engine(url, timeout_seconds), timeout_seconds)
        return replace(database, columns=database._read_columns())

    def close(self) -> None:
        self.engine.dispose()

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
                f"the table {Rating.__tablename__} lacks {', '.join(sorted(missing))}, which a filter names",
                "add them, or remove the filters of spec.dataset.ratings that need them",
            )
        if self.url.get_backend_name() == "postgresql":
            for name, value in named.items():
                if isinstance(value, str) and "\0" in value:
                    raise Refused.because(
                        FailureReason.DATASET_INVALID,
                        f"the filter {name} holds a NUL, which no text of PostgreSQL does",
                        f"correct {name} in spec.dataset.ratings",
                    )

    def largest_row(self) -> LargestRow:
        """By which a row that is too large to be read is named."""
        size = func.length(cast(Rating.prompt, LargeBinary)) + func.length(cast(Rating.response, LargeBinary))
        if self.url.get_backend_name() == "postgresql":
            size = func.octet_length(Rating.prompt) + func.octet_length(Rating.response)
        query = select(cast(Rating.id, String), size).order_by(size.desc()).limit(1)

        def fetch() -> LargestRow:
            with self.engine.connect() as connection:
                return LargestRow(*connection.execute(query).one())

        return self._patiently(fetch)

    def statistics(self, source: RatingsSource, *, all_ratings: bool) -> Statistics:
        """Counted by the database."""
        conditions = [filter_.condition for filter_ in filters_of(source, all_ratings=all_ratings)]

        def counts(column: str) -> dict[str, int]:
            if column not in self.columns:
                return {}
            named = getattr(Rating, column)
            query = select(named, func.count()).where(*conditions).group_by(named).order_by(named).limit(GROUPS_SHOWN)
            with self.engine.connect() as connection:
                return {"(none)" if name is None else str(name): count for name, count in connection.execute(query)}

        def averages() -> tuple[float, float]:
            query = select(func.avg(func.length(Rating.prompt)), func.avg(func.length(Rating.response)))
            with self.engine.connect() as connection:
                prompt, response = connection.execute(query.where(*conditions)).one()
                return round(float(prompt or 0), 1), round(float(response or 0), 1)

        return self._patiently(
            lambda: Statistics(
                self._count(conditions), counts("domain"), counts("task_type"), counts("rating"), *averages()
            )
        )

    def count_by_filter(self, source: RatingsSource, *, all_ratings: bool) -> tuple[FilterCount, ...]:
        """How many rows are left as each filter is added."""
        conditions: list[ColumnElement[bool]] = []
        counts = [FilterCount("the table", self._count(conditions))]
        for filter_ in filters_of(source, all_ratings=all_ratings):
            conditions.append(filter_.condition)
            counts.append(FilterCount(filter_.name, self._count(conditions)))
        return tuple(counts)

    def _count(self, conditions: Sequence[ColumnElement[bool]]) -> int:
        query = select(func.count()).select_from(Rating).where(*conditions)

        def fetch() -> int:
            with self.engine.connect() as connection:
                return connection.execute(query).scalar_one()

        return self._patiently(fetch)

    def _read_columns(self) -> Mapping[str, TypeEngine[Any]]:
        def fetch() -> Mapping[str, TypeEngine[Any]] | None:
            inspector = inspect(self.engine)
            if not inspector.has_table(Rating.__tablename__):
                return None
            return {column["name"]: column["type"] for column in inspector.get_columns(Rating.__tablename__)}

        present = self._patiently(fetch)
        if present is None:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the database {shown(self.url)} has no table {Rating.__tablename__}",
                "point ratings.secretRef at the database that has it, or create it (see the README)",
            )
        missing = REQUIRED_COLUMNS - present.keys()
        if missing:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the table {Rating.__tablename__} lacks the columns {', '.join(sorted(missing))}",
                "add them, or make a view of that name that has them",
            )
        return present

    def _patiently(self, fetch: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + self.timeout_seconds
        backoff_seconds = BACKOFF_FIRST_SECONDS
        while True:
            try:
                return fetch()
            except OperationalError as error:
                left = deadline - time.monotonic()
                if left <= 0 or not _may_pass(error):
                    raise _unreachable(f"{shown(self.url)}: {self._cause(error)}") from None
                time.sleep(min(backoff_seconds, left))
                backoff_seconds = min(BACKOFF_MAX_SECONDS, backoff_seconds * 2)
            except SQLAlchemyError as error:
                raise Refused.because(
                    FailureReason.DATASET_INVALID,
                    f"the database {shown(self.url)} refused the query: {self._cause(error)}",
                    f"compare the table {Rating.__tablename__} with the columns that the filters name",
                ) from None

    def _cause(self, error: SQLAlchemyError) -> str:
        """The driver's own words, without the statement and without secrets."""
        words = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        return without_secrets(" ".join(words.split()), self.url)[:MESSAGE_MAX_CHARACTERS]


def _may_pass(error: OperationalError) -> bool:
    """Whether waiting can help: SQLite's only passing state is a lock, a server may just be starting."""
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return True


def _unreachable(message: str) -> Refused:
    return Refused.because(
        FailureReason.DATABASE_UNREACHABLE,
        message,
        "check the URL in the Secret that ratings.secretRef names, and that the database accepts connections "
        "from this namespace",
    )
