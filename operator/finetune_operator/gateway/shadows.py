"""Copies of requests for the candidate of an ABTest, sent once their clients have their whole answers.

No client sees what the candidate answers: it is read to its end, as a client would, and told to the api as a sample,
and as a pair with the baseline's answer where people are to judge it.
Copies give way to everything else: what does not fit is dropped and counted, and none outlives the process.
"""

import asyncio
import time
from collections.abc import Callable

from finetune_operator.contract.experiments import Sample
from finetune_operator.core.chat_texts import StreamedText
from finetune_operator.core.routing import Answerer, Target
from finetune_operator.gateway.aim import Aim
from finetune_operator.gateway.bodies import RequestBody
from finetune_operator.gateway.choice import Choice
from finetune_operator.gateway.errors import GatewayError, unavailable_model
from finetune_operator.gateway.exchange import Exchange
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.pairs import Pairs
from finetune_operator.gateway.upstream import Upstream
from finetune_operator.logs import get_logger
from finetune_operator.resources.abtest import Arm

logger = get_logger(__name__)


class Shadows:
    """At most `at_once_max` copies are under way; `record` takes what became of each, `pairs` what both answered."""

    def __init__(
        self, upstream: Upstream, record: Callable[[Sample], None], pairs: Pairs, metrics: Metrics, at_once_max: int
    ) -> None:
        self._upstream = upstream
        self._record = record
        self._pairs = pairs
        self._metrics = metrics
        self._at_once_max = at_once_max
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, original: Exchange) -> None:
        """Returns at once."""
        candidate, choice, body = original.shadow, original.choice, original.body
        if candidate is None or choice is None or body is None:
            return
        if len(self._under_way) >= self._at_once_max:
            self._metrics.shadows.labels("dropped").inc()
            self._pairs.drop(original)
            return
        exchange = Exchange(
            path=original.path,
            request_id=f"{original.request_id}-shadow",
            asked=original.asked,
            choice=Choice(candidate, Arm.CANDIDATE, choice.test_uid),
            streamed=StreamedText() if original.streamed is not None else None,
        )
        task = asyncio.create_task(self._ask(candidate, body, exchange, original), name=exchange.request_id)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Drop what is under way."""
        self._metrics.shadows.labels("dropped").inc(len(self._under_way))
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._metrics.shadows.labels("failed").inc()
            # Its type alone: pydantic's words have the input in them, which is what users wrote.
            logger.error("shadow failed", request_id=task.get_name(), error=type(error).__name__)

    async def _ask(self, candidate: Answerer, body: RequestBody, exchange: Exchange, original: Exchange) -> None:
        try:
            if not isinstance(candidate, Target):
                raise unavailable_model(candidate, as_arm=True)
            await self._upstream.copy(Aim(candidate, body), exchange)
        except GatewayError as error:
            exchange.status, exchange.error = error.status, error.message
        seconds = time.monotonic() - exchange.started
        self._metrics.shadows.labels("answered" if exchange.status < 400 else "failed").inc()
        logger.info(
            "shadow",
            served_name=candidate.served_name,
            status=exchange.status,
            duration_ms=round(seconds * 1000, 1),
            attempts=exchange.attempts,
            request_id=exchange.request_id,
            error=exchange.error,
        )
        if sample := exchange.sample(seconds):
            self._record(sample)
        self._pairs.keep(original, exchange)
