"""Following the cluster, from the start to the stop: what changes counts for the next request, and for none before."""

import asyncio
import time

import aiohttp
import pytest

from tests.unit.gateway.clients import answer_of, chat
from tests.unit.gateway.conftest import World, has_metric
from tests.waiting import eventually


async def test_a_rollback_takes_effect_for_the_next_request(gateway: World) -> None:
    gateway.put(gateway.version("plato-v2", promoted=2))
    await eventually(lambda: answers_as(gateway, "plato-v2"))
    gateway.put(gateway.version("plato-v2", promoted=2, state="Ready"))
    started = time.monotonic()
    await eventually(lambda: answers_as(gateway, "plato-v1"))
    assert time.monotonic() - started < 2
    gateway.put(gateway.version("plato-v1", promoted=1, state="Deployed"), gateway.version("plato-v2", promoted=9))
    await eventually(lambda: answers_as(gateway, "plato-v1"))


async def answers_as(world: World, served: str) -> bool:
    async with world.post(data=chat("plato")) as response:
        return bool(response.headers["x-finetune-version"] == served)


async def test_a_request_in_flight_keeps_its_version_over_a_switch(gateway: World) -> None:
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        await response.content.readuntil(b"\n\n")
        gateway.put(gateway.version("plato-v2", promoted=2))
        await eventually(lambda: is_alias_of(gateway, "plato-v2"))
        gateway.engine.proceed.set()
        assert b"plato-v1" in await response.read()


async def is_alias_of(world: World, served: str) -> bool:
    return bool((await world.models())["plato"]["root"] == served)


async def test_the_api_server_may_go_away(gateway: World) -> None:
    await gateway.kubernetes.stop()
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"
    assert await gateway.ready()
    gateway.put(gateway.version("plato-v2", promoted=2))
    await gateway.kubernetes.start()
    await eventually(lambda: answers_as(gateway, "plato-v2"))


@pytest.mark.parametrize("missing", ["abtests", "modelversions"])
async def test_nothing_is_routed_before_all_is_known(world: World, missing: str) -> None:
    world.kubernetes.failing = {missing}
    async with world.gateway(wait=False):
        await eventually(lambda: refused_with_starting(world))
        assert not await world.ready()
        assert await world.models() == {}
        world.kubernetes.failing = set()
        await eventually(world.ready)
        assert (await answer_of(world, "plato"))[0] == 200


async def refused_with_starting(world: World) -> bool:
    try:
        return bool((await answer_of(world, "plato"))[1]["error"]["code"] == "starting")
    except aiohttp.ClientConnectionError:
        return False


async def test_an_unreadable_resource_keeps_its_last_form(gateway: World) -> None:
    broken = gateway.version("plato-v1", promoted=1)
    broken["spec"]["baseModel"] = "from the future"
    gateway.put(broken)
    await eventually(lambda: has_metric(gateway, "finetune_gateway_unreadable_resources", 1))
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"


async def test_a_stop_lets_requests_in_flight_finish(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(drain_delay_seconds=0.5):
        under_way = asyncio.create_task(answer_of(world, "plato"))
        await world.engine.busy.wait()
        world.stop.set()
        await eventually(lambda: is_draining(world))
        assert world.process
        assert not world.process.done()
        world.engine.proceed.set()
        assert (await under_way)[1]["model"] == "plato-v1"
        await asyncio.wait_for(world.process, 5)


async def is_draining(world: World) -> bool:
    async with world.session.get(f"{world.url}/readyz") as response:
        return response.status == 503 and await response.text() == "draining\n"
