"""Asking an arm over real HTTP: a gateway stand-in answers each way a gateway can."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.web.arms import GatewayArms
from finetune_operator.web.services import ArmUnavailable
from finetune_operator.web.settings import Settings
from tests.unit.web.conftest import ENVIRONMENT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ask = Callable[..., Awaitable[GatewayArms]]


def completion(model: str, content: str | None) -> dict[str, Any]:
    return {"id": "x", "model": model, "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


@pytest.fixture
async def gateway() -> AsyncIterator[Ask]:
    servers: list[TestServer] = []
    async with aiohttp.ClientSession() as session:

        async def start(handler: Handler, timeout_seconds: float = 30) -> GatewayArms:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", handler)
            server = TestServer(app)
            await server.start_server()
            servers.append(server)
            changes = {
                "FINETUNE_GATEWAY_URL": str(server.make_url("/")),
                "FINETUNE_GATEWAY_API_KEY": "gateway-key",
                "FINETUNE_COMPARISON_TIMEOUT_SECONDS": str(timeout_seconds),
            }
            return GatewayArms(session, Settings.from_environment(ENVIRONMENT | changes))

        yield start
    for server in servers:
        await server.close()


async def test_an_arm_is_asked_like_any_openai_server(gateway: Ask) -> None:
    seen: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update(await request.json(), authorization=request.headers["Authorization"])
        return web.json_response(completion("plato-v2", "An\x00swer."))

    arms = await gateway(answer)
    assert await arms.ask("plato-v2", "Why?") == "Answer."
    assert seen == {
        "model": "plato-v2",
        "messages": [{"role": "user", "content": "Why?"}],
        "temperature": 0.7,
        "max_tokens": 512,
        "authorization": "Bearer gateway-key",
    }


FAILURES: dict[str, tuple[Callable[[], web.Response], str]] = {
    "not ready": (lambda: web.Response(status=503, text="plato-v2 is not loaded"), "answered 503 .* is not loaded"),
    "another model": (lambda: web.json_response(completion("plato-v1", "x")), "answered as plato-v1"),
    "not a completion": (lambda: web.json_response({"hello": 1}), "not a chat completion"),
    "not JSON": (lambda: web.Response(text="<html>"), "not a chat completion"),
    "no choices": (lambda: web.json_response({"model": "plato-v2", "choices": []}), "no choices"),
    "endless": (lambda: web.Response(body=b"x" * 1_100_000), "larger than"),
    "redirect": (lambda: web.Response(status=302, headers={"Location": "http://elsewhere/"}), "answered 302"),
}


@pytest.mark.parametrize(("response", "message"), FAILURES.values(), ids=FAILURES)
async def test_a_bad_answer_names_the_arm_and_the_problem(
    gateway: Ask, response: Callable[[], web.Response], message: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return response()

    arms = await gateway(answer)
    with pytest.raises(ArmUnavailable, match=f"(plato-v2.*)?{message}"):
        await arms.ask("plato-v2", "Why?")


async def test_an_arm_that_is_too_slow(gateway: Ask) -> None:
    released = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    arms = await gateway(answer, 0.2)
    with pytest.raises(ArmUnavailable, match="plato-v2 did not answer: TimeoutError"):
        await arms.ask("plato-v2", "Why?")
    released.set()


async def test_a_gateway_that_is_not_there() -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"FINETUNE_GATEWAY_URL": "http://127.0.0.1:1"})
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ArmUnavailable, match="plato-v2 did not answer"):
            await GatewayArms(session, settings).ask("plato-v2", "Why?")
