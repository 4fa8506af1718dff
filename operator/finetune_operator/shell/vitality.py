"""Whether the operator still does its work, for the liveness probe: proofs of the contrary alone, never mere silence.

In a quiet cluster a watch has nothing to tell for days. It is dead where a listing has told of a change, and the next
one, minutes later, finds that it has still not brought it. An API server that is away tells of nothing, and accuses
nobody.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from finetune_operator.shell.state import resource_version

WATCH_GRACE_SECONDS = 120.0
"""Between two listings: a watch that was cut is back within half a minute, and begins with a listing of its own."""
QUEUE_GRACE_SECONDS = 3600.0
"""A reconcile may take many adapters out of a pod and load one, minutes each."""


class ObjectKey(NamedTuple):
    """One object, and not a later one of its name."""

    plural: str
    namespace: str
    uid: str


class Vitality:
    """What watches have brought, against what listings have told."""

    def __init__(self) -> None:
        self._brought: dict[ObjectKey, int] = {}
        self._overdue: dict[ObjectKey, float] = {}
        self._missed: set[ObjectKey] = set()

    def brought(self, plural: str, body: Mapping[str, Any]) -> None:
        """By the watch, or by the listing that it began with."""
        key = _key(plural, body)
        self._brought[key] = max(resource_version(body), self._brought.get(key, 0))
        self._overdue.pop(key, None)
        self._missed.discard(key)

    def gone(self, plural: str, body: Mapping[str, Any]) -> None:
        """By whatever way that is known."""
        key = _key(plural, body)
        self._brought.pop(key, None)
        self._overdue.pop(key, None)
        self._missed.discard(key)

    def listed(self, plural: str, namespace: str, bodies: Iterable[Mapping[str, Any]], now: float) -> None:
        """All objects of one kind in a namespace."""
        behind = {key for body in bodies if self._brought.get(key := _key(plural, body), 0) < resource_version(body)}
        for key in [key for key in self._overdue if key[:2] == (plural, namespace) and key not in behind]:
            del self._overdue[key]
        for key in behind:
            if now - self._overdue.setdefault(key, now) >= WATCH_GRACE_SECONDS:
                self._missed.add(key)

    def complaint(self, unfinished_seconds: float) -> str | None:
        """Why the process should be replaced, if it should."""
        if unfinished_seconds > QUEUE_GRACE_SECONDS:
            return f"no reconcile has come to an end for {unfinished_seconds:.0f} s, although some are to be done"
        if self._missed:
            first = min(self._missed)
            return f"the watch of {first.plural} in {first.namespace} does not bring what listings tell of {first.uid}"
        return None


def _key(plural: str, body: Mapping[str, Any]) -> ObjectKey:
    return ObjectKey(plural, body["metadata"]["namespace"], body["metadata"]["uid"])
