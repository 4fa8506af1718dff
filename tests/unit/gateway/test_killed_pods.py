"""One of an engine's two pods dies: only what has begun to reach a client fails, all else is answered by the other."""

import asyncio
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from finetune_operator.gateway import engine_pool
from tests.unit.gateway.clients import answer_of, chat
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import HOST, Engine
from tests.waiting import eventually

OTHER_HOST = "127.0.0.2"
UNNOTICED_SECONDS = 2.0
"""Until kubelet, EndpointSlice and kube-proxy have dropped a dead pod."""
REQUESTS = 200


@dataclass
class Pair:
    """Two pods behind one address, as kube-proxy has them: each new connection goes to either, dead or not."""

    first: Engine
    second: Engine
    listed: list[str] = field(default_factory=lambda: [HOST, OTHER_HOST])
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    async def choose(self, *_: object) -> tuple[str, ...]:
        return (self.chance.choice(self.listed),)

    async def kill_second(self) -> None:
        await self.second.kill()
        asyncio.get_running_loop().call_later(UNNOTICED_SECONDS, self.listed.remove, OTHER_HOST)


@pytest.fixture
async def pair(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    pair = Pair(world.engine, Engine(OTHER_HOST, world.engine.port))
    monkeypatch.setattr(engine_pool, "_lookup", pair.choose)
    monkeypatch.setattr(engine_pool, "ADDRESSES_SECONDS", 0.0)
    async with pair.second.running():
        yield pair


async def test_requests_of_the_next_seconds_are_all_answered(
    world: World, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by a connection of its own, half of which meet the dead pod."""
    monkeypatch.setattr(engine_pool, "IDLE_SECONDS", 0.0)
    async with world.gateway(retry_seconds=10.0):
        asking = []
        for number in range(REQUESTS):
            if number == REQUESTS // 10:
                await pair.kill_second()
            asking.append(asyncio.create_task(status_of(world, stream=number % 3 == 0)))
            await asyncio.sleep(1.5 * UNNOTICED_SECONDS / REQUESTS)
        assert Counter(await asyncio.gather(*asking)) == {200: REQUESTS}
        assert await world.metric("finetune_gateway_retries_total") > REQUESTS / 10


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_without_a_first_byte_are_answered_by_the_other(world: World, pair: Pair, stream: bool) -> None:
    """A stream of the engine has a head long before it has a token."""
    for engine in (pair.first, pair.second):
        engine.proceed.clear()
        engine.speaks.clear()
    async with world.gateway(retry_seconds=10.0):
        asking = [asyncio.create_task(status_of(world, stream=stream)) for _ in range(40)]
        await eventually(lambda: len(pair.first.requests) + len(pair.second.requests) == 40)
        assert len(pair.second.requests) > 10
        await pair.kill_second()
        pair.first.proceed.set()
        pair.first.speaks.set()
        assert Counter(await asyncio.gather(*asking)) == {200: 40}


async def test_streams_that_have_begun_are_cut_and_no_others(world: World, pair: Pair) -> None:
    for engine in (pair.first, pair.second):
        engine.proceed.clear()
    async with world.gateway(retry_seconds=10.0), aiohttp.ClientSession() as session:
        streams = [await begun(session, world) for _ in range(20)]
        lost = len(pair.second.requests)
        assert 0 < lost < 20
        await pair.kill_second()
        pair.first.proceed.set()
        texts = [await stream.text() for stream in streams]
    assert sum("engine_failed" in text for text in texts) == lost
    assert sum(text.endswith("data: [DONE]\n\n") for text in texts) == 20 - lost


async def begun(session: aiohttp.ClientSession, world: World) -> aiohttp.ClientResponse:
    response = await session.post(world.url + "/v1/chat/completions", data=chat("plato", stream=True))
    assert await response.content.readuntil(b"\n\n") == Engine.event("plato-v1", "I ")
    return response


async def status_of(world: World, *, stream: bool) -> int:
    async with aiohttp.ClientSession() as session:
        url = world.url + "/v1/chat/completions"
        async with session.post(url, data=chat("plato", stream=stream)) as response:
            text = await response.text()
            return response.status if not stream or text.endswith("data: [DONE]\n\n") else 0


async def test_a_connection_that_hangs_is_given_up_for_another(world: World, pair: Pair) -> None:
    """A node that has lost its power refuses nothing."""
    await pair.second.kill()
    with socket.socket() as listener, socket.socket() as filler:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((OTHER_HOST, pair.first.port))
        listener.listen(0)
        # The queue of connections is full, so that the kernel answers no other.
        filler.connect((OTHER_HOST, pair.first.port))
        async with world.gateway(retry_seconds=10.0, connect_timeout_seconds=0.1):
            asking = (status_of(world, stream=False) for _ in range(40))
            assert Counter(await asyncio.gather(*asking)) == {200: 40}
            assert await world.metric("finetune_gateway_retries_total") > 0


async def test_a_request_that_kills_engines_kills_no_more_than_three(world: World) -> None:
    world.engine.breaks = "before"
    async with world.gateway():
        status, body, _ = await answer_of(world, "plato")
    assert (status, body["error"]["code"], len(world.engine.requests)) == (502, "engine_failed", 3)


async def test_a_whole_answer_that_breaks_halfway_is_asked_again(world: World) -> None:
    """The client has had nothing of it."""
    world.engine.breaks = "halfway"
    async with world.gateway():
        asking = asyncio.create_task(answer_of(world, "plato"))
        await eventually(lambda: len(world.engine.requests) > 0)
        world.engine.breaks = None
        assert (await asking)[0] == 200


class TestPatience:
    """An engine whose only pod is dead."""

    @pytest.fixture(autouse=True)
    async def dead(self, world: World) -> None:
        await world.engine.stop()

    async def test_it_ends(self, world: World) -> None:
        async with world.gateway(retry_seconds=1.0):
            begun = time.monotonic()
            status, body, headers = await answer_of(world, "plato")
            assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
            assert 1.0 <= time.monotonic() - begun < 5.0

    async def test_it_is_rewarded(self, world: World) -> None:
        async with world.gateway(retry_seconds=30.0):
            asking = asyncio.create_task(answer_of(world, "plato"))
            await eventually(lambda: has_retried(world))
            await world.engine.start()
            assert (await asking)[0] == 200

    async def test_those_who_wait_leave_half_of_the_gateway_to_others(self, world: World) -> None:
        async with world.gateway(retry_seconds=30.0, max_concurrent_requests=8):
            waiting = [asyncio.create_task(answer_of(world, "plato")) for _ in range(4)]
            await eventually(lambda: has_retried(world, times=4))
            assert (await answer_of(world, "plato"))[1]["error"]["code"] == "engine_unavailable"
            await world.engine.start()
            assert [status for status, _, _ in await asyncio.gather(*waiting)] == [200] * 4

    async def test_those_whose_connections_hang_do_so_too(self, world: World) -> None:
        with socket.socket() as listener, socket.socket() as filler:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((world.engine.host, world.engine.port))
            listener.listen(0)
            filler.connect((world.engine.host, world.engine.port))
            async with world.gateway(retry_seconds=30.0, max_concurrent_requests=8, connect_timeout_seconds=0.5):
                waiting = [asyncio.create_task(answer_of(world, "plato")) for _ in range(8)]
                done, left = await asyncio.wait(waiting, timeout=2.0)
                assert (len(done), len(left)) == (4, 4)
                assert {task.result()[1]["error"]["code"] for task in done} == {"engine_unavailable"}
                for task in left:
                    task.cancel()

    async def test_who_leaves_waits_no_longer(self, world: World) -> None:
        async with world.gateway(retry_seconds=30.0, max_concurrent_requests=2):
            asking = asyncio.create_task(answer_of(world, "plato"))
            await eventually(lambda: has_retried(world))
            asking.cancel()
            await eventually(lambda: has_left(world))
            other = asyncio.create_task(answer_of(world, "plato"))
            await eventually(lambda: has_retried(world, times=4))
            await world.engine.start()
            assert (await other)[0] == 200


async def has_retried(world: World, times: int = 1) -> bool:
    return await world.metric("finetune_gateway_retries_total") >= times


async def has_left(world: World) -> bool:
    return await world.metric("finetune_gateway_requests_in_flight") == 0
