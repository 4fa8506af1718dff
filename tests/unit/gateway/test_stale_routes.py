"""Routes that have changed between the choice of an engine and its answer: the request follows them."""

import asyncio
import json

import pytest

from finetune_operator.core.request_ids import version_of
from finetune_operator.gateway import retries
from finetune_operator.gateway.retries import UNLOADED_ATTEMPTS_MAX
from tests.unit.gateway.clients import INTERNAL_TOKEN, answer_of, chat
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import free_port
from tests.waiting import eventually


@pytest.mark.parametrize("stream", [False, True])
async def test_an_adapter_that_was_unloaded_before_the_gateway_heard_of_the_switch(
    world: World, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Another attempt at the former version would only come in a minute."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 60.0)
    async with world.gateway(internal_token=INTERNAL_TOKEN):
        world.engine.models.discard("plato-v1")
        asking = asyncio.create_task(told(world, stream=stream))
        await world.engine.busy.wait()
        world.put(world.version("plato-v2", promoted=2))
        status, version, version_uid = await asyncio.wait_for(asking, 10)
    assert (status, version, version_uid) == (200, "plato-v2", world.version("plato-v2")["metadata"]["uid"])
    assert [json.loads(body)["model"] for body in world.engine.bodies] == ["plato-v1", "plato-v2"]


async def test_an_engine_that_is_gone_before_the_gateway_heard_of_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_SECONDS", 60.0)
    world.put(world.version("plato-v1", promoted=1, engine=str(free_port())))
    async with world.gateway(retry_seconds=60.0):
        asking = asyncio.create_task(told(world))
        await eventually(lambda: has_retried(world))
        world.put(world.version("plato-v1", promoted=1))
        assert (await asyncio.wait_for(asking, 10))[:2] == (200, "plato-v1")


async def test_what_broke_one_engine_is_not_taken_to_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 1.0)
    world.engine.breaks = "before"
    async with world.gateway(internal_token=INTERNAL_TOKEN):
        asking = asyncio.create_task(told(world))
        await world.engine.busy.wait()
        world.put(world.version("plato-v2", promoted=2))
        await eventually(lambda: answers_for(world, "plato-v2"))
        world.engine.breaks = None
        assert (await asyncio.wait_for(asking, 10))[:2] == (200, "plato-v1")


async def answers_for(world: World, version: str) -> bool:
    """Whether the routes name it as the alias's."""
    models = await world.models()
    return bool(models["plato"]["root"] == version)


async def test_no_newer_routes_come(gateway: World) -> None:
    gateway.engine.models.discard("plato-v1")
    status, body, headers = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
    assert "lost the adapter" in body["error"]["message"]
    assert len(gateway.engine.requests) == UNLOADED_ATTEMPTS_MAX


async def test_newer_routes_that_lead_nowhere_are_told_by_the_next_request(gateway: World) -> None:
    gateway.engine.models.discard("plato-v1")
    asking = asyncio.create_task(answer_of(gateway, "plato-v1"))
    await gateway.engine.busy.wait()
    gateway.put(gateway.version("plato-v1", loaded=False))
    assert (await asking)[1]["error"]["code"] == "engine_unavailable"
    await eventually(lambda: is_known_as_not_ready(gateway))


async def told(world: World, *, stream: bool = False) -> tuple[int, str | None, str | None]:
    """The status, and who answered by the header and by the request's id."""
    async with world.post(data=chat("plato", stream=stream)) as response:
        text, headers = await response.text(), response.headers
        assert not stream or text.endswith("data: [DONE]\n\n")
        version_uid = version_of(headers["x-request-id"], INTERNAL_TOKEN)
        return response.status, headers.get("x-finetune-version"), version_uid


async def has_retried(world: World) -> bool:
    return await world.metric("finetune_gateway_retries_total") > 0


async def is_known_as_not_ready(world: World) -> bool:
    return bool((await answer_of(world, "plato-v1"))[1]["error"]["code"] == "model_not_ready")
