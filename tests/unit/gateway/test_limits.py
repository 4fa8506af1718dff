"""What one client may ask for, by a clock that the test turns, and as its client sees it."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.gateway import limits as module
from finetune_operator.gateway.errors import GatewayError
from finetune_operator.gateway.limits import Limiter, Limits
from tests.unit.gateway.clients import MESSAGES, answer_of, chat
from tests.unit.gateway.conftest import World
from tests.waiting import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(limiter: Limiter, client: str = "plato") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        limiter.enter(client)
    return caught.value


def ask(limiter: Limiter, client: str = "plato", tokens: int = 0) -> None:
    limiter.enter(client)
    limiter.leave(client, tokens)


def test_without_limits_nobody_is_counted() -> None:
    limiter = Limiter(Limits())
    for _ in range(10_000):
        limiter.enter("plato")


def test_a_minutes_requests_at_once_and_then_one_by_one() -> None:
    clock = Clock()
    limiter = Limiter(Limits(requests_per_minute=6), clock)
    for _ in range(6):
        ask(limiter)
    error = refused(limiter)
    assert (error.status, error.code, error.retry_after_seconds) == (429, "rate_limit_exceeded", 10)
    assert error.message == "this key may have 6 requests a minute: ask again in 10 s"
    clock.now += 9
    assert refused(limiter).retry_after_seconds == 1
    clock.now += 1
    ask(limiter)
    refused(limiter)
    ask(limiter, "another key")


def test_tokens_are_taken_when_they_are_known_and_a_debt_is_waited_for() -> None:
    clock = Clock()
    limiter = Limiter(Limits(tokens_per_minute=600), clock)
    ask(limiter, tokens=599)
    ask(limiter, tokens=61)
    error = refused(limiter)
    assert error.retry_after_seconds == 7
    assert "600 tokens a minute" in error.message
    clock.now += 7
    ask(limiter)


def test_requests_at_once() -> None:
    limiter = Limiter(Limits(concurrent_requests=2), Clock())
    limiter.enter("plato")
    limiter.enter("plato")
    assert "2 requests at once" in refused(limiter).message
    limiter.enter("another key")
    limiter.leave("plato", 0)
    limiter.enter("plato")


@given(st.lists(st.floats(0.0, 30.0), max_size=60), st.integers(1, 20))
def test_no_client_gets_more_than_its_rate_and_one_minute_ahead(pauses: list[float], rate: int) -> None:
    clock = Clock()
    limiter, got = Limiter(Limits(requests_per_minute=rate), clock), 0
    for pause in pauses:
        clock.now += pause
        with suppress(GatewayError):
            ask(limiter)
            got += 1
    assert got <= rate + sum(pauses) / 60 * rate + 1e-6


@given(st.floats(0.0, 1.0), st.integers(1, 600))
def test_who_comes_again_when_told_to_is_let_in(already: float, rate: int) -> None:
    clock = Clock()
    limiter = Limiter(Limits(requests_per_minute=rate), clock)
    for _ in range(rate):
        ask(limiter)
    clock.now += already * 60 / rate * 0.99
    clock.now += refused(limiter).retry_after_seconds or 0
    ask(limiter)


def test_many_addresses_do_not_fill_the_memory_and_a_debt_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 100)
    clock = Clock()
    limiter = Limiter(Limits(tokens_per_minute=60), clock)
    ask(limiter, "in debt", tokens=1000)
    for number in range(1000):
        clock.now += 1
        ask(limiter, f"10.0.0.{number}")
    assert len(limiter._clients) <= 101
    limiter = Limiter(Limits(tokens_per_minute=1), clock)
    ask(limiter, "in debt", tokens=1000)
    for number in range(200):
        clock.now += 1
        ask(limiter, f"10.0.0.{number}")
    refused(limiter, "in debt")


async def without_end(client: openai.AsyncOpenAI) -> None:
    """More often than once a second, at which rate the limit of the test lets it."""
    while True:
        await client.chat.completions.create(model="plato", messages=MESSAGES)


async def test_openais_client_is_told_and_comes_again(world: World) -> None:
    async with world.gateway(limits=Limits(requests_per_minute=60), tokens=("one", "two")):
        async with world.client(api_key="one") as client:
            with pytest.raises(openai.RateLimitError) as caught:
                await without_end(client)
        assert caught.value.response.headers["retry-after"] == "1"
        async with world.client(api_key="two") as other:
            await other.chat.completions.create(model="plato", messages=MESSAGES)
        async with world.client(api_key="one", max_retries=3) as patient:
            await patient.chat.completions.create(model="plato", messages=MESSAGES)


@pytest.mark.parametrize("members", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_the_tokens_of_an_answer_count_however_it_comes(world: World, members: dict[str, object]) -> None:
    world.engine.usage = {"prompt_tokens": 7, "completion_tokens": 42, "total_tokens": 49}
    async with world.gateway(limits=Limits(tokens_per_minute=2)):
        async with world.post(data=chat("plato", **members)) as response:
            await response.read()
        assert response.status == 200

        async def is_in_debt() -> bool:
            return (await answer_of(world, "plato"))[0] == 429

        await eventually(is_in_debt, 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_long_prompt_counts_also_where_nobody_tells_its_tokens(world: World, stream: bool) -> None:
    """An answer has a few events here, and the limit is far beyond them."""
    prompt = [{"role": "user", "content": "word " * 2000}]
    async with world.gateway(limits=Limits(tokens_per_minute=1000)):
        async with world.post(data=chat("plato", stream=stream)) as short:
            await short.read()
        async with world.post(data=chat("plato", stream=stream, messages=prompt)) as response:
            await response.read()
        assert (short.status, response.status) == (200, 200)

        async def is_in_debt() -> bool:
            return (await answer_of(world, "plato"))[0] == 429

        await eventually(is_in_debt, 2)


async def test_who_does_not_wait_for_the_answer_pays_for_the_prompt(world: World) -> None:
    world.engine.proceed.clear()
    prompt = [{"role": "user", "content": "word " * 2000}]
    async with world.gateway(limits=Limits(tokens_per_minute=1000)):
        with pytest.raises(asyncio.TimeoutError):
            await world.session.post(
                f"{world.url}/v1/chat/completions",
                data=chat("plato", messages=prompt),
                timeout=aiohttp.ClientTimeout(total=0.3),
            )
        world.engine.proceed.set()

        async def is_in_debt() -> bool:
            return (await answer_of(world, "plato"))[0] == 429

        await eventually(is_in_debt, 2)


async def test_streams_at_once_are_bounded_until_their_end_and_for_each_key_alone(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(limits=Limits(concurrent_requests=1), tokens=("one", "two")):

        def ask_as(token: str) -> Any:
            headers = {"Authorization": f"Bearer {token}"}
            return world.post(data=chat("plato", stream=True), headers=headers)

        async with ask_as("one") as under_way:
            await under_way.content.readuntil(b"\n\n")
            async with ask_as("one") as second:
                assert (second.status, (await second.json())["error"]["code"]) == (429, "rate_limit_exceeded")
            async with ask_as("two") as other:
                assert other.status == 200
                world.engine.proceed.set()
                await other.read()
            await under_way.read()
        async with ask_as("one") as third:
            assert third.status == 200


async def test_a_client_that_goes_away_leaves_its_place(world: World) -> None:
    world.engine.proceed.clear()
    async with world.gateway(limits=Limits(concurrent_requests=1)):
        with pytest.raises(asyncio.TimeoutError):
            await world.session.post(
                f"{world.url}/v1/chat/completions", data=chat("plato"), timeout=aiohttp.ClientTimeout(total=0.3)
            )
        world.engine.proceed.set()

        async def is_let_in() -> bool:
            return (await answer_of(world, "plato"))[0] == 200

        await eventually(is_let_in, 5)


ASIDES = {
    "the models": ("GET", "/v1/models", 200),
    "the active ones": ("GET", "/v1/models/active", 200),
    "one model": ("GET", "/v1/models/plato", 200),
    "a switch": ("POST", "/v1/models/switch", 400),
    "a load": ("POST", "/v1/models/load", 400),
}


@pytest.mark.parametrize(("method", "path", "status"), ASIDES.values(), ids=ASIDES.keys())
async def test_what_is_no_completion_has_an_allowance_and_an_id_of_its_own(
    world: World, method: str, path: str, status: int
) -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=1, concurrent_requests=2)
    anybody = {"Authorization": "Bearer anything"}
    async with world.gateway(limits=limits):
        answers = []
        for _ in range(3):
            async with world.session.request(method, world.url + path, headers=anybody) as response:
                answers.append((response.status, response.headers["x-request-id"], "Retry-After" in response.headers))
        assert [answer[0] for answer in answers] == [status, status, 429]
        assert [answer[2] for answer in answers] == [False, False, True]
        assert len({answer[1] for answer in answers}) == 3
        # Neither is used up by the other.
        async with world.post(data=chat("plato")) as response:
            assert response.status == 200


async def test_who_shows_no_token_uses_up_nobodys_changes(world: World) -> None:
    async with world.gateway(limits=Limits(requests_per_minute=2)):
        for _ in range(5):
            async with world.post("/v1/models/switch") as response:
                assert response.status == 401
        async with world.post("/v1/models/switch", headers={"Authorization": "Bearer anything"}) as response:
            assert response.status == 400, "its body is looked at"


async def test_what_is_refused_or_unknown_has_an_id_too(world: World) -> None:
    async with world.gateway(tokens=("a-token",)):
        for path in ("/v1/models", "/v1/nothing", "/v1/chat/completions"):
            async with world.post(path) as response:
                assert response.status in (401, 404, 405)
                assert response.headers["x-request-id"]
