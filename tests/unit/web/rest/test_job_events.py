"""A training that is followed: what a client is told, and what a reconnect loses, which is nothing."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
import uvicorn

from finetune_operator.web import job_stream
from finetune_operator.web.job_events import events_of, next_event
from finetune_operator.web.streams import MAX_STREAMS
from tests.builders import job_object, merged
from tests.unit.web.api_process import free_port
from tests.unit.web.rest.conftest import EDITOR, READER, Rest
from tests.unit.web.test_access import is_problem
from tests.waiting import eventually

EVENTS = "/v1/fine-tuning/jobs/finetune.plato-1/events"
STREAM = {"Accept": "text/event-stream"}
KEY = ("finetunejobs", "finetune", "plato-1")

Event = tuple[str, int, Any]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_stream, "BACKOFF_SECONDS", 0.01)


def put_job(rest: Rest, **status: Any) -> int:
    """Its resource version."""
    body = rest.cluster.put("finetunejobs", job_object(name="plato-1", status=status))
    return int(body["metadata"]["resourceVersion"])


def parsed(text: str) -> list[Event]:
    """Name, id and data of each event."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])))
    return events


async def follow(rest: Rest, caller: dict[str, str] = READER, after: int | None = None) -> httpx2.Response:
    resumed = {"Last-Event-ID": str(after)} if after is not None else {}
    return await rest.client.get(EVENTS, headers=caller | STREAM | resumed)


async def tell(rest: Rest, **status: Any) -> None:
    await rest.cluster.tell(*KEY, **status)


async def watched(rest: Rest, count: int = 1) -> None:
    async def is_so() -> bool:
        return rest.cluster.watches >= count

    await eventually(is_so)


async def test_a_stream_ends_with_the_training(rest: Rest) -> None:
    put_job(rest, phase="Training", progress={"percent": 1})
    following = asyncio.create_task(follow(rest))
    await watched(rest)
    await tell(rest, progress={"percent": 50})
    await tell(rest, attempts=2)
    await tell(rest, message="evaluating")
    await tell(rest, phase="Succeeded", modelVersion="plato-v1")
    response = await following
    assert response.headers["content-type"].startswith("text/event-stream")
    events = parsed(response.text)
    assert [name for name, _, _ in events] == ["status", "progress", "status", "end"]
    assert [data["progress"]["percent"] for _, _, data in events] == [1, 50, 50, 50]
    assert events[-1][2]["model_version"] == "finetune.plato-v1"
    versions = [version for _, version, _ in events]
    assert versions == sorted(versions)
    assert rest.services.streams.open == 0


async def test_a_training_that_has_ended_is_told_at_once(rest: Rest) -> None:
    version = put_job(rest, phase="Failed", message="out of memory")
    ((name, _, data),) = parsed((await follow(rest)).text)
    assert (name, data["status"], data["message"]) == ("end", "failed", "out of memory")
    assert (await follow(rest, after=version)).status_code == 204


@pytest.mark.parametrize("known", range(1, 5))
async def test_a_reconnect_loses_nothing(rest: Rest, known: int) -> None:
    versions = [put_job(rest, phase="Training", progress={"percent": 0})]
    for percent in (25, 50, 75):
        await tell(rest, progress={"percent": percent})
        versions.append(int(rest.cluster.objects[KEY]["metadata"]["resourceVersion"]))
    await tell(rest, phase="Succeeded")
    events = parsed((await follow(rest, after=versions[known - 1])).text)
    assert [data["progress"]["percent"] for _, _, data in events] == [25, 50, 75, 75][known - 1 :]
    assert events[-1][0] == "end"


async def test_from_a_state_that_is_too_old_the_present_one_is_told(rest: Rest) -> None:
    version = put_job(rest, phase="Training")
    await tell(rest, phase="Succeeded")
    rest.cluster.compacted_until = version + 1
    assert [name for name, _, _ in parsed((await follow(rest, after=version)).text)] == ["end"]


async def test_a_watch_that_the_server_ends_is_begun_anew(rest: Rest) -> None:
    rest.cluster.watch_ends_after = 1
    put_job(rest, phase="Training", progress={"percent": 0})
    following = asyncio.create_task(follow(rest))
    for percent in (10, 20):
        await watched(rest)
        await tell(rest, progress={"percent": percent})
    await tell(rest, phase="Cancelled")
    assert [name for name, _, _ in parsed((await following).text)] == ["status", "progress", "progress", "end"]
    assert rest.cluster.watches >= 3


async def test_a_silent_stream_has_heartbeats(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_stream, "HEARTBEAT_SECONDS", 0.02)
    version = put_job(rest, phase="Training")
    following = asyncio.create_task(follow(rest))
    await watched(rest)
    await asyncio.sleep(0.2)
    await tell(rest, phase="Succeeded")
    text = (await following).text
    assert text.count(f": still there\nid: {version}\n\n") >= 2
    assert [name for name, _, _ in parsed(text)] == ["status", "end"]


async def test_a_deleted_training_ends_the_stream(rest: Rest) -> None:
    put_job(rest, phase="Training")
    following = asyncio.create_task(follow(rest))
    await watched(rest)
    await rest.cluster.remove(*KEY)
    (_, (name, _, data)) = parsed((await following).text)
    assert (name, data) == ("deleted", {"id": "finetune.plato-1"})


async def test_another_training_of_the_name_is_another_one(rest: Rest) -> None:
    version = put_job(rest, phase="Training")
    rest.cluster.put("finetunejobs", job_object(name="plato-1", uid="another", status={"phase": "Training"}))
    following = asyncio.create_task(follow(rest, after=version))
    await watched(rest)
    rest.cluster.put("finetunejobs", job_object(name="plato-1", uid="third", status={"phase": "Training"}))
    await tell(rest, phase="Training")
    assert parsed((await following).text)[-1][0] == "deleted"


