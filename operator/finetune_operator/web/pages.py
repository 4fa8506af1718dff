"""Pages of a list that is the newest first; the cursor is the last id of the page before, as OpenAI's clients send it.

Pure. The cursor is looked up among all, chosen or not: what it names may have changed since.
"""

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from finetune_operator.web.ids import ObjectId

Object = dict[str, Any]
Item = TypeVar("Item")


class WrongCursor(ValueError):
    """It names nothing that is there; the text says what to do."""


class Page(NamedTuple, Generic[Item]):
    """Some of what was chosen; `total` counts all of that."""

    items: tuple[Item, ...]
    total: int
    has_more: bool


def id_of(body: Object) -> ObjectId:
    """Of an object of the API server."""
    return ObjectId(body["metadata"]["namespace"], body["metadata"]["name"])


def page_of(
    bodies: Iterable[Object], limit: int, after: ObjectId | None, chosen: Callable[[Object], bool]
) -> Page[Object]:
    """Raises `WrongCursor`."""
    ordered = sorted(bodies, key=lambda body: (body["metadata"].get("creationTimestamp") or "", id_of(body)))
    ordered.reverse()
    total = sum(map(chosen, ordered))
    if after is not None:
        position = next((number for number, body in enumerate(ordered) if id_of(body) == after), None)
        if position is None:
            raise WrongCursor(f"after: {after} is not there any more; begin with the first page")
        ordered = ordered[position + 1 :]
    rest = [body for body in ordered if chosen(body)]
    return Page(tuple(rest[:limit]), total, len(rest) > limit)
