"""What the api is told of each version's calls and tokens: sums, which may come twice."""

from collections import deque
from datetime import date
from typing import Any

import aiohttp

from finetune_operator.contract.usage import UsageReport
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.usage import UNKNOWN, Usage
from finetune_operator.gateway.usage_sums import Sum, UsageSender
from tests.unit.gateway.clients import answer_of, chat
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import version_object

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
