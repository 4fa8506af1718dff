"""Cursors of lists that are rows of the database or files of a volume: a page's last row, as an opaque text."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, NamedTuple, TypeVar

from fastapi import Query

from finetune_operator.store.keyset import Mark
from finetune_operator.store.vote_statistics import VoterMark
from finetune_operator.web.pages import CURSOR_PREFIX, WRONG_CURSOR, WrongCursor, cursor_of, text_of
from finetune_operator.web.problems import Problem

MAX_LENGTH = 1024
MAX_VOTES = 2**31 - 1
Row = TypeVar("Row")
MarkAfter = Annotated[
    str | None,
    Query(max_length=MAX_LENGTH, pattern=rf"^{CURSOR_PREFIX}[-_A-Za-z0-9]+$", description="`next` of the page before"),
]


class Marked(NamedTuple, Generic[Row]):
    """One page; `next` is the cursor of the next one, where there is one."""

    rows: tuple[Row, ...]
    next: str | None

    @property
    def has_more(self) -> bool:
        return self.next is not None


def mark_of(after: str | None) -> Mark | None:
    """Raises 422 for what is no place."""
    if after is None:
        return None
    try:
        moment, identity = _parts(after)
        time = datetime.fromisoformat(moment)
        if time.tzinfo is None:
            raise WrongCursor(WRONG_CURSOR)
        return Mark(time.astimezone(UTC), identity)
    except (ValueError, OverflowError):
        raise _wrong() from None


def voter_mark_of(after: str | None) -> VoterMark | None:
    """Raises 422 for what is no place."""
    if after is None:
        return None
    try:
        votes, evaluator = _parts(after)
        if not 0 <= int(votes) <= MAX_VOTES:
            raise WrongCursor(WRONG_CURSOR)
        return VoterMark(int(votes), evaluator)
    except ValueError:
        raise _wrong() from None


def marked(found: Sequence[Row], limit: int, mark: Callable[[Row], Mark | VoterMark]) -> Marked[Row]:
    """Of more than `limit` rows where there is another page."""
    shown = tuple(found[:limit])
    return Marked(shown, _cursor(mark(shown[-1])) if len(found) > limit else None)


def _cursor(mark: Mark | VoterMark) -> str:
    first, second = mark
    return cursor_of(f"{first.isoformat() if isinstance(first, datetime) else first} {second}")


def _parts(after: str) -> tuple[str, str]:
    """Raises `WrongCursor`."""
    first, _, second = text_of(after).partition(" ")
    if not second or "\0" in second:
        # No database takes it in a text.
        raise WrongCursor(WRONG_CURSOR)
    return first, second


def _wrong() -> Problem:
    return Problem(422, "wrong-cursor", WRONG_CURSOR)
