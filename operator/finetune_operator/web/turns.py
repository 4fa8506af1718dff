"""Whose turn it is to read the ratings database: one at a time in each api, and few who wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from finetune_operator.web.problems import Problem

MAX_WAITING = 4


class Turns:
    """First come, first served; whoever comes when `max_waiting` wait already is told to come later."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._lock = asyncio.Lock()
        self._max_waiting = max_waiting
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises a 429 problem."""
        if self._lock.locked() and self.waiting >= self._max_waiting:
            detail = f"{self.waiting} requests for the ratings database wait already; try again after Retry-After"
            raise Problem(429, "ratings-busy", detail)
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._lock.release()
