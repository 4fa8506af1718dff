"""Kubernetes tokens for the holders of API keys, which the api has the API server make for their ServiceAccounts.

They stay in this process. One is handed out only while it outlives any stream that is opened with it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import SecretStr

from finetune_operator.store.api_keys import KeyRecord

LIFETIME_SECONDS = 7200
LEFT_AT_LEAST = timedelta(hours=1)
"""As long as a stream of events may be; where the API server gives shorter ones, half of what it gives."""
RENEWED_AFTER = timedelta(seconds=10)
"""No token that the API server refuses is made anew sooner, however often it refuses them."""
CACHE_MAX_ENTRIES = 1024


class TokenMaker(Protocol):
    """The part of `KubeClient` that makes tokens, with the api's own right to."""

    async def token_of(self, namespace: str, service_account: str, lifetime_seconds: int) -> dict[str, Any]: ...


@dataclass
class _Kept:
    token: SecretStr | None = None
    made: datetime | None = None
    until: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AccountTokens:
    """One token for each key that is in use."""

    def __init__(self, maker: TokenMaker, now: Callable[[], datetime]) -> None:
        self._maker = maker
        self._now = now
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def token_for(self, key: KeyRecord, refused: SecretStr | None = None) -> SecretStr:
        """Another one than `refused`, unless that was made just now.

        Raises `KubeError`: 403 where the api may not make tokens for the ServiceAccount, 404 where it is gone.
        """
        kept = self._kept.setdefault(key.id, _Kept())
        self._kept.move_to_end(key.id)
        while len(self._kept) > CACHE_MAX_ENTRIES:
            self._kept.popitem(last=False)
        async with kept.lock:
            now = self._now()
            is_refused = kept.token == refused and kept.made is not None and now >= kept.made + RENEWED_AFTER
            if kept.token is None or kept.until is None or now >= kept.until or is_refused:
                made = await self._maker.token_of(key.account.namespace, key.account.name, LIFETIME_SECONDS)
                ends = datetime.fromisoformat(made["expirationTimestamp"])
                kept.token, kept.made = SecretStr(made["token"]), now
                kept.until = ends - min(LEFT_AT_LEAST, (ends - now) / 2)
            return kept.token

    def drop(self, key_id: str) -> None:
        """Of a key that has ended."""
        self._kept.pop(key_id, None)
