"""Engines that fail, and clients that leave: nothing is hidden, nothing is repeated after the first byte."""

import asyncio
import json
import time

import aiohttp
import openai
import pytest

from tests.unit.gateway.clients import MESSAGES, answer_of, chat, refused_with
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import HOST, Engine, free_port
from tests.waiting import eventually


async def test_an_overloaded_engine_is_asked_again(gateway: World) -> None:
    gateway.engine.failures = [503, 503]
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"
    assert len({request.headers["x-request-id"] for request in gateway.engine.requests}) == 1
    assert len(gateway.engine.requests) == 3
    assert await gateway.metric("finetune_gateway_retries_total") == 2


async def test_three_attempts_are_enough(gateway: World) -> None:
    gateway.engine.failures = [503] * 9
    status, body, headers = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
    assert len(gateway.engine.requests) == 3


async def test_an_engine_that_has_lost_the_adapter(gateway: World) -> None:
    gateway.engine.models.discard("plato-v1")
    status, body, headers = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
    assert "lost the adapter" in body["error"]["message"]


async def test_an_engine_that_has_the_adapter_back_in_time(gateway: World) -> None:
    gateway.engine.models.discard("plato-v1")
    asking = asyncio.create_task(answer_of(gateway, "plato"))
    await gateway.engine.busy.wait()
    gateway.engine.models.add("plato-v1")
    assert (await asking)[1]["model"] == "plato-v1"


async def test_an_engine_that_does_not_exist(gateway: World) -> None:
    gateway.put(gateway.version("plato-v1", promoted=1, engine=str(free_port())))
    await eventually(lambda: refused_with(gateway, "plato", 503))
    status, body, headers = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "engine_unavailable", "2")
    assert HOST in body["error"]["message"]
    assert "x-finetune-version" not in headers


async def test_what_knows_no_path_of_an_engine_is_no_engine(gateway: World) -> None:
    """Seen once for ten minutes, on one kept connection."""
    gateway.engine.failures = [404]
    assert (await answer_of(gateway, "plato"))[1]["model"] == "plato-v1"
    first, second = (request.transport for request in gateway.engine.requests)
    assert first is not second


async def test_it_is_told_what_answered_in_place_of_an_engine(gateway: World) -> None:
    gateway.engine.failures = [404] * 9
    status, body, _ = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"]) == (503, "engine_unavailable")
    assert "told to fail" in body["error"]["message"]


async def test_a_path_that_not_every_model_has_is_the_clients_to_know(gateway: World) -> None:
    gateway.engine.failures = [404]
    async with gateway.post("/v1/embeddings", data=json.dumps({"model": "plato", "input": "Hi"})) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (404, "unsupported_path")
    assert "the engine of plato-v1 has no /v1/embeddings" in error["message"]
    assert "told to fail" in error["message"]
    assert len(gateway.engine.requests) == 1


