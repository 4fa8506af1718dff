"""Which of the operator's requests are counted for which job, and as what."""

from collections import Counter
from typing import Any

import pytest

from bench.audit_trail import Life, Request, lives

OPERATOR = "system:serviceaccount:finetune:finetune-operator"
UID = "uid-1"


def entry(verb: str, resource: str, name: str = "plato", /, **changes: Any) -> dict[str, Any]:
    """One line of the log, a write of the operator unless the changes say otherwise."""
    resource, _, subresource = resource.partition("/")
    target = {"resource": resource, "namespace": "finetune", "name": name}
    if subresource:
        target["subresource"] = subresource
    return {
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": OPERATOR},
        "userAgent": "Python/3.11 aiohttp/3.14.5",
        "objectRef": target,
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
    } | changes


def status(second: float = 0, **members: Any) -> dict[str, Any]:
    time = f"2026-01-01T00:00:{second:09.6f}Z"
    return entry("patch", "finetunejobs/status", requestObject={"status": members}, requestReceivedTimestamp=time)


APPLIED = entry("patch", "finetunejobs", user={"username": "admin"}, responseStatus={"code": 201})
JOB_CREATED = entry(
    "create", "jobs", "plato-1", requestObject={"metadata": {"ownerReferences": [{"name": "plato", "uid": UID}]}}
)
SUCCEEDED = status(phase="Succeeded", conditions=[])


def life(*between: dict[str, Any]) -> Life:
    (only,) = lives([APPLIED, JOB_CREATED, *between, SUCCEEDED], OPERATOR)
    return only


def version_created(job_uid: str) -> dict[str, Any]:
    return entry("create", "modelversions", "plato-v1", requestObject={"spec": {"lineage": {"jobUid": job_uid}}})


def event(uid: str) -> dict[str, Any]:
    return entry("create", "events", "e", requestObject={"involvedObject": {"uid": uid}})


COUNTED = {
    "its version": (version_created(UID), Request.CREATE_MODEL_VERSION),
    "a phase": (status(phase="Training"), Request.STATUS_CHANGE),
    "a condition with progress": (status(conditions=[], progress={}), Request.STATUS_CHANGE),
    "progress alone": (status(progress={"percent": 5}), Request.PROGRESS),
    "what goes with progress": (status(progress={"percent": 5}, checkpoint={}, cost={}), Request.PROGRESS),
    "a checkpoint without progress": (status(checkpoint={}), Request.STATUS_OTHER),
    "neither": (status(attempts=1), Request.STATUS_OTHER),
    "an event": (event(UID), Request.EVENT),
    "a read of an object": (entry("get", "jobs", "plato-1"), Request.READ_OBJECT),
    "the operator's own list": (entry("list", "jobs", ""), Request.READ_LIST),
}


@pytest.mark.parametrize(("line", "kind"), COUNTED.values(), ids=COUNTED)
def test_counted(line: dict[str, Any], kind: Request) -> None:
    assert life(line).requests - life().requests == Counter({kind: 1})


NOT_COUNTED = {
    "another job's version": version_created("uid-2"),
    "another job's event": event("uid-2"),
    "somebody else's status": status(phase="Training") | {"user": {"username": "admin"}},
    "the list before a watch": entry("list", "jobs", "", userAgent="kopf/1.45.2"),
    "a watch": entry("watch", "jobs", ""),
    "the beginning of a response": status(phase="Training") | {"stage": "ResponseStarted"},
    "another job's status": entry("patch", "finetunejobs/status", "other", requestObject={"status": {}}),
}


@pytest.mark.parametrize("line", NOT_COUNTED.values(), ids=NOT_COUNTED)
def test_not_counted(line: dict[str, Any]) -> None:
    assert life(line).requests == life().requests


def test_the_goal_counts_all_writes_but_progress_and_events() -> None:
    line = life(status(phase="Training"), status(attempts=1), status(progress={}), event(UID), version_created(UID))
    assert line.writes == len([JOB_CREATED, "training", "attempts", "version", SUCCEEDED])


def test_smallest_distance_of_progress_writes() -> None:
    times = (0, 10, 19.5, 40)
    assert life(*(status(second, progress={}) for second in times)).smallest_progress_distance_seconds == 9.5


def test_one_progress_write_has_no_distance() -> None:
    assert life(status(progress={})).smallest_progress_distance_seconds is None


def test_a_job_made_again_is_another_life() -> None:
    deleted = entry("delete", "finetunejobs", user={"username": "admin"})
    again = [APPLIED, JOB_CREATED, status(attempts=1), SUCCEEDED]
    first, second = lives([APPLIED, JOB_CREATED, SUCCEEDED, deleted, *again], OPERATOR)
    assert (first.writes, second.writes) == (2, 3)


@pytest.mark.parametrize(
    "lines",
    [[JOB_CREATED, SUCCEEDED], [APPLIED, JOB_CREATED]],
    ids=["its creation was rotated away", "it goes on"],
)
def test_a_life_without_beginning_or_end_is_left_out(lines: list[dict[str, Any]]) -> None:
    assert lives(lines, OPERATOR) == []
