"""What the gateway tells the api, beside the requests and never in their way.

Each kind of report has a bounded buffer and one background task; what does not fit is dropped and counted. A report may
be sent twice, which its ids make harmless.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
from prometheus_client import Counter

from finetune_operator.logs import cause, get_logger

BATCH_INTERVAL_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 15.0
SEND_TIMEOUT_SECONDS = 10.0
LAST_SEND_TIMEOUT_SECONDS = 2.0

Item = TypeVar("Item")

logger = get_logger(__name__)


class ApiAway(Exception):
    """The api can't take it now; it is kept and sent again."""


@dataclass(frozen=True)
class Letter:
    """One request to the api, which tells the first `count` of what waits."""

    method: str
    path: str
    body: bytes
    count: int


class Outbox(ABC, Generic[Item]):
    """Items wait here until the api has them; `outcomes` counts what became of each."""

    what: str
    """Their name in the log."""
    room: int
    """Most that may wait, by `weight`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        token: str,
        outcomes: Counter,
        *,
        interval_seconds: float = BATCH_INTERVAL_SECONDS,
    ) -> None:
        self._session = session
        self._api_url = api_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._outcomes = outcomes
        self._interval_seconds = interval_seconds
        self._buffer: deque[Item] = deque()
        self._waiting = 0
        self._filled = asyncio.Event()

    @abstractmethod
    def letter(self, items: deque[Item]) -> Letter:
        """What tells the oldest of these, which are some."""

    def weight(self, _item: Item) -> int:
        """What one takes of the room."""
        return 1

    def put(self, item: Item) -> bool:
        """Whether there was room for it. Returns at once."""
        weight = self.weight(item)
        if self._waiting + weight > self.room:
            self._outcomes.labels("dropped").inc()
            return False
        self._buffer.append(item)
        self._waiting += weight
        self._filled.set()
        return True

    async def run(self) -> None:
        """Send until cancelled, then once more what is left."""
        backoff_seconds = self._interval_seconds
        try:
            while True:
                await self._filled.wait()
                await asyncio.sleep(backoff_seconds)
                try:
                    while self._buffer:
                        await self._send(SEND_TIMEOUT_SECONDS)
                    backoff_seconds = self._interval_seconds
                except ApiAway as error:
                    backoff_seconds = min(BACKOFF_MAX_SECONDS, backoff_seconds * 2)
                    logger.warning(f"{self.what} kept", kept=len(self._buffer), error=str(error))
        except asyncio.CancelledError:
            await self._send_rest()
            raise

    async def _send_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_SEND_TIMEOUT_SECONDS):
                while self._buffer:
                    await self._send(LAST_SEND_TIMEOUT_SECONDS)
        except (ApiAway, TimeoutError) as error:
            self._outcomes.labels("dropped").inc(len(self._buffer))
            logger.warning(f"{self.what} dropped", dropped=len(self._buffer), error=str(error))

    async def _send(self, timeout_seconds: float) -> None:
        if not self._buffer:
            return
        letter = self.letter(self._buffer)
        url, timeout = self._api_url + letter.path, aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.request(
                letter.method, url, data=letter.body, headers=self._headers, timeout=timeout
            ) as response:
                status, text = response.status, (await response.text(errors="replace"))[:500]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiAway(cause(error)) from error
        if status >= 500 or status == 429:
            raise ApiAway(f"status {status}: {text}")
        for _ in range(letter.count):
            self._waiting -= self.weight(self._buffer.popleft())
        if not self._buffer:
            self._filled.clear()
        self._outcomes.labels("sent" if status < 400 else "refused").inc(letter.count)
        if status >= 400:
            logger.error(f"{self.what} refused", refused=letter.count, status=status, answer=text)
