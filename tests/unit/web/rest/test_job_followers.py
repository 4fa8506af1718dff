"""What a follower costs an API server that is of no use just now, and how long a client may hold a stream."""

import asyncio
import time

import pytest

from finetune_operator.web import job_stream
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import failure
from tests.unit.web.rest.test_job_events import KEY, follow, parsed, put_job, tell, watched


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
