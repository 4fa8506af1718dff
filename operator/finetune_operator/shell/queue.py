"""A work queue as in client-go: keys are unique, one key is never worked on twice at once, failures back off."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 60.0


class WorkQueue(Generic[K]):
    """`handle` returns the seconds until the key should come again, or None; when it raises, the key backs off."""

    def __init__(
        self, on_error: Callable[[K, Exception, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._on_error = on_error
        self._clock = clock
        self._unfinished_since: float | None = None
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """As soon as possible; a key that is being worked on comes again afterwards."""
        if self._unfinished_since is None:
            self._unfinished_since = self._clock()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Later; a nearer time that is already set stays."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer and not timer.cancelled():
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def unfinished_seconds(self) -> float:
        """How long there has been something to do of which nothing has come to an end, well or badly."""
        return 0.0 if self._unfinished_since is None else self._clock() - self._unfinished_since

    async def run(self, handle: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(handle))

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self, handle: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                again_after = await handle(key)
            except Exception as error:  # noqa: BLE001 - the boundary of all reconciles: reported, then tried again
                again_after = self._backoff(key)
                self._on_error(key, error, again_after)
            else:
                self._failures.pop(key, None)
            finally:
                self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                if key not in self._failures:
                    self.add(key)
            if again_after is not None:
                self.add_after(key, again_after)
            self._unfinished_since = self._clock() if self._queued or self._busy else None

    def _backoff(self, key: K) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(failures - 1, 16))
        return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
