"""Whom a request asks. Until an answer has begun, the routes may come to say something else."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from finetune_operator.core.routing import Target
from finetune_operator.gateway.bodies import RequestBody
from finetune_operator.gateway.follow import RouteKeeper


class Aim:
    """At one engine, whatever happens."""

    def __init__(self, target: Target, body: RequestBody) -> None:
        self.target = target
        self._body = body

    @property
    def request(self) -> bytes:
        """What the engine is sent."""
        return self._body.with_model(self.target.served_name)

    async def pause(self, seconds: float) -> None:
        """Between two attempts."""
        await asyncio.sleep(seconds)


class FollowingAim(Aim):
    """`choose` tells whom the newest routes name, or None where that is nobody."""

    def __init__(
        self, target: Target, body: RequestBody, keeper: RouteKeeper, choose: Callable[[], Target | None]
    ) -> None:
        super().__init__(target, body)
        self._keeper = keeper
        self._choose = choose

    async def pause(self, seconds: float) -> None:
        """No longer than until the routes name another target, which is the aim from then on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (target := self._choose() or self.target) == self.target:
                    await self._keeper.swapped()
                self.target = target