class TestTrouble:
    async def test_an_api_server_that_comes_back_is_asked_again(self, rest: Rest) -> None:
        rest.cluster.watch_ends_after = 1
        put_job(rest, phase="Training", progress={"percent": 0})
        following = asyncio.create_task(follow(rest))
        await watched(rest)
        rest.cluster.away = True
        await tell(rest, progress={"percent": 10})
        await asyncio.sleep(0.2)
        rest.cluster.away = False
        await tell(rest, phase="Succeeded")
        events = parsed((await following).text)
        assert (events[0][0], events[-1][0]) == ("status", "end")
        assert events[-1][2]["progress"]["percent"] == 10

    @pytest.mark.parametrize(("loses", "status"), [("token", 401), ("right", 403)])
    async def test_who_may_not_any_more_is_told(self, rest: Rest, loses: str, status: int) -> None:
        rest.cluster.watch_ends_after = 1
        put_job(rest, phase="Training")
        following = asyncio.create_task(follow(rest, EDITOR))
        await watched(rest)
        if loses == "token":
            del rest.cluster.users["editor"]
        else:
            rest.cluster.users["editor"].rights = set()
        await tell(rest, message="news")
        name, version, problem = parsed((await following).text)[-1]
        assert (name, version, problem["status"]) == ("error", 0, status)


async def test_there_is_an_end_to_the_streams(rest: Rest) -> None:
    put_job(rest, phase="Succeeded")
    rest.services.streams.open = MAX_STREAMS
    assert is_problem(await follow(rest), 503, "too-many-streams")
    assert (await rest.get(EVENTS, READER)).status_code == 200, "a list is no stream"
    rest.services.streams.open -= 1
    assert (await follow(rest)).status_code == 200


@pytest.mark.parametrize("last", ["abc", "-1", "1" * 21, str(2**64), "999999", "0"])
@pytest.mark.parametrize("phase", ["Training", "Succeeded"])
async def test_an_id_that_is_none_of_the_past_is_as_good_as_none(rest: Rest, last: str, phase: str) -> None:
    put_job(rest, phase=phase)
    request = rest.client.get(EVENTS, headers=READER | STREAM | {"Last-Event-ID": last})
    following = asyncio.create_task(request)
    if phase == "Training":
        await watched(rest)
        await tell(rest, phase="Succeeded")
    names = [name for name, _, _ in parsed((await following).text)]
    assert names == (["status", "end"] if phase == "Training" else ["end"])


def condition(type_: str, status: str, minute: int, reason: str = "R", message: str = "") -> dict[str, Any]:
    time = f"2026-01-01T11:{minute:02}:00Z"
    return {"type": type_, "status": status, "lastTransitionTime": time, "reason": reason, "message": message}


LISTS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "new": ({}, [("info", "Created")]),
    "on its way": (
        {"conditions": [condition("DatasetReady", "True", 2, "Prepared"), condition("Trained", "False", 3)]},
        [("info", "Created"), ("info", "Prepared")],
    ),
    "failed, said once": (
        {"conditions": [condition("Succeeded", "False", 5, "OOM"), condition("Stalled", "True", 5, "OOM")]},
        [("info", "Created"), ("error", "OOM")],
    ),
    "cancelled": (
        {"conditions": [condition("Succeeded", "False", 5, "Cancelled"), condition("Ready", "False", 5)]},
        [("info", "Created"), ("info", "Cancelled")],
    ),
    "tried again": (
        {"lastFailure": {"reason": "OOM", "message": "m", "time": "2026-01-01T11:04:00Z", "pod": "p"}},
        [("info", "Created"), ("warn", "OOM")],
    ),
    "succeeded": (
        {"conditions": [condition("Succeeded", "True", 9, "Published"), condition("Ready", "True", 9, "Published")]},
        [("info", "Created"), ("info", "Published")],
    ),
}


@pytest.mark.parametrize("case", LISTS)
def test_the_list(case: str) -> None:
    status, expected = LISTS[case]
    found = events_of(job_object(name="plato-1", status=status))
    assert [(event.level, event.reason) for event in found] == expected
    assert len({event.id for event in found}) == len(found)


async def test_without_a_stream_there_is_a_list(rest: Rest) -> None:
    put_job(rest, conditions=[condition("DatasetReady", "True", 2, "Prepared", "120 rows")])
    body = (await rest.get(EVENTS, READER)).json()
    assert [event["message"] for event in body["events"]] == ["FineTuneJob plato-1 was created", "120 rows"]


def test_what_says_the_same_is_not_told() -> None:
    body = merged(job_object(status={"phase": "Training"}), {"metadata": {"resourceVersion": "7"}})
    first = next_event(body, None)
    assert first is not None
    assert next_event(merged(body, {"status": {"attempts": 2}}), first.entry) is None


async def test_a_client_that_leaves_frees_its_stream(rest: Rest) -> None:
    """By a real server, which is what notices that a connection is gone."""
    put_job(rest, phase="Training")
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(rest.app, host="127.0.0.1", port=port, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        async with httpx2.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}{EVENTS}"
            async with client.stream("GET", url, headers=READER | STREAM) as response:
                assert await anext(response.aiter_lines()) == "event: status"
                assert rest.services.streams.open == 1
        await eventually(lambda: rest.services.streams.open == 0, 10.0)
    finally:
        server.should_exit = True
        await serving
