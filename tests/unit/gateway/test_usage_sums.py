"""What the api is told of each version's calls and tokens: sums, which may come twice."""

import asyncio
from collections import deque
from datetime import date
from functools import partial
from typing import Any

import aiohttp
import pytest

from finetune_operator.contract.usage import UsageReport
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.outbox import ApiAway
from finetune_operator.gateway.usage import UNKNOWN, Usage
from finetune_operator.gateway.usage_sums import Sum, UsageSender
from tests.unit.gateway.clients import answer_of, chat
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import version_object
from tests.waiting import eventually

TOLD = {"prompt_tokens": 7, "completion_tokens": 42, "total_tokens": 49}
MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)
UID = version_object("plato-v1")["metadata"]["uid"]


def last_of(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The newest sum of the only version of the only reporter."""
    (reporter,) = {report["reporter"] for report in reports}
    assert reporter
    (day,) = reports[-1]["days"]
    return {name: value for name, value in day.items() if name != "day"}


async def test_each_answer_of_a_version_counts_whether_or_not_there_is_a_test(world: World) -> None:
    world.engine.usage = TOLD
    async with world.intake.running(), world.gateway(api_url=world.intake.url):
        await answer_of(world, "plato")
        for members in ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
            async with world.post(data=chat("plato", **members)) as response:
                await response.read()
        world.engine.failures = [400]
        await answer_of(world, "plato")
        world.engine.breaks = "between"
        async with world.post(data=chat("plato", stream=True)) as response:
            await response.read()
        assert await world.metric("finetune_gateway_tokens_total") == 2 * 49
        assert await world.metric("finetune_gateway_answers_without_usage_total") == 1
    assert last_of(world.intake.usage) == {
        "versionUid": UID, "calls": 3, "failed": 1, "callsWithTokens": 2, "promptTokens": 14, "completionTokens": 84
    }  # fmt: skip


def priced(body: dict[str, Any], per_million: str) -> dict[str, Any]:
    """As if measured; the price is also what its lineage shows, so that a test sees that the gateway knows it."""
    evaluation = {"id": "e", "time": "2026-11-20T12:00:00Z", "engine": "vllm-a", "examples": 10}
    cost = {"currency": "EUR", "base": "1", "fineTuned": per_million}
    body["status"] |= {"evaluation": evaluation | {"costPerMillionTokens": cost}}
    body["spec"] |= {"lineage": {"fineTuneJob": f"priced-{per_million}"}}
    return body


async def is_known(world: World, per_million: str) -> bool:
    details = (await world.models())["plato-v1"]["finetune"]
    return details["lineage"].get("fineTuneJob") == f"priced-{per_million}"


async def test_what_answers_cost_is_a_counter_at_the_price_of_the_moment(world: World) -> None:
    labels = 'currency="EUR",model="plato",namespace="finetune",served_name="plato-v1"'

    async def counted(name: str) -> list[str]:
        async with world.session.get(f"{world.url}/metrics") as response:
            return [line for line in (await response.text()).splitlines() if line.startswith(name)]

    world.engine.usage = TOLD
    async with world.intake.running(), world.gateway(api_url=world.intake.url):
        await answer_of(world, "plato")
        assert await counted("finetune_gateway_answers_cost_total") == [], "unknown is not 0"
        assert await world.metric("finetune_gateway_answers_without_price_total") == 1
        for price, total in (("1000000", 42.0), ("2000000", 126.0)):
            world.put(priced(world.version("plato-v1", promoted=1), price))
            await eventually(partial(is_known, world, price))
            await answer_of(world, "plato")
            assert await counted("finetune_gateway_answers_cost_total") == [
                f"finetune_gateway_answers_cost_total{{{labels}}} {total}"
            ]
        assert await world.metric("finetune_gateway_answers_without_price_total") == 1


async def test_without_an_api_nothing_is_kept(gateway: World) -> None:
    gateway.engine.usage = TOLD
    await answer_of(gateway, "plato")
    assert await gateway.metric("finetune_gateway_usage_total") == 0


class Days:
    """A calendar that a test turns."""

    today = MONDAY

    def __call__(self) -> date:
        return self.today


def told(sender: UsageSender, *keys: Sum) -> list[tuple[date, int, int]]:
    letter = sender.letter(deque(keys))
    assert letter.count == len(keys)
    days = UsageReport.model_validate_json(letter.body).days
    return [(each.day, each.calls, each.completion_tokens) for each in days]


async def test_a_letter_has_the_sums_of_the_moment_and_a_past_day_is_forgotten_once_it_is_told() -> None:
    days = Days()
    async with aiohttp.ClientSession() as session:
        sender = UsageSender(session, "http://api", "token", Metrics().usage, today=days)
        monday, tuesday = Sum("v1", MONDAY), Sum("v1", TUESDAY)
        sender.add("v1", Usage(1, 10))
        sender.add("v1", Usage(1, 10))
        assert told(sender, monday) == [(MONDAY, 2, 20)]
        sender.add("v1", UNKNOWN)
        # An api that was away gets the newer sum, once, though both wait.
        assert told(sender, monday, monday) == [(MONDAY, 3, 20)]
        days.today = TUESDAY
        sender.add("v1", Usage(1, 5))
        assert told(sender, monday, tuesday) == [(MONDAY, 3, 20), (TUESDAY, 1, 5)]
        assert told(sender, tuesday) == [(TUESDAY, 1, 5)]
        assert list(sender._sums) == [tuesday]


async def test_what_waits_does_not_grow_while_the_api_is_away(world: World) -> None:
    async with aiohttp.ClientSession() as session, world.intake.running():
        world.intake.usage_failures = [503] * 5
        sender = UsageSender(session, world.intake.url, "token", Metrics().usage)
        for _ in range(5):
            sender.add("v1", Usage(1, 10))
            with pytest.raises(ApiAway):
                await sender._send(5)
        sender.add("v1", Usage(1, 10))
        assert len(sender._buffer) <= 2, "one that is sent, and one that has come meanwhile"
        await sender._send(5)
        assert not sender._buffer
    assert last_of(world.intake.usage)["calls"] == 6


async def test_a_sum_without_room_is_told_once_there_is_some(world: World) -> None:
    async with aiohttp.ClientSession() as session:
        sender = UsageSender(session, world.intake.url, "token", Metrics().usage, interval_seconds=0.001)
        sender.room = 1
        sender.add("v1", Usage(1, 10))
        sender.add("v2", Usage(1, 10))
        async with world.intake.running():
            sending = asyncio.create_task(sender.run())
            await eventually(lambda: len(world.intake.usage) == 1 and not sender._buffer)
            sender.add("v2", Usage(1, 10))
            await eventually(lambda: len(world.intake.usage) == 2)
            sending.cancel()
            await asyncio.wait([sending])
    assert [(day["versionUid"], day["calls"]) for day in world.intake.usage[-1]["days"]] == [("v2", 2)]
