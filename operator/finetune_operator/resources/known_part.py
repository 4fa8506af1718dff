"""A resource as far as this release understands it: another one, or a person, may have written what it does not know.

For whoever shows resources. What acts on one parses it whole, and leaves alone what it does not understand.
"""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from finetune_operator.resources.common import Resource

R = TypeVar("R", bound=Resource)
NEEDED = frozenset({(), ("metadata",), ("spec",)})
"""Places without which there is no resource."""


def known_part(kind: type[R], body: Mapping[str, Any]) -> tuple[R, tuple[str, ...]]:
    """With the places of what can't be read and was left out, as `status.history.0`: each the smallest that can be.

    Raises `ValidationError` where something can't be read that a resource must have.
    """
    left_out: list[str] = []
    while True:
        try:
            return kind.parse(body), tuple(left_out)
        except ValidationError as error:
            places = {_existing(body, mistake["loc"]) for mistake in error.errors(include_url=False)}
            if places & NEEDED:
                raise
            if not left_out:
                body = copy.deepcopy(dict(body))
            # The last one of a list first, so that the others keep their places.
            for place in sorted(places, key=lambda place: tuple(map(_order, place)), reverse=True):
                left_out.append(".".join(map(str, place)))
                _remove(body, place)


def _existing(body: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a mistake's place that is in the body: what is missing, and pydantic's own steps, are not."""
    found: list[int | str] = []
    for step in place:
        inside = step in body if isinstance(body, Mapping) else isinstance(body, list) and isinstance(step, int)
        if not inside:
            break
        body = body[step]
        found.append(step)
    return tuple(found)


def _order(step: int | str) -> tuple[int, str]:
    return (step, "") if isinstance(step, int) else (0, step)


def _remove(body: Any, place: tuple[int | str, ...]) -> None:
    *parents, last = place
    for step in parents:
        body = body[step]
    del body[last]
