"""What the cluster of `sights` costs: trainings with and without a budget or a price, and versions that are called."""

from datetime import date
from typing import Any

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.store import usage
from tests.unit.web.dashboard.sights import HOSTILE, NAMESPACE, at, condition, job, uid_of, version
from tests.unit.web.rest.conftest import Rest

BASIS = "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour"
EVALUATION: dict[str, Any] = {
    "id": "e", "time": at(-60), "engine": "vllm-a", "examples": 200,
    "metrics": [{"name": "Accuracy", "base": "0.90", "fineTuned": "0.96"}],
    "costPerAnswer": {"currency": "USD", "base": "0.00052", "fineTuned": "0.00061"},
    "costPerMillionTokens": {"currency": "USD", "base": "1.9", "fineTuned": "1.95"},
}  # fmt: skip


def spent(amount: str, **more: str) -> dict[str, Any]:
    return {"currency": "USD", "spent": amount, "basis": BASIS} | more


def allocated(minutes: int) -> dict[str, Any]:
    return {"pods": [{"pod": "a", "start": at(-minutes), "end": at(0)}]}


async def fill(rest: Rest) -> None:
    put = rest.cluster.put
    over = condition("WithinBudget", "False", "BudgetExceeded", "the budget of 25.00 USD is spent")
    done = {"phase": "Succeeded", "cost": spent("431.20"), "allocation": allocated(7187), "completionTime": at(-100)}
    put("finetunejobs", job(4, "plato-done", done))
    running = {"phase": "Training", "cost": spent("1.84", estimated="4.20"), "allocation": allocated(31)}
    put("finetunejobs", job(1, "plato-train", running, budget={"maxCost": "6.00", "currency": "USD"}))
    held = {"phase": "Suspended", "cost": spent("25.01"), "allocation": allocated(417), "conditions": [over]}
    put("finetunejobs", job(7, "plato-dear", held, budget={"maxCost": "25.00", "currency": "USD"}))
    unpriced = condition("CostKnown", "False", "NoPrice", f"no price for {HOSTILE}: set prices.perHour")
    put("finetunejobs", job(8, "plato-unpriced", {"allocation": allocated(9), "conditions": [unpriced]}))
    put("modelversions", version(2, "Deployed", evaluation=EVALUATION, promotedAt=at(-90)))
    days = [
        _day(2, 20, calls=4200, calls_with_tokens=4100, completion_tokens=1_260_000),
        _day(2, 21, calls=3900, calls_with_tokens=3900, completion_tokens=1_170_000, failed=12),
        _day(1, 21, calls=17, calls_with_tokens=17, completion_tokens=4000),
    ]
    await usage.record(rest.services.engine, UsageReport(reporter="gateway", days=tuple(days)))


async def call_again(rest: Rest, calls: int) -> None:
    """As another gateway tells it."""
    days = (_day(2, 22, calls=calls, calls_with_tokens=calls, completion_tokens=calls),)
    await usage.record(rest.services.engine, UsageReport(reporter="another", days=days))


def _day(number: int, day: int, **counts: int) -> DayOfUsage:
    return DayOfUsage(version_uid=uid_of(100 + number), day=date(2026, 11, day), **counts)


VERSION = f"{NAMESPACE}.plato-v2"
