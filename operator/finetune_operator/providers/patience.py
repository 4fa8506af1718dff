"""How long to go on asking somebody who does not answer."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from finetune_operator.logs import get_logger
from finetune_operator.providers.fine_tuning_client import Unanswered

T = TypeVar("T")

logger = get_logger(__name__)


@dataclass(frozen=True)
class Patience:
    """Pauses double from the first to the longest, with jitter; a provider that names a pause gets it."""

    seconds: float = inf
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer of `ask`, called again while it is `Unanswered`; its last complaint, once it is enough."""
        deadline = time.monotonic() + self.seconds
        pause = self.first_pause_seconds
        while True:
            try:
                return await ask()
            except Unanswered as error:
                named = error.retry_after_seconds or 0.0
                # Spread, so that many pods do not come back at one moment.
                wait = max(named, pause * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
                if time.monotonic() + wait > deadline:
                    raise
                logger.warning("trying again soon", error=str(error), seconds=round(wait, 1))
                await asyncio.sleep(wait)
                pause = min(self.longest_pause_seconds, pause * 2)
