"""Answers that take long to work out of many rows: kept until the rows change, and for a while longer if they are slow.

What is quick is always of this moment. What takes longer is told as it was when it was last worked out, and worked out
anew beside, so that the time that goes into it is a bounded share of one core however often it is asked for.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from finetune_operator.logs import cause, get_logger

Answer = TypeVar("Answer")

QUICK_SECONDS = 0.05
MANY_ROWS = 10_000
"""Of fewer, an answer is slow because the machine is, and told anew all the same."""
REST_FACTOR = 10.0
"""After an answer that took a second nothing is worked out anew for ten."""
MAX_ENTRIES = 64
PATIENCE_SECONDS = 0.1

logger = get_logger(__name__)


@dataclass
class _Kept:
    answer: Any
    rows: int
    took_seconds: float
    at: float

    @property
    def is_slow(self) -> bool:
        return self.rows >= MANY_ROWS and self.took_seconds > QUICK_SECONDS

    def is_good_for(self, rows: int | None, now: float) -> bool:
        return (rows is not None and self.rows == rows) or (
            self.is_slow and now < self.at + REST_FACTOR * self.took_seconds
        )


class Remembered:
    """Of one process; `rows` says of how many rows an answer is, which only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[Any]] = {}

    async def answer(
        self,
        key: Hashable,
        rows: int | None,
        work_out: Callable[[], Awaitable[Answer]],
        meanwhile: Callable[[], Awaitable[Answer]] | None = None,
    ) -> Answer:
        """What `work_out` says now, or said a short while ago; equal questions at the same time are one.

        `rows` are None where the answer is their number. What was never worked out of many rows is not waited for long
        where there is something to tell `meanwhile`.
        """
        kept = self._kept.get(key)
        if kept is not None and kept.is_good_for(rows, self._now()):
            answer: Answer = kept.answer
            return answer
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._worked_out(key, rows, work_out))
            running.add_done_callback(lambda task: self._done(key, task))
        if kept is not None and kept.is_slow:
            older: Answer = kept.answer
            return older
        if meanwhile is not None and rows is not None and rows >= MANY_ROWS:
            await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
            if not running.done():
                return await meanwhile()
        # Whoever leaves must not take the answer from those who wait for the same one.
        fresh: Answer = await asyncio.shield(running)
        return fresh

    async def _worked_out(self, key: Hashable, rows: int | None, work_out: Callable[[], Awaitable[Answer]]) -> Answer:
        begun = self._now()
        fresh = await work_out()
        ended = self._now()
        counted = fresh if rows is None else rows
        if not isinstance(counted, int):
            raise TypeError(f"{key} is no number of rows, and none is said")
        self._kept[key] = _Kept(fresh, counted, ended - begun, ended)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_ENTRIES:
            self._kept.popitem(last=False)
        return fresh

    def _done(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("statistics could not be worked out", error=cause(error))
