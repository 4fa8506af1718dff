"""Waiting for what must become true: a deadline, and a failure that says what was seen last."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import pytest

from finetune_operator.kube.errors import NotFound, Unavailable

T = TypeVar("T")

INTERVAL_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
"""Where nothing is said of how soon: other tests may have the cores, and Kubernetes may collect garbage later."""


@overload
async def eventually(check: Callable[[], Awaitable[T]], timeout_seconds: float = PATIENCE_SECONDS) -> T: ...


@overload
async def eventually(check: Callable[[], T], timeout_seconds: float = PATIENCE_SECONDS) -> T: ...


async def eventually(check: Callable[[], Any], timeout_seconds: float = PATIENCE_SECONDS) -> Any:
    """The first truthy answer of `check`, which may also assert; its last complaint is the failure at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            answer = check()
            value = await answer if inspect.isawaitable(answer) else answer
            if value:
                return value
            seen = f"it was {value!r}"
        except (AssertionError, NotFound, Unavailable) as error:
            seen = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_seconds:g} s: {_source(check)}\nlast seen: {seen}")
        await asyncio.sleep(INTERVAL_SECONDS)


async def throughout(check: Callable[[], Awaitable[None] | None], seconds: float) -> None:
    """`check` asserts again and again that something stays as it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = check()
        if inspect.isawaitable(answer):
            await answer
        await asyncio.sleep(INTERVAL_SECONDS)


def _source(check: Callable[..., object]) -> str:
    try:
        return " ".join(inspect.getsource(check).split())
    except (OSError, TypeError):
        return repr(check)
