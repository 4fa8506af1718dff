"""Query parameters that an operation does not have: without a misspelled filter, the answer would be of everything."""

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from finetune_operator.web.problems import Problem


async def refuse_unknown(request: Request) -> None:
    """Raises `Problem`, with the names that there are."""
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    known = frozenset(_names(route.dependant))
    for name in request.query_params:
        if name not in known:
            there_are = f"there are {', '.join(sorted(known))}" if known else "there is none"
            detail = f"query.{name}: {request.url.path} has no query parameter of this name; {there_are}"
            raise Problem(422, "unknown-query-parameter", detail, param=name)


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _names(dependency)
