"""What a follower costs an API server that is of no use just now, and how long a client may hold a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
import uvicorn

from finetune_operator.web import app, job_stream, streams
from tests.unit.web.api_process import free_port
from tests.unit.web.rest.conftest import EDITOR, READER, Rest
from tests.unit.web.rest.played_api_server import failure
from tests.unit.web.rest.test_job_events import EVENTS, KEY, STREAM, follow, parsed, put_job, tell, watched
from tests.unit.web.test_access import is_problem
from tests.waiting import eventually


async def test_watches_that_end_without_events_come_ever_more_rarely(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_stream, "BACKOFF_SECONDS", 0.1)
    rest.cluster.watch_ends_after = 0
    put_job(rest, phase="Training")
    following = asyncio.create_task(follow(rest))
    await watched(rest)
    await asyncio.sleep(1.0)
    assert rest.cluster.watches <= 4
    rest.cluster.watch_ends_after = None
    await tell(rest, phase="Succeeded")
    assert [name for name, _, _ in parsed((await following).text)] == ["status", "end"]


async def test_the_api_server_says_when_to_come_again(rest: Rest) -> None:
    rest.cluster.watch_failure = lambda: failure(429, "too many requests", Retry_After="1")
    put_job(rest, phase="Training")
    began = time.monotonic()
    following = asyncio.create_task(follow(rest))
    await watched(rest)
    rest.cluster.watch_failure = None
    await tell(rest, phase="Succeeded")
    assert parsed((await following).text)[-1][0] == "end"
    assert (rest.cluster.watches, time.monotonic() - began >= 1.0) == (2, True)


async def test_a_state_that_is_forgotten_is_not_asked_for_again_and_again(rest: Rest) -> None:
    version = put_job(rest, phase="Training")
    rest.cluster.put("finetunejobs", {**rest.cluster.objects[KEY], "metadata": {"name": "b", "namespace": "finetune"}})
    rest.cluster.compacted_until = version + 1
    following = asyncio.create_task(follow(rest))
    await watched(rest, 2)
    await asyncio.sleep(0.2)
    assert rest.cluster.watches == 2
    await tell(rest, phase="Succeeded")
    assert [name for name, _, _ in parsed((await following).text)] == ["status", "end"]


async def test_one_caller_leaves_room_for_others(rest: Rest) -> None:
    put_job(rest, phase="Training")
    own = rest.cluster.users["reader"].name
    with ExitStack() as held:
        for _ in range(streams.MAX_STREAMS_OF_ONE):
            held.enter_context(rest.services.streams.one(own))
        assert is_problem(await follow(rest), 429, "too-many-streams")
        others = asyncio.create_task(follow(rest, EDITOR))
        await watched(rest)
        await tell(rest, phase="Succeeded")
        assert (await others).status_code == 200
    assert (await follow(rest)).status_code == 200


async def test_a_stream_has_a_longest_life(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIFE_SECONDS", 0.2)
    put_job(rest, phase="Training")
    assert [name for name, _, _ in parsed((await follow(rest)).text)] == ["status"]
    assert rest.services.streams.open == 0


async def test_who_takes_nothing_is_left_alone(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.05)
    closed = asyncio.Event()

    async def texts() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async def never(*message: Any) -> Any:
        if not message or message[0]["type"] != "http.response.start":
            await asyncio.Event().wait()

    answer = streams.EventStream(texts(), rest.services.streams, "ada")
    await asyncio.wait_for(answer({"type": "http", "asgi": {}}, never, never), 5.0)
    assert (closed.is_set(), rest.services.streams.open) == (True, 0)


async def test_a_server_that_stops_ends_the_streams_at_once(rest: Rest) -> None:
    """By a real server, which would wait for them otherwise."""
    put_job(rest, phase="Training")
    port = free_port()
    config = uvicorn.Config(rest.app, host="127.0.0.1", port=port, log_config=None, lifespan="off")
    server = app._Server(config, rest.services.streams)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    async with httpx2.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}{EVENTS}"
        async with client.stream("GET", url, headers=READER | STREAM) as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: status"
            server.should_exit = True
            assert [line async for line in lines][-1] == "", "the answer is whole"
        await asyncio.wait_for(serving, 5.0)
    assert is_problem(await follow(rest), 503, "stopping")
