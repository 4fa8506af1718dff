"""Reading `ml_analysis_rating`, which may be another application's table: pages of rows, and what filters leave."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from sqlalchemy import URL, ColumnElement, Engine, Row, and_, func, inspect, or_, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.datasets import FilterCount, Refused
from finetune_operator.store.database import UnusableUrl, parse_url, read_only_engine, shown, without_secrets
from finetune_operator.store.tables import Rating

PAGE_ROWS = 5_000
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 5.0
MESSAGE_MAX_CHARACTERS = 500

Answer = TypeVar("Answer")


class RatedRow(NamedTuple):
    """What training needs of a rating."""

    prompt: str
    response: str
    rating: int


class Filter(NamedTuple):
    """One condition, under the name by which the user set it."""

    name: str
    condition: ColumnElement[bool]


def filters_of(source: RatingsSource, method: str) -> tuple[Filter, ...]:
    """The source's filters in a fixed order. A pair needs its bad answer too, so DPO takes all ratings."""
    chosen = [
        Filter(f"{label}={value!r}", column == value)
        for label, column, value in (
            ("philosopher", Rating.philosopher, source.philosopher),
            ("domain", Rating.domain, source.domain),
            ("taskType", Rating.task_type, source.task_type),
        )
        if value is not None
    ]
    if method == "SFT":
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
        database._require_columns()
        return database

    def close(self) -> None:
        self.engine.dispose()

    def rows(self, source: RatingsSource, method: str) -> Iterator[RatedRow]:
        """The newest rows first, in pages by id, so that memory stays bounded and a lost connection costs one page."""
        conditions = [filter_.condition for filter_ in filters_of(source, method)]
        left = source.limit
        before: int | None = None
        while left is None or left > 0:
            size = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
            page = self._page(conditions, before, size)
            for _, prompt, response, rating in page:
                yield RatedRow(_text(prompt), _text(response), int(rating or 0))
            if len(page) < size:
                return
            before = page[-1][0]
            left = None if left is None else left - len(page)

    def low_rated(self, source: RatingsSource, method: str) -> int:
        """Rows that every filter but the rating leaves."""
        if method != "SFT":
            return 0
        *others, _ = filters_of(source, method)
        low = or_(Rating.rating.is_(None), Rating.rating < source.min_rating)
        return self._count([*(filter_.condition for filter_ in others), low])

    def count_by_filter(self, source: RatingsSource, method: str) -> tuple[FilterCount, ...]:
        """How many rows are left as each filter is added."""
        conditions: list[ColumnElement[bool]] = []
        counts = [FilterCount("the table", self._count(conditions))]
        for filter_ in filters_of(source, method):
            conditions.append(filter_.condition)
            counts.append(FilterCount(filter_.name, self._count(conditions)))
        return tuple(counts)

    def _page(
        self, conditions: Sequence[ColumnElement[bool]], before: int | None, size: int
    ) -> Sequence[Row[int, str, str, int]]:
        query = select(Rating.id, Rating.prompt, Rating.response, Rating.rating).where(*conditions)
        if before is not None:
            query = query.where(Rating.id < before)
        query = query.order_by(Rating.id.desc()).limit(size)

        def fetch() -> Sequence[Row[int, str, str, int]]:
            with self.engine.connect() as connection:
                return connection.execute(query).all()

        return self._patiently(fetch)

    def _count(self, conditions: Sequence[ColumnElement[bool]]) -> int:
        query = select(func.count()).select_from(Rating).where(*conditions)

        def fetch() -> int:
            with self.engine.connect() as connection:
                return connection.execute(query).scalar_one()

        return self._patiently(fetch)

    def _require_columns(self) -> None:
        def fetch() -> set[str] | None:
            inspector = inspect(self.engine)
            if not inspector.has_table(Rating.__tablename__):
                return None
            return {column["name"] for column in inspector.get_columns(Rating.__tablename__)}

        present = self._patiently(fetch)
        if present is None:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the database {shown(self.url)} has no table {Rating.__tablename__}",
                "point ratings.secretRef at the database that has it, or create it (see the README)",
            )
        missing = {"id", "prompt", "response", "rating"} - present
        if missing:
            raise Refused.because(
                FailureReason.DATASET_INVALID,
                f"the table {Rating.__tablename__} lacks the columns {', '.join(sorted(missing))}",
                "add them, or make a view of that name that has them",
            )

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


def _text(value: object) -> str:
    """SQLite columns may hold anything; what is not text counts as empty and falls to the quality rules."""
    return value if isinstance(value, str) else ""
