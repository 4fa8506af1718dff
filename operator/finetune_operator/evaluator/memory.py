"""The most memory that an engine takes while a model is asked, by asking the engine now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from finetune_operator.contract.evaluation import EngineMemory
from finetune_operator.evaluator.engine import Engine

INTERVAL_SECONDS = 1.0


class Peak:
    """The most that was seen so far; None while nothing was."""

    def __init__(self) -> None:
        self.memory: EngineMemory | None = None

    def saw(self, found: EngineMemory | None) -> None:
        if found and (self.memory is None or found.size_bytes > self.memory.size_bytes):
            self.memory = found

    @asynccontextmanager
    async def watching(self, engine: Engine) -> AsyncIterator[None]:
        """Look while the block runs, and once at its end."""
        looking = asyncio.create_task(self._look(engine))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})
        if not looking.cancelled():
            # It ends by itself only where it fails.
            await looking
        self.saw(await engine.memory())

    async def _look(self, engine: Engine) -> None:
        while True:
            self.saw(await engine.memory())
            await asyncio.sleep(INTERVAL_SECONDS)
