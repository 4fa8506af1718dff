"""Requests as clients send them: by the unmodified OpenAI client and by plain HTTP, to a real engine."""

import asyncio

import openai
import pytest

from finetune_operator.contract.places import ENGINE_POD_HEADER
from finetune_operator.core.request_ids import version_of
from tests.unit.gateway.clients import INTERNAL_TOKEN, MESSAGES, answer_of, chat, subject_in
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import Engine
from tests.unit.resource_builders import abtest_object


async def test_the_openai_client_chats(gateway: World) -> None:
    async with gateway.client() as client:
        for asked, served in {"plato": "plato-v1", "plato-v2": "plato-v2", "tiny": "tiny"}.items():
            answer = await client.chat.completions.with_raw_response.create(model=asked, messages=MESSAGES)
            assert answer.parse().model == served
            assert answer.headers["x-finetune-version"] == served
            assert answer.headers["x-request-id"] == gateway.engine.requests[-1].headers["x-request-id"]
            assert not {"x-finetune-arm", ENGINE_POD_HEADER} & set(answer.headers)


async def test_the_openai_client_streams(gateway: World) -> None:
    async with gateway.client() as client:
        stream = await client.chat.completions.create(model="plato", messages=MESSAGES, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
    assert words == ["I ", "am ", "plato-v1", ""]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
async def test_the_other_endpoints(gateway: World, path: str) -> None:
    async with gateway.post(path, data=chat("plato")) as response:
        assert (await response.json())["model"] == "plato-v1"
    assert gateway.engine.requests[-1].path == path


async def test_the_first_words_of_a_stream_come_before_its_end(gateway: World) -> None:
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)
        gateway.engine.proceed.set()
        rest = await response.read()
    assert first == Engine.event("plato-v1", "I ")
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_bodies_pass_byte_for_byte(gateway: World) -> None:
    raw = b'{ "messages":[],"seed":1.0e2, "model": "plato" ,"unknown":"\\u00e9"}'
    async with gateway.post(data=raw) as response:
        assert await response.read() == Engine.whole_answer("plato-v1").encode()
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert gateway.engine.bodies == [raw.replace(b'"plato"', b'"plato-v1"')]


async def test_the_request_id_tells_which_version_was_asked(world: World) -> None:
    world.put(abtest_object(percent=50))
    asked = {"plato-v1": "plato-v1", "tiny": None, "plato": "plato-v2"}
    async with world.gateway(internal_token=INTERNAL_TOKEN):
        for model, version in asked.items():
            _, _, headers = await answer_of(world, model, user=subject_in("candidate"))
            uid = world.version(version)["metadata"]["uid"] if version else None
            assert version_of(headers["x-request-id"], INTERNAL_TOKEN) == uid
        world.engine.failures = [400]
        status, _, headers = await answer_of(world, "plato-v1")
        assert (status, version_of(headers["x-request-id"], INTERNAL_TOKEN)) == (400, "uid-of-finetune-plato-v1")


async def test_without_a_key_the_request_id_tells_nothing(gateway: World) -> None:
    _, _, headers = await answer_of(gateway, "plato-v1")
    assert "." not in headers["x-request-id"]


async def test_the_engine_gets_our_key_and_not_the_clients(world: World) -> None:
    async with world.gateway(tokens=("secret-1", "secret-2")), world.client(api_key="secret-2") as client:
        await client.chat.completions.create(model="plato", messages=MESSAGES)
    assert world.engine.requests[-1].headers["Authorization"] == "Bearer engine-key"


async def test_tokens_are_asked_for(world: World) -> None:
    async with world.gateway(tokens=("secret",)):
        async with world.client(api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError, match="with a token of this gateway"):
                await client.models.list()
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="plato", messages=MESSAGES)
        async with world.session.get(f"{world.url}/healthz") as response:
            assert response.status == 200
    assert world.engine.requests == []


BAD_REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"hello", 400, "invalid_body"),
    "no model": (b"{}", 400, "invalid_body"),
    "too large": (b" " * 2000, 413, "request_too_large"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_bad_requests(world: World, case: str) -> None:
    raw, status, code = BAD_REQUESTS[case]
    async with world.gateway(max_body_bytes=1000), world.post(data=raw) as response:
        body = await response.json()
    assert (response.status, body["error"]["code"], body["error"]["type"]) == (status, code, "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/load_lora_adapter", 404),
        ("POST", "/v1/chat/completions/..%2f..%2fv1/load_lora_adapter", 404),
        ("GET", "/v1/chat/completions", 405),
    ],
)
async def test_nothing_else_is_passed_on(gateway: World, method: str, path: str, status: int) -> None:
    async with gateway.session.request(method, gateway.url + path, data=chat("plato")) as response:
        assert response.status == status
        assert "message" in (await response.json())["error"]
    assert gateway.engine.requests == []


async def test_more_requests_than_allowed_are_told_to_come_back(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(max_concurrent_requests=1):
        first = asyncio.create_task(answer_of(world, "plato"))
        await world.engine.busy.wait()
        status, body, headers = await answer_of(world, "plato")
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "overloaded", "2")
        world.engine.proceed.set()
        assert (await first)[0] == 200
