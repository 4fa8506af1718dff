"""How many answers may go on for long, and how long: each holds a connection to the API server."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from finetune_operator.logs import get_logger
from finetune_operator.web.problems import Problem

MAX_STREAMS = 256
MAX_STREAMS_OF_ONE = 16
SEND_SECONDS = 30.0
LIFE_SECONDS = 3600.0
"""Then the stream ends, and the client comes again with its Last-Event-ID, perhaps to another replica."""
EVENT_STREAM = "text/event-stream"
UNBUFFERED = {"X-Accel-Buffering": "no"}
Item = TypeVar("Item")

logger = get_logger(__name__)


class Streams:
    """Counts what is open, of all and of each caller that is known by name; and ends them all with the process."""

    def __init__(self, max_streams: int = MAX_STREAMS, max_of_one: int = MAX_STREAMS_OF_ONE) -> None:
        self._max_streams = max_streams
        self._max_of_one = max_of_one
        self.open = 0
        self._of: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def require_room(self, caller: str | None) -> None:
        """Raises a 503 or 429 problem, before there is an answer that could not say it any more.

        `caller` is None for who shares the api's token, or has none.
        """
        if self._stopping.is_set():
            raise Problem(503, "stopping", "this api is being stopped; try again")
        if self.open >= self._max_streams:
            detail = f"{self.open} clients follow trainings already; try again after Retry-After, or ask now and then"
            raise Problem(503, "too-many-streams", detail)
        if caller is not None and self._of[caller] >= self._max_of_one:
            detail = f"you follow {self._of[caller]} trainings already; close a stream, or ask now and then"
            raise Problem(429, "too-many-streams", detail)

    @contextmanager
    def one(self, caller: str | None) -> Iterator[None]:
        self.open += 1
        self._of.update([caller] if caller is not None else [])
        try:
            yield
        finally:
            self.open -= 1
            if caller is not None:
                self._of[caller] -= 1
                self._of += Counter()

    def stop(self) -> None:
        """End all of them now; their clients come again, to another process."""
        self._stopping.set()

    async def bounded(self, texts: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """What comes until the process stops, or the stream has lived long enough."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LIFE_SECONDS
        stopping = asyncio.create_task(self._stopping.wait())
        coming: asyncio.Task[str | None] | None = None
        async with aclosing(texts):
            try:
                while not stopping.done() and (left := until - loop.time()) > 0:
                    coming = asyncio.create_task(next_or_none(texts))
                    await asyncio.wait({coming, stopping}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done() or (text := coming.result()) is None:
                        return
                    yield text
            finally:
                await _cancelled(*filter(None, (coming, stopping)))


class EventStream(StreamingResponse):
    """Server-sent events, counted as one stream; a client that takes nothing for too long is left alone."""

    def __init__(self, texts: AsyncGenerator[str, None], streams: Streams, caller: str | None) -> None:
        self._texts = streams.bounded(texts)
        super().__init__(self._texts, media_type=EVENT_STREAM, headers=UNBUFFERED)
        self._streams = streams
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.one(self._caller):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async def timely(message: Message) -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise _SlowClient from None

        try:
            async with aclosing(self._texts):
                await super().stream_response(timely)
        except _SlowClient:
            # The answer has no end then, which is what makes the server close the connection.
            logger.info("a client of a stream took nothing", seconds=SEND_SECONDS)


class _SlowClient(Exception):
    """It does not read."""


async def next_or_none(items: AsyncGenerator[Item, None]) -> Item | None:
    """As a coroutine, so that a task can wait for it; None at the end."""
    return await anext(items, None)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
