"""Whether and when an attempt at an engine is repeated; nothing of it may have reached the client.

A Service still leads to a dead pod until kubelet, its EndpointSlice and kube-proxy have noticed, which takes seconds.
Each new connection may meet another pod, so that going on trying finds a living one long before that.
"""

import random
from collections import Counter, defaultdict
from enum import StrEnum

ATTEMPTS_MAX = 3
"""Of those that an engine refused, and of those that it broke at, which may be the request's doing: one that kills
engines kills no more than these."""
UNLOADED_ATTEMPTS_MAX = 4
"""Within 0.7 s: by then the gateway has heard of newer routes, or the engine has the adapter again."""
UNREACHABLE_ATTEMPTS_MIN = 6
"""However long each takes: of two pods, one dead, all of them meet that one once in 64 times."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0


class Reason(StrEnum):
    """Why an attempt may be repeated."""

    UNREACHABLE = "unreachable"
    """No connection came about: nothing was sent, so that only time limits the repetitions."""
    REFUSED = "refused"
    """The engine is overloaded, or stopping."""
    UNLOADED = "unloaded"
    """It does not have the adapter: the gateway's routes are stale, or the engine has lost it."""
    FAILED = "failed"
    """It answered 500. As vLLM ends, its server may say so of each request; else it may be of the request's making."""
    LOST = "lost"
    """The connection broke before the client had a byte of the answer, perhaps since the request broke the engine."""


BROKEN = frozenset({Reason.FAILED, Reason.LOST})
"""Two ways to see an engine die."""


class Retries:
    """The attempts of one request. `seconds` is for how long it may wait for an engine that takes no connection."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failures: defaultdict[Reason, int] = defaultdict(int)
        self._unreachable_since: float | None = None

    def pause_seconds(self, reason: Reason, begun: float, now: float, luck: float) -> float | None:
        """How long to wait after an attempt that has `begun` then, or None where it was the last one.

        `luck` is from 0 to 1: those whom one dead pod has sent away shall not come back all at once.
        """
        self._failures[reason] += 1
        if reason is Reason.UNREACHABLE:
            since = self._unreachable_since = begun if self._unreachable_since is None else self._unreachable_since
            may_repeat = now - since < self._seconds or self._failures[reason] < UNREACHABLE_ATTEMPTS_MIN
        else:
            self._unreachable_since = None
            alike = BROKEN if reason in BROKEN else {reason}
            most = UNLOADED_ATTEMPTS_MAX if reason is Reason.UNLOADED else ATTEMPTS_MAX
            may_repeat = sum(self._failures[each] for each in alike) < most
        if not may_repeat:
            return None
        # Of few bits, however often it fails.
        doublings = min(sum(self._failures.values()) - 1, 10)
        pause = min(FIRST_PAUSE_SECONDS * 2.0**doublings, LONGEST_PAUSE_SECONDS) * (1 + luck) / 2
        # Whoever has waited in vain for a connection has waited already.
        return max(0.0, pause - (now - begun)) if reason is Reason.UNREACHABLE else pause


class WaitingRoom:
    """How many requests wait for one engine: those for a dead one must not take up the whole gateway."""

    def __init__(self, seats_per_engine: int) -> None:
        self._seats = seats_per_engine
        self._taken: Counter[str] = Counter()

    def seat(self, url: str) -> "Seat":
        """For one request; not taken yet."""
        return Seat(self, url)

    def take(self, url: str) -> bool:
        if self._taken[url] >= self._seats:
            return False
        self._taken[url] += 1
        return True

    def leave(self, url: str) -> None:
        self._taken[url] -= 1
        if not self._taken[url]:
            del self._taken[url]


class Seat:
    """Of a request from its first failure until it has a connection: one that hangs is waited for as well."""

    def __init__(self, room: WaitingRoom, url: str) -> None:
        self._room = room
        self._url = url
        self._is_taken = False

    def take(self) -> bool:
        """Whether it may wait."""
        self._is_taken = self._is_taken or self._room.take(self._url)
        return self._is_taken

    def leave(self) -> None:
        """Harmless without a seat."""
        if self._is_taken:
            self._is_taken = False
            self._room.leave(self._url)


def luck() -> float:
    """From 0 to 1."""
    return random.random()  # noqa: S311 - no secret
