"""Copies for a candidate that nobody sees: recorded for the guardrails, and never in the way of an answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import aiohttp
import pytest

from tests.unit.gateway.clients import answer_of, chat, subject_in
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import Engine, free_port
from tests.unit.resource_builders import abtest_object
from tests.waiting import eventually

TOLD = {"prompt_tokens": 7, "completion_tokens": 42, "total_tokens": 49}


@asynccontextmanager
async def shadowed(world: World, *, percent: int = 0, shadow: int = 100, **options: Any) -> AsyncIterator[Engine]:
    """plato-v1 answers, and what it answers is copied to plato-v2 in an engine of its own, which this is."""
    candidate = Engine()
    world.put(world.version("plato-v2", engine=str(candidate.port)), abtest_object(percent=percent, shadow=shadow))
    async with candidate.running(), world.intake.running(), world.gateway(api_url=world.intake.url, **options):
        yield candidate


async def recorded(world: World, count: int = 1) -> list[dict[str, Any]]:
    await eventually(lambda: len(world.intake.shadows) == count)
    return world.intake.shadows


@pytest.mark.parametrize("members", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_what_the_baseline_answers_is_also_asked_of_the_candidate_and_recorded(
    world: World, members: dict[str, Any]
) -> None:
    async with shadowed(world) as candidate:
        candidate.usage = TOLD
        async with world.post(data=chat("plato", seed=1, **members)) as response:
            assert b"plato-v2" not in await response.read()
            assert response.headers["x-finetune-arm"] == "baseline"
        (shadow,) = await recorded(world)
        await eventually(lambda: world.intake.samples)
    own = response.headers["x-request-id"]
    assert candidate.bodies == [chat("plato-v2", seed=1, **members)]
    assert candidate.requests[0].path == "/v1/chat/completions"
    assert candidate.requests[0].headers["x-request-id"] == shadow["requestId"] == f"{own}-shadow"
    assert candidate.requests[0].headers["Authorization"] == "Bearer engine-key"
    assert (shadow["arm"], shadow["servedName"], shadow["status"]) == ("candidate", "plato-v2", 200)
    assert (shadow["promptTokens"], shadow["completionTokens"]) == (7, 42)
    assert shadow["abTest"] == abtest_object()["metadata"]["uid"]
    (sample,) = world.intake.samples
    assert (sample["arm"], sample["servedName"], sample["requestId"]) == ("baseline", "plato-v1", own)


async def test_the_copy_is_sent_after_the_end_of_a_stream(world: World) -> None:
    world.engine.proceed.clear()
    async with shadowed(world) as candidate:
        async with world.post(data=chat("plato", stream=True)) as response:
            await response.content.readuntil(b"\n\n")
            assert candidate.requests == []
            world.engine.proceed.set()
            await response.read()
        await recorded(world)


async def test_a_slow_candidate_delays_nobody_and_what_is_too_much_is_dropped(world: World) -> None:
    async with shadowed(world, max_concurrent_shadows=2) as candidate:
        candidate.proceed.clear()
        for _ in range(5):
            assert (await answer_of(world, "plato"))[1]["model"] == "plato-v1"
        assert await world.metric("finetune_gateway_shadows_total") == 3
        assert await world.metric("finetune_gateway_requests_in_flight") == 0
        candidate.proceed.set()
        await recorded(world, 2)
        assert (await answer_of(world, "plato"))[0] == 200
        await recorded(world, 3)
    assert len(candidate.requests) == 3


FAILURES: dict[str, tuple[dict[str, Any], int]] = {
    "an error": ({"failures": [500] * 3}, 500),
    "an error that another attempt made good": ({"failures": [500]}, 500),
    "overload": ({"failures": [503] * 3}, 503),
    "another model's answer": ({"answers_as": "tiny"}, 502),
    "a lost connection": ({"breaks": "before"}, 502),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", FAILURES)
async def test_a_candidate_that_fails_fails_for_nobody_but_is_recorded(world: World, case: str, stream: bool) -> None:
    behaviour, status = FAILURES[case]
    async with shadowed(world) as candidate:
        for name, value in behaviour.items():
            setattr(candidate, name, deepcopy(value))
        async with world.post(data=chat("plato", stream=stream)) as response:
            await response.read()
        assert response.status == 200
        (shadow,) = await recorded(world)
    assert shadow["status"] == status


@pytest.mark.parametrize("options", [{"loaded": False}, {"engine": str(free_port())}], ids=["not loaded", "no engine"])
async def test_a_candidate_that_is_not_there_is_recorded_as_a_failure(world: World, options: dict[str, Any]) -> None:
    async with shadowed(world):
        world.put(world.version("plato-v2", **options))

        async def is_recorded() -> bool:
            assert (await answer_of(world, "plato"))[0] == 200
            return any(shadow["status"] == 503 for shadow in world.intake.shadows)

        await eventually(is_recorded)


NOT_COPIED: dict[str, dict[str, Any]] = {
    "the candidate's own subjects": {"user": subject_in("candidate")},
    "an arm that was asked for": {"arm": "baseline"},
    "a version by its own name": {"model": "plato-v1"},
    "embeddings": {"path": "/v1/embeddings"},
    "a client's mistake": {"failures": [400]},
    "what broke the baseline": {"failures": [500] * 3},
}


@pytest.mark.parametrize("case", NOT_COPIED)
async def test_what_is_not_copied(world: World, case: str) -> None:
    options = NOT_COPIED[case]
    async with shadowed(world, percent=50):
        world.engine.failures = list(options.get("failures", []))
        members = {"user": options.get("user", subject_in("baseline"))}
        headers = {"x-finetune-arm": options["arm"]} if "arm" in options else {}
        path = options.get("path", "/v1/chat/completions")
        async with world.post(path, data=chat(options.get("model", "plato"), **members), headers=headers) as response:
            await response.read()
        async with world.post(data=chat("plato", user=subject_in("baseline"))) as copied:
            own = copied.headers["x-request-id"]
        (shadow,) = await recorded(world)
    assert shadow["requestId"] == f"{own}-shadow"


async def test_without_a_share_nothing_is_copied(world: World) -> None:
    async with shadowed(world, percent=50, shadow=0) as candidate:
        await answer_of(world, "plato", user=subject_in("baseline"))
        await eventually(lambda: world.intake.samples)
    assert (world.intake.shadows, candidate.requests) == ([], [])


async def test_what_a_client_did_not_wait_for_is_not_copied(world: World) -> None:
    world.engine.proceed.clear()
    async with shadowed(world) as candidate:
        async with aiohttp.ClientSession() as session:
            url = f"{world.url}/v1/chat/completions"
            async with session.post(url, data=chat("plato", stream=True)) as response:
                await response.content.readuntil(b"\n\n")
        await eventually(lambda: world.engine.aborted == 1)
    assert candidate.requests == []


async def test_a_stop_does_not_wait_for_copies(world: World) -> None:
    async with shadowed(world) as candidate:
        candidate.proceed.clear()
        assert (await answer_of(world, "plato"))[0] == 200
        await eventually(lambda: candidate.requests)
        world.stop.set()
        assert world.process
        await world.process
        await eventually(lambda: candidate.aborted == 1)
    assert world.intake.shadows == []
    assert [json.loads(body)["model"] for body in candidate.bodies] == ["plato-v2"]