@pytest.mark.parametrize("status", [400, 422, 429])
async def test_other_errors_of_the_engine_pass_as_they_are(gateway: World, status: int) -> None:
    gateway.engine.failures = [status]
    answered, body, headers = await answer_of(gateway, "plato")
    assert (answered, body) == (status, {"error": {"message": "told to fail"}})
    assert headers["x-finetune-version"] == "plato-v1"
    assert len(gateway.engine.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_is_asked_again(gateway: World, stream: bool) -> None:
    gateway.engine.failures = [500, 500]
    async with gateway.post(data=chat("plato", stream=stream)) as response:
        assert (response.status, "plato-v1" in await response.text()) == (200, True)
    assert len(gateway.engine.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_fails_everywhere_fails_no_more_than_three_times(gateway: World, stream: bool) -> None:
    gateway.engine.failures = [500] * 9
    status, body, headers = await answer_of(gateway, "plato", stream=stream)
    assert (status, body) == (500, {"error": {"message": "told to fail"}})
    assert headers["x-finetune-version"] == "plato-v1"
    assert len(gateway.engine.requests) == 3


async def test_a_refused_key_is_our_fault_and_not_the_clients(gateway: World) -> None:
    gateway.engine.failures = [401]
    status, body, _ = await answer_of(gateway, "plato")
    assert (status, body["error"]["code"]) == (502, "engine_failed")
    assert "VLLM_API_KEY" in body["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_another_model_is_discarded(gateway: World, stream: bool) -> None:
    gateway.engine.answers_as = "tiny"
    status, body, headers = await answer_of(gateway, "plato", stream=stream)
    assert (status, body["error"]["code"]) == (502, "wrong_model")
    assert "x-finetune-version" not in headers


async def test_a_stream_that_dies_before_its_first_event(gateway: World) -> None:
    gateway.engine.breaks = "before"
    status, body, _ = await answer_of(gateway, "plato", stream=True)
    assert (status, body["error"]["code"]) == (502, "engine_failed")
    assert len(gateway.engine.requests) == 3


async def test_a_stream_that_starts_with_an_error(gateway: World) -> None:
    gateway.engine.breaks = "error event"
    status, body, _ = await answer_of(gateway, "plato", stream=True)
    assert (status, body["error"]["message"]) == (500, "told to fail")
    assert len(gateway.engine.requests) == 3


async def test_a_stream_that_ends_before_its_first_event(gateway: World) -> None:
    gateway.engine.breaks = "no event"
    status, body, _ = await answer_of(gateway, "plato", stream=True)
    assert (status, body["error"]["code"]) == (502, "engine_failed")
    assert len(gateway.engine.requests) == 3


async def test_a_stream_that_dies_between_events_ends_with_an_error(gateway: World) -> None:
    gateway.engine.breaks = "between"
    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="plato", messages=MESSAGES, stream=True)
        words = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
        with pytest.raises(openai.APIError, match="the engine failed while answering for plato-v1"):
            await anext(stream)
    assert words == ["I ", "am ", "plato-v1"]
    assert len(gateway.engine.requests) == 1


async def test_a_stream_that_dies_within_an_event_is_cut_off(gateway: World) -> None:
    gateway.engine.breaks = "within"
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        await response.content.readuntil(b'{"half')
        gateway.engine.proceed.set()
        with pytest.raises(aiohttp.ClientError):
            await response.read()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_engine(world: World, stream: bool) -> None:
    world.engine.proceed.clear()
    async with world.gateway(answer_timeout_seconds=0.3), world.post(data=chat("plato", stream=stream)) as response:
        text = await response.text()
    assert "was silent for 0.3 s" in text
    assert response.status == (200 if stream else 504)
    world.engine.proceed.set()
    assert len(world.engine.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_noticed_by_the_engine_within_a_second(gateway: World, stream: bool) -> None:
    gateway.engine.proceed.clear()
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(leave_after_first_byte(session, gateway, stream=stream))
        await gateway.engine.busy.wait()
        if stream:
            await asking
        else:
            asking.cancel()
    left = time.monotonic()
    await eventually(lambda: gateway.engine.aborted == 1, timeout_seconds=5)
    assert time.monotonic() - left < 1
    await eventually(lambda: counted(gateway, 'status="499"'))


async def leave_after_first_byte(session: aiohttp.ClientSession, world: World, *, stream: bool) -> None:
    url = world.url + "/v1/chat/completions"
    async with session.post(url, data=chat("plato", stream=stream)) as response:
        assert await response.content.readuntil(b"\n\n") == Engine.event("plato-v1", "I ")


async def counted(world: World, label: str) -> bool:
    async with world.session.get(f"{world.url}/metrics") as response:
        return label in await response.text()


async def test_a_hundred_requests_at_once_get_what_they_asked_for(gateway: World) -> None:
    names = [("tiny", "plato-v1", "plato-v2")[n % 3] for n in range(100)]
    answers = await asyncio.gather(*(answer_of(gateway, name, stream=False) for name in names))
    assert [body["model"] for _, body, _ in answers] == names


async def test_a_client_that_reads_slowly_gets_everything(gateway: World) -> None:
    async with gateway.post(data=chat("plato", stream=True)) as response:
        received = b""
        while chunk := await response.content.read(7):
            received += chunk
    assert received.count(b"data: ") == 5
