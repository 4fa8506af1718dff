"""What one client may ask for: requests and tokens a minute, and requests at once. Each gateway pod counts for itself.

A client is who shows one token or, where the gateway is open, who comes from one address; and whom the api names, who
asks through it. Rates are token buckets: a
client that was quiet may ask for a minute's worth at once. Tokens are known only when an answer has ended, so that they
are taken then, into debt if need be, and who is in debt waits. What is no completion (the list of models, changes of
them) has an allowance of requests of its own.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from finetune_operator.gateway.errors import GatewayError, too_many

SECONDS_PER_MINUTE = 60.0
ROUNDING = 1e-6
CLIENTS_MAX = 10_000
"""Then those are forgotten that have asked for nothing for a while; addresses are many."""


@dataclass(frozen=True)
class Limits:
    """Of each client; 0 is none."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0

    @property
    def any(self) -> bool:
        return bool(self.requests_per_minute or self.tokens_per_minute or self.concurrent_requests)


NO_LIMITS = Limits()


class Limiter:
    """Counts; every `enter` that does not raise is followed by one `leave`."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._clients: dict[str, _Client] = {}

    def enter(self, client: str) -> None:
        """Raises `GatewayError` (429) that says which limit it is, and when to ask again."""
        if not self.limits.any:
            return
        found = self._client(client)
        limits = self.limits
        if limits.concurrent_requests and found.under_way >= limits.concurrent_requests:
            raise too_many(f"{limits.concurrent_requests} requests at once", 1)
        if limits.requests_per_minute and found.requests < 1 - ROUNDING:
            raise _rate("requests", limits.requests_per_minute, 1 - found.requests)
        if limits.tokens_per_minute and found.tokens < 1 - ROUNDING:
            raise _rate("tokens", limits.tokens_per_minute, 1 - found.tokens)
        found.requests -= 1
        found.under_way += 1

    def leave(self, client: str, tokens: int) -> None:
        if not self.limits.any:
            return
        found = self._client(client)
        found.under_way -= 1
        found.tokens -= tokens

    def _client(self, name: str) -> "_Client":
        """As it stands now."""
        now = self._clock()
        found = self._clients.get(name)
        if found is None:
            if len(self._clients) >= CLIENTS_MAX:
                self._forget(now)
            found = self._clients[name] = _Client(self.limits.requests_per_minute, self.limits.tokens_per_minute, now)
        minutes = (now - found.seen) / SECONDS_PER_MINUTE
        most_requests, most_tokens = self.limits.requests_per_minute, self.limits.tokens_per_minute
        found.requests = min(float(most_requests), found.requests + minutes * most_requests)
        found.tokens = min(float(most_tokens), found.tokens + minutes * most_tokens)
        found.seen = now
        return found

    def _forget(self, now: float) -> None:
        """Who has nothing under way and whose minute is over is as good as new, but for a debt of tokens."""
        self._clients = {
            name: client
            for name, client in self._clients.items()
            if client.under_way or client.tokens < 0 or now - client.seen < SECONDS_PER_MINUTE
        }


@dataclass
class _Client:
    """What it may still ask for."""

    requests: float
    tokens: float
    seen: float
    under_way: int = 0


def _rate(kind: str, limit: int, missing: float) -> GatewayError:
    seconds = missing * SECONDS_PER_MINUTE / limit
    return too_many(f"{limit} {kind} a minute", max(1, math.ceil(seconds - ROUNDING)))
