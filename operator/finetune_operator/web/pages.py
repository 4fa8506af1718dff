"""Pages of a list that is the newest first; a page begins after a place in that order, whatever is there by now.

Pure. A cursor says the place itself; a plain id, as OpenAI's clients send it, stands for where that object is.
"""

import base64
import heapq
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import AwareDatetime, BeforeValidator

from finetune_operator.web.ids import ID_PATTERN, ObjectId

Object = dict[str, Any]
Item = TypeVar("Item")
CURSOR_PREFIX = "_"
"""No id begins with it."""
WRONG_CURSOR = "after: this is no `next` of a page; begin with the first page"
AFTER_MAX_LENGTH = 512
AFTER_PATTERN = rf"{ID_PATTERN}|^{CURSOR_PREFIX}[-_A-Za-z0-9]+$"


def _written(value: object) -> object:
    """pydantic would take a number for the seconds since 1970, which the document promises to nobody."""
    if isinstance(value, str) and _is_number(value):
        raise ValueError("write it as RFC 3339 has it, such as 2026-11-22T12:00:00Z")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


Time = Annotated[AwareDatetime, BeforeValidator(_written)]
"""A moment with its zone, by which a list begins."""


class WrongCursor(ValueError):
    """It is no place in a list; the text says what to do."""


class Place(NamedTuple):
    """Where something is in the order of all lists."""

    created: str
    identity: ObjectId

    def __str__(self) -> str:
        """As a cursor."""
        return cursor_of(f"{self.created} {self.identity}")


class Page(NamedTuple, Generic[Item]):
    """Some of what was chosen; `total` counts all of that, `next` is the cursor of the next page."""

    items: tuple[Item, ...]
    total: int
    has_more: bool
    next: str | None = None


def id_of(body: Object) -> ObjectId:
    """Of an object of the API server."""
    return ObjectId(body["metadata"]["namespace"], body["metadata"]["name"])


def place_of(body: Object) -> Place:
    return Place(body["metadata"].get("creationTimestamp") or "", id_of(body))


def is_cursor(after: str) -> bool:
    return after.startswith(CURSOR_PREFIX)


def cursor_of(text: str) -> str:
    """Which says a place to us alone."""
    return CURSOR_PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def text_of(after: str) -> str:
    """Of a cursor. Raises `WrongCursor`."""
    text = after.removeprefix(CURSOR_PREFIX)
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        raise WrongCursor(WRONG_CURSOR) from None


def parse_cursor(after: str) -> Place:
    """Raises `WrongCursor`."""
    created, _, identity = text_of(after).partition(" ")
    namespace, _, name = identity.partition(".")
    if not (namespace and name):
        raise WrongCursor(WRONG_CURSOR)
    return Place(created, ObjectId(namespace, name))


class Pager:
    """One page out of objects that come in any order; of all the others nothing is kept."""

    def __init__(self, limit: int, after: Place | None, chosen: Callable[[Object], bool]) -> None:
        self._limit = limit
        self._after = after
        self._chosen = chosen
        self._total = 0
        self._kept: list[tuple[Place, Object]] = []

    def add(self, bodies: Iterable[Object]) -> None:
        found = [(place_of(body), body) for body in bodies if self._chosen(body)]
        self._total += len(found)
        rest = [entry for entry in found if self._after is None or entry[0] < self._after]
        # One more than the page has says whether there is another one.
        self._kept = heapq.nlargest(self._limit + 1, self._kept + rest, key=lambda entry: entry[0])

    def page(self) -> Page[Object]:
        shown, has_more = self._kept[: self._limit], len(self._kept) > self._limit
        items = tuple(body for _, body in shown)
        return Page(items, self._total, has_more, str(shown[-1][0]) if has_more else None)
