"""How many requests may read all objects of a kind at a time: each holds some of them and turns the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from finetune_operator.resources.common import GROUP
from finetune_operator.web.problems import Problem

Object = dict[str, Any]
MAX_LISTS = 4
WAIT_SECONDS = 5.0


class Lists:
    """A few go on at once, the others wait for a moment."""

    def __init__(self, max_lists: int = MAX_LISTS) -> None:
        self._room = asyncio.Semaphore(max_lists)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises a 503 problem where there is no room for too long."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            detail = "too many requests of this kind go on at once; try again after Retry-After"
            raise Problem(503, "too-many-lists", detail) from None
        try:
            yield
        finally:
            self._room.release()


def slim(body: Object) -> Object:
    """Without what no answer shows: who wrote which field, and annotations that are not the operator's or the api's."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {name: value for name, value in annotations.items() if GROUP in name}
    return body | {"metadata": metadata}
