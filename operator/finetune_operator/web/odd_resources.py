"""What the api shows of resources that a newer operator, or a person, wrote: one of them never breaks an answer."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune_operator.logs import cause, get_logger
from finetune_operator.resources.common import Resource
from finetune_operator.resources.known_part import known_part

R = TypeVar("R", bound=Resource)
Shown = TypeVar("Shown")
Object = dict[str, Any]
REMEMBERED_MAX = 1024
"""Resources whose oddity is not logged again."""

logger = get_logger(__name__)


def parsed(kind: type[R], body: Object) -> R:
    """To be shown, not acted on: without what this release does not understand, which is logged once.

    Raises `ValidationError` where something is missing that every resource of the kind has.
    """
    resource, left_out = known_part(kind, body)
    if left_out:
        metadata = resource.metadata
        _log(kind.__name__, metadata.namespace, metadata.name, metadata.uid, left_out)
    return resource


def each_shown(show: Callable[[Object], Shown], bodies: Iterable[Object]) -> tuple[Shown, ...]:
    """Of a list; one of which not even what every resource has can be read is left out, and logged once."""
    found = []
    for body in bodies:
        try:
            found.append(show(body))
        except ValidationError as error:
            metadata = body["metadata"]
            what = (cause(error),)
            _log(body.get("kind", ""), metadata["namespace"], metadata["name"], metadata["uid"], what)
    return tuple(found)


@lru_cache(REMEMBERED_MAX)
def _log(kind: str, namespace: str, name: str, uid: str, left_out: tuple[str, ...]) -> None:
    """Once for each state of each resource: lists are read again and again."""
    logger.warning(
        "not shown, since this release does not understand it",
        kind=kind,
        namespace=namespace,
        name=name,
        uid=uid,
        what=left_out,
    )
