"""Query parameters that an operation does not have: without a misspelled filter, the answer would be of everything."""

from collections.abc import Iterator, Mapping

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from finetune_operator.web.auth import CallerOf
from finetune_operator.web.problems import Problem

DEEP_OBJECTS: Mapping[str, str] = {"/v1/fine_tuning/jobs": "metadata"}
"""Filters that OpenAI's clients write as `metadata[<key>]`, which FastAPI has no parameter for."""


async def refuse_unknown(request: Request, _: CallerOf) -> None:
    """Raises `Problem`, with the names that there are; who is nobody is told that first."""
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    known, deep = frozenset(_names(route.dependant)), DEEP_OBJECTS.get(request.url.path)
    for name in request.query_params:
        if name in known or (deep and name.startswith(f"{deep}[") and name.endswith("]")):
            continue
        there_are = sorted(known | ({f"{deep}[<key>]"} if deep else frozenset()))
        told = f"there are {', '.join(there_are)}" if there_are else "there is none"
        detail = f"query.{name}: {request.url.path} has no query parameter of this name; {told}"
        raise Problem(422, "unknown-query-parameter", detail, param=name)


def _names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _names(dependency)
