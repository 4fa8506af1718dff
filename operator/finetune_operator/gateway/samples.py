"""Tells the api how the arms of ABTests fare, beside the requests and never in their way."""

import asyncio
from collections import deque
from itertools import islice

import aiohttp

from finetune_operator.contract.experiments import SAMPLES_MAX_PER_BATCH, Sample, SampleBatch
from finetune_operator.contract.places import SAMPLES_PATH
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.logs import cause, get_logger

BUFFER_MAX_SAMPLES = 20_000
BATCH_INTERVAL_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 15.0
SEND_TIMEOUT_SECONDS = 10.0
LAST_SEND_TIMEOUT_SECONDS = 2.0

logger = get_logger(__name__)


class ApiAway(Exception):
    """The api can't take samples now; they are kept and sent again, which their request ids make harmless."""


class SampleSender:
    """A bounded buffer and one background task; what does not fit is dropped and counted."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        token: str,
        metrics: Metrics,
        *,
        buffer_max_samples: int = BUFFER_MAX_SAMPLES,
        interval_seconds: float = BATCH_INTERVAL_SECONDS,
    ) -> None:
        self._session = session
        self._url = api_url.rstrip("/") + SAMPLES_PATH
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._metrics = metrics
        self._buffer: deque[tuple[Sample, bool]] = deque()
        self._buffer_max_samples = buffer_max_samples
        self._interval_seconds = interval_seconds
        self._filled = asyncio.Event()

    def add(self, sample: Sample, *, shadow: bool = False) -> None:
        """Returns at once. A `shadow` is of a copy that nobody asked for."""
        if len(self._buffer) >= self._buffer_max_samples:
            self._metrics.samples.labels("dropped").inc()
            return
        self._buffer.append((sample, shadow))
        self._filled.set()

    async def run(self) -> None:
        """Send until cancelled, then once more what is left."""
        backoff_seconds = self._interval_seconds
        try:
            while True:
                await self._filled.wait()
                await asyncio.sleep(backoff_seconds)
                try:
                    await self._send_batch(SEND_TIMEOUT_SECONDS)
                    backoff_seconds = self._interval_seconds
                except ApiAway as error:
                    backoff_seconds = min(BACKOFF_MAX_SECONDS, backoff_seconds * 2)
                    logger.warning("samples kept", kept=len(self._buffer), error=str(error))
        except asyncio.CancelledError:
            await self._send_rest()
            raise

    async def _send_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_SEND_TIMEOUT_SECONDS):
                while self._buffer:
                    await self._send_batch(LAST_SEND_TIMEOUT_SECONDS)
        except (ApiAway, TimeoutError) as error:
            self._metrics.samples.labels("dropped").inc(len(self._buffer))
            logger.warning("samples dropped", dropped=len(self._buffer), error=str(error))

    async def _send_batch(self, timeout_seconds: float) -> None:
        oldest = tuple(islice(self._buffer, SAMPLES_MAX_PER_BATCH))
        if not oldest:
            return
        batch = SampleBatch(
            samples=tuple(sample for sample, shadow in oldest if not shadow),
            shadows=tuple(sample for sample, shadow in oldest if shadow),
        )
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        data = batch.model_dump_json(by_alias=True).encode()
        try:
            async with self._session.post(self._url, data=data, headers=self._headers, timeout=timeout) as response:
                status, text = response.status, (await response.text(errors="replace"))[:500]
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ApiAway(cause(error)) from error
        if status >= 500 or status == 429:
            raise ApiAway(f"status {status}: {text}")
        for _ in oldest:
            self._buffer.popleft()
        if not self._buffer:
            self._filled.clear()
        self._metrics.samples.labels("sent" if status < 400 else "refused").inc(len(oldest))
        if status >= 400:
            logger.error("samples refused", refused=len(oldest), status=status, answer=text)
