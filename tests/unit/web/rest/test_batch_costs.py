"""What batch inferences cost, in their own view and in the sums of the versions that they have asked."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from finetune_operator.web.batch_usage import usage_of
from tests.builders import batch_object, version_object
from tests.unit.web.rest.conftest import READER, Rest
from tests.unit.web.rest.test_batches import BATCHES
from tests.unit.web.rest.test_costs import COSTS, EVALUATION, ROI, call
from tests.unit.web.rest.test_mirroring import mirroring
from tests.waiting import eventually

COST = {"currency": "USD", "spent": "2", "basis": "plato-v1: 1000000 generated tokens x 2 USD per million"}


def ended(cost: dict[str, str], **told: Any) -> dict[str, Any]:
    """A hundred rows by plato-v1, four of which failed, and by its base model."""
    by_version = {
        "servedName": "plato-v1", "file": "results/plato-v1.jsonl", "failed": 4, "versionUid": "uid-of-plato-v1",
        "promptTokens": 5000, "completionTokens": 1_000_000,
    }  # fmt: skip
    by_base = {
        "servedName": "tiny",
        "file": "results/tiny.jsonl",
        "failed": 0,
        "promptTokens": 5,
        "completionTokens": 9,
    }
    results = {
        "uri": "volume://a/b", "rows": 100, "failed": 4, "digest": f"sha256:{'0' * 64}",
        "models": [by_version | told, by_base],
    }  # fmt: skip
    status = {"phase": "Succeeded", "completionTime": "2026-11-20T23:59:00Z", "results": results, "cost": cost}
    return batch_object(status=status)


def furnish(rest: Rest, number: int = 1) -> None:
    rest.cluster.put("modelversions", version_object(number, status={"evaluation": EVALUATION}))


async def version_cost(rest: Rest) -> dict[str, Any]:
    (found,) = [
        each for each in (await rest.get(f"{COSTS}/models", READER)).json()["models"] if each["id"].endswith("plato-v1")
    ]
    return dict(found)


def told(rest: Rest, tokens: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return bool((await version_cost(rest))["completion_tokens"] == tokens)

    return check


async def test_it_is_in_the_sums_of_its_version_once(rest: Rest) -> None:
    furnish(rest)
    rest.cluster.put("batchinferences", ended(COST))
    for _ in range(2):
        async with mirroring(rest):
            found = await version_cost(rest)
    assert (found["calls"], found["batch_calls"], found["failed"]) == (96, 96, 4)
    assert (found["completion_tokens"], found["prompt_tokens"], found["total"]) == (1_000_000, 5000, 2.0)
    assert found["calls_per_day"] is None, "a batch says nothing of what comes in a day"
    summary = (await rest.get(COSTS, READER)).json()
    assert (summary["totals"][0]["inference"], summary["calls"]) == (2.0, 96)


async def test_one_that_ends_while_the_api_looks_is_told(rest: Rest) -> None:
    furnish(rest)
    rest.cluster.put("batchinferences", batch_object(status={"phase": "Running"}))
    async with mirroring(rest):
        assert (await version_cost(rest))["completion_tokens"] == 0
        await rest.cluster.tell("batchinferences", "finetune", "answers", **ended(COST)["status"])
        await eventually(told(rest, 1_000_000))
        assert (await rest.ask("DELETE", f"{BATCHES}/answers")).status_code == 204
    assert (await version_cost(rest))["completion_tokens"] == 1_000_000, "spent is spent"


async def test_the_return_counts_a_day_s_calls_without_it(rest: Rest) -> None:
    furnish(rest)
    rest.cluster.put("batchinferences", ended(COST))
    await call(rest, "plato-v1", 10, 10, 500)
    async with mirroring(rest):
        inputs = (await rest.get(ROI, READER, version="plato-v1")).json()["inputs"]
    assert inputs["calls_per_day"]["value"] == 10


VIEWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "known": (ended(COST), {"currency": "USD", "spent": 2.0, "basis": COST["basis"], "unknown": None}),
    "unknown": (
        ended({"unknown": "plato-v1: no price for cpu: set prices.perHour.cpu"}),
        {
            "currency": None, "spent": None, "basis": None,
            "unknown": "plato-v1: no price for cpu: set prices.perHour.cpu",
        },
    ),
    "going on": (
        batch_object(status={"phase": "Running"}),
        {
            "currency": None, "spent": None, "basis": None,
            "unknown": "its tokens are told with its results, once all are there",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "cost"), VIEWS.values(), ids=VIEWS.keys())
async def test_a_batch_has_its_cost_or_a_reason(rest: Rest, body: dict[str, Any], cost: dict[str, Any]) -> None:
    rest.cluster.put("batchinferences", body)
    assert (await rest.get(f"{BATCHES}/answers", READER)).json()["cost"] == cost
    assert (await rest.get(BATCHES, READER)).json()["batches"][0]["cost"] == cost


@pytest.mark.parametrize(
    "body", [batch_object(), batch_object(status={"phase": "Running"}), ended(COST, versionUid=None)]
)
def test_nothing_is_told_of_what_has_no_sums(body: dict[str, Any]) -> None:
    assert usage_of(body) is None


async def test_one_that_is_not_understood_keeps_no_other_out(rest: Rest) -> None:
    furnish(rest)
    odd = ended(COST, failed="many")
    rest.cluster.put("batchinferences", odd | {"metadata": odd["metadata"] | {"name": "odd", "uid": "odd"}})
    rest.cluster.put("batchinferences", ended(COST))
    async with mirroring(rest):
        assert (await version_cost(rest))["calls"] == 96
