"""What happened to a training, as server-sent events and as a list. Pure."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from finetune_operator.resources.common import Condition, ConditionStatus
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_views import FINISHED, JobEntry, entry_of
from finetune_operator.web.odd_resources import parsed

Object = dict[str, Any]
EventName = Literal["status", "progress", "end", "deleted", "error"]
Level = Literal["info", "warn", "error"]
MOVING = ("progress", "cost")
"""What changes all the time."""
STALLED, SUCCEEDED = "Stalled", "Succeeded"
SAID_ELSEWHERE = frozenset({"Ready", "Reconciling"})
"""Conditions that repeat what others say."""


class JobEvent(BaseModel):
    """Something that became true of a training."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    time: datetime
    level: Level
    reason: str
    """One CamelCase word for programs."""
    message: str


class JobEventList(BaseModel):
    """In the order of time; the latest of each kind, as the resource has them."""

    model_config = ConfigDict(frozen=True)

    events: tuple[JobEvent, ...]


class Sent(NamedTuple):
    """One event of a stream; its id is the resource version."""

    name: EventName
    entry: JobEntry
    version: str

    @property
    def is_last(self) -> bool:
        return self.name == "end"

    def text(self) -> str:
        return framed(self.name, self.entry.model_dump_json(), self.version)


def events_of(body: Object) -> tuple[JobEvent, ...]:
    """Its making, what has become true of it, an attempt that failed, and a bad end."""
    job = parsed(FineTuneJob, body)
    uid, status = job.metadata.uid, job.status
    told = [each for each in status.conditions if _is_told(each, status.conditions)]
    events = [
        _event(uid, each.type, each.last_transition_time, _level(each), each.reason, each.message) for each in told
    ]
    if created := job.metadata.creation_timestamp:
        message = f"FineTuneJob {job.metadata.name} was created"
        events.append(_event(uid, "Created", created, "info", "Created", message))
    if failure := status.last_failure:
        events.append(_event(uid, "LastFailure", failure.time, "warn", failure.reason, failure.message))
    return tuple(sorted(events, key=lambda event: (event.time, event.id)))


def next_event(body: Object, last: JobEntry | None) -> Sent | None:
    """What a watcher is to be told of this state; nothing where it says the same as the last one."""
    entry, version = entry_of(body), str(body["metadata"]["resourceVersion"])
    if entry.status in FINISHED:
        return Sent("end", entry, version)
    if last is None or entry.model_copy(update={name: getattr(last, name) for name in MOVING}) != last:
        return Sent("status", entry, version)
    return Sent("progress", entry, version) if entry != last else None


def deleted(found: ObjectId, version: str) -> str:
    """The last event of a training that is no more."""
    return framed("deleted", json.dumps({"id": str(found)}), version)


def failed(problem: dict[str, Any]) -> str:
    """The last event of a stream that can't go on; it has no id, so that a reconnect asks from the event before."""
    return f"event: error\ndata: {json.dumps(problem)}\n\n"


def heartbeat(version: str) -> str:
    """No event: it keeps the connection open, and moves the place from which a reconnect asks."""
    return f": still there\nid: {version}\n\n"


def framed(name: EventName, data: str, version: str) -> str:
    """`data` is JSON on one line."""
    return f"event: {name}\nid: {version}\ndata: {data}\n\n"


def _is_told(condition: Condition, conditions: Iterable[Condition]) -> bool:
    if condition.type == SUCCEEDED and condition.status == ConditionStatus.FALSE:
        return not any(other.type == STALLED for other in conditions)
    return condition.status == ConditionStatus.TRUE and condition.type not in SAID_ELSEWHERE


def _level(condition: Condition) -> Level:
    return "error" if condition.type == STALLED else "info"


def _event(uid: str, what: str, time: datetime, level: Level, reason: str, message: str) -> JobEvent:
    """Its id changes with each transition, so that a client can tell a new one."""
    event_id = f"{uid}.{what}.{time:%Y%m%dT%H%M%SZ}"
    return JobEvent(id=event_id, time=time, level=level, reason=reason, message=message or reason)
