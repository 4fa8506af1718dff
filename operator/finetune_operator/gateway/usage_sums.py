"""Tells the api how many calls and tokens each version has answered, as sums: one that is sent twice counts once."""

import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, date, datetime
from itertools import islice
from typing import NamedTuple

import aiohttp
from prometheus_client import Counter

from finetune_operator.contract.places import USAGE_PATH
from finetune_operator.contract.usage import USAGE_MAX_PER_REPORT, DayOfUsage, UsageReport
from finetune_operator.gateway.outbox import Letter, Outbox
from finetune_operator.gateway.usage import Usage

INTERVAL_SECONDS = 5.0
"""Nobody waits for it; each version that is asked is one row of each report."""


class Sum(NamedTuple):
    """Whose sum it is; the day is UTC's."""

    version_uid: str
    day: date


def _today() -> date:
    return datetime.now(UTC).date()


class UsageSender(Outbox[Sum]):
    """Sums that have changed wait here; what they are is read when they are sent."""

    what = "usage"
    room = 10_000

    def __init__(
        self,
        session: aiohttp.ClientSession,
        api_url: str,
        token: str,
        outcomes: Counter,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        today: Callable[[], date] = _today,
    ) -> None:
        super().__init__(session, api_url, token, outcomes, interval_seconds=interval_seconds)
        self._today = today
        self._reporter = str(uuid.uuid4())
        self._sums: dict[Sum, DayOfUsage] = {}
        self._changed: set[Sum] = set()

    def add(self, version_uid: str, usage: Usage | None) -> None:
        """One answer, or None for one that failed. Returns at once."""
        key = Sum(version_uid, self._today())
        known = self._sums.get(key) or DayOfUsage(version_uid=key.version_uid, day=key.day)
        self._sums[key] = _with(known, usage)
        if key not in self._changed and self.put(key):
            self._changed.add(key)

    def letter(self, items: deque[Sum]) -> Letter:
        """Whatever is added from here on changes its sum again, and is told by another letter."""
        oldest = tuple(islice(items, USAGE_MAX_PER_REPORT))
        keys = dict.fromkeys(oldest)
        self._changed.difference_update(keys)
        days = tuple(self._sums[key] for key in keys)
        self._forget_past(keep={*items})
        body = UsageReport(reporter=self._reporter, days=days).model_dump_json(by_alias=True).encode()
        return Letter("POST", USAGE_PATH, body, len(oldest))

    async def _send(self, timeout_seconds: float) -> None:
        # What has changed since a letter that failed waits twice.
        self._buffer = deque(dict.fromkeys(self._buffer))
        self._waiting = len(self._buffer)
        await super()._send(timeout_seconds)

    def _forget_past(self, keep: set[Sum]) -> None:
        """A past day grows no more; its sum is needed only as long as it waits to be sent."""
        today = self._today()
        self._sums = {key: known for key, known in self._sums.items() if key.day == today or key in keep}


def _with(known: DayOfUsage, usage: Usage | None) -> DayOfUsage:
    if usage is None:
        return known.model_copy(update={"failed": known.failed + 1})
    told: dict[str, int] = {"calls": known.calls + 1}
    if usage.completion_tokens is not None:
        told |= {
            "calls_with_tokens": known.calls_with_tokens + 1,
            "prompt_tokens": known.prompt_tokens + (usage.prompt_tokens or 0),
            "completion_tokens": known.completion_tokens + usage.completion_tokens,
        }
    return known.model_copy(update=told)
