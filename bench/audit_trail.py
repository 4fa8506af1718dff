"""A FineTuneJob's life as the API server's audit log tells it: which requests the operator made for it."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

WRITES = ("create", "update", "patch", "delete", "deletecollection")


class Request(StrEnum):
    """Why the operator asked the API server."""

    CREATE_JOB = "create Job"
    CREATE_MODEL_VERSION = "create ModelVersion"
    STATUS_CHANGE = "status writes with a changed phase or condition"
    STATUS_OTHER = "status writes with neither condition nor progress"
    PROGRESS = "progress-only status writes"
    EVENT = "events"
    READ_OBJECT = "reads of one object"
    READ_LIST = "lists not made by a watch"


GOES_WITH_PROGRESS = {"progress", "checkpoint", "cost"}
"""Told with a progress, and never without one."""
COUNTED = (Request.CREATE_JOB, Request.CREATE_MODEL_VERSION, Request.STATUS_CHANGE, Request.STATUS_OTHER)


@dataclass
class Life:
    """One FineTuneJob from its creation to the status write with its final phase."""

    namespace: str
    name: str
    uid: str = ""
    outcome: str = ""
    requests: Counter[Request] = field(default_factory=Counter)
    progress_times: list[datetime] = field(default_factory=list)

    @property
    def writes(self) -> int:
        """Those that the goal speaks of: without progress and events."""
        return sum(self.requests[kind] for kind in COUNTED)

    @property
    def smallest_progress_distance_seconds(self) -> float | None:
        """Between two progress-only writes; None with fewer than two."""
        distances = [(later - earlier).total_seconds() for earlier, later in pairwise(self.progress_times)]
        return min(distances, default=None)


def read(audit_log: Path) -> Iterator[Mapping[str, Any]]:
    """All entries of the log and of what was rotated away, oldest first."""
    rotated = sorted(audit_log.parent.glob(f"{audit_log.stem}-*{audit_log.suffix}"))
    for file in [*rotated, audit_log]:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                # The last line may be half written.
                if line.endswith("\n"):
                    yield json.loads(line)


def lives(entries: Iterable[Mapping[str, Any]], operator: str) -> list[Life]:
    """Jobs that were created and came to an end in these entries, in the order of their ends."""
    reader = _Reader(operator)
    for entry in entries:
        if entry["stage"] == "ResponseComplete" and "objectRef" in entry:
            reader.see(entry)
    return reader.ended


class _Reader:
    def __init__(self, operator: str) -> None:
        self._operator = operator
        self._open: dict[tuple[str, str], Life] = {}
        self.ended: list[Life] = []

    def see(self, entry: Mapping[str, Any]) -> None:
        target = entry["objectRef"]
        key = (target.get("namespace", ""), target.get("name", ""))
        if _creates_job(entry):
            self._open[key] = Life(*key)
        elif target["resource"] == "finetunejobs" and entry["verb"] == "delete":
            self._open.pop(key, None)
        elif entry["user"]["username"] == self._operator:
            if entry["verb"] in WRITES:
                self._see_write(entry)
            else:
                self._see_read(entry)

    def _see_write(self, entry: Mapping[str, Any]) -> None:
        target, body = entry["objectRef"], entry.get("requestObject") or {}
        match target["resource"], target.get("subresource"):
            case "finetunejobs", "status":
                if life := self._open.get((target["namespace"], target["name"])):
                    self._see_status(life, entry, body.get("status", {}))
            case "jobs", None if entry["verb"] == "create":
                for owner in body["metadata"].get("ownerReferences", []):
                    if life := self._open.get((target["namespace"], owner["name"])):
                        life.uid = owner["uid"]
                        life.requests[Request.CREATE_JOB] += 1
            case "modelversions", None if entry["verb"] == "create":
                if life := self._by_uid(body["spec"].get("lineage", {}).get("jobUid")):
                    life.requests[Request.CREATE_MODEL_VERSION] += 1
            case "events", _:
                if life := self._by_uid(body.get("involvedObject", {}).get("uid")):
                    life.requests[Request.EVENT] += 1

    def _see_status(self, life: Life, entry: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        if "progress" in status and status.keys() <= GOES_WITH_PROGRESS:
            life.requests[Request.PROGRESS] += 1
            life.progress_times.append(datetime.fromisoformat(entry["requestReceivedTimestamp"]))
        elif status.keys() & {"phase", "conditions"}:
            life.requests[Request.STATUS_CHANGE] += 1
        else:
            life.requests[Request.STATUS_OTHER] += 1
        if status.get("phase") in ("Succeeded", "Failed") and not life.outcome:
            life.outcome = status["phase"]
            self.ended.append(life)

    def _see_read(self, entry: Mapping[str, Any]) -> None:
        """Reads are counted for every job that is under way, since an entry does not say for whom they are."""
        # kopf lists once before it watches; the operator's own requests have another user agent.
        if entry["verb"] == "watch" or entry.get("userAgent", "").startswith("kopf/"):
            return
        kind = Request.READ_OBJECT if entry["verb"] == "get" else Request.READ_LIST
        for life in self._open.values():
            if not life.outcome:
                life.requests[kind] += 1

    def _by_uid(self, uid: str | None) -> Life | None:
        return next((life for life in self._open.values() if uid and life.uid == uid), None)


def _creates_job(entry: Mapping[str, Any]) -> bool:
    """By create, or by a server-side apply that the API server answers with 201."""
    target = entry["objectRef"]
    if target["resource"] != "finetunejobs" or target.get("subresource"):
        return False
    code = entry.get("responseStatus", {}).get("code")
    return bool(code == 201 and entry["verb"] in ("create", "patch"))
