"""Parts of a page that a caller may not see: the rest of it is shown all the same, with why a part is missing."""

from collections.abc import Awaitable
from typing import Generic, NamedTuple, TypeVar

from finetune_operator.web.problems import FORBIDDEN, Problem
from finetune_operator.web.refusals import to_people

CONFLICT = 409
"""Something is not configured, such as a ratings database."""

Value = TypeVar("Value")


class Part(NamedTuple, Generic[Value]):
    """A value, or why there is none."""

    value: Value | None
    refusal: str | None = None


async def part(asked: Awaitable[Value]) -> Part[Value]:
    """Raises all problems but refusals and what is not configured."""
    try:
        return Part(await asked)
    except Problem as problem:
        if problem.status not in (FORBIDDEN, CONFLICT):
            raise
        return Part(None, to_people(problem.detail))


async def told(asked: Awaitable[Value]) -> Part[Value]:
    """As `part`, with any problem: where a page waits for nothing else."""
    try:
        return Part(await asked)
    except Problem as problem:
        return Part(None, to_people(problem.detail))
