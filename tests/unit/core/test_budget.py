"""When a training may begin or go on by its budget."""

from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.budget import (
    BUDGET_EXCEEDED,
    ESTIMATE_OVER_BUDGET,
    MAY_EXCEED,
    OTHER_CURRENCY,
    PRICE_UNKNOWN,
    WITHIN,
    Beyond,
    Spending,
    Within,
    judged,
    spent,
)
from finetune_operator.core.cost import NoPrice, PriceBook, Rate
from finetune_operator.core.training_estimates import Range
from finetune_operator.resources.cost import Budget

HOUR = 3600
RATE = Rate(Decimal("3.60"), "allocated time x 1 nvidia.com/gpu x 3.60 USD per hour")
"""A tenth of a cent a second."""
PRICES = PriceBook(per_hour={"nvidia.com/gpu": Decimal("3.60")})


def estimated(least: str, most: str) -> Range:
    return Range(Decimal(least), Decimal(most))


@dataclass(frozen=True)
class Case:
    reason: str
    spending: Spending
    seconds_left: int | None = None
    remedy: str = ""
    """Of a refusal."""
    rate: Rate | NoPrice = RATE
    budget: Budget = field(default_factory=lambda: Budget(max_cost="3.60"))


CASES = {
    "nothing is spent yet": Case(WITHIN, Spending(0, 0)),
    "an hour of one pod": Case(WITHIN, Spending(0, 1), 3600),
    "half of it is spent": Case(WITHIN, Spending(1800, 1), 1800),
    "two pods spend twice as fast": Case(WITHIN, Spending(1800, 2), 900),
    "a pod that is gone spends nothing": Case(WITHIN, Spending(1800, 0)),
    "a second is left": Case(WITHIN, Spending(3599, 1), 1),
    "less than a second is left": Case(WITHIN, Spending(3599, 4), 1),
    "exactly spent": Case(BUDGET_EXCEEDED, Spending(3600, 1), remedy="raise spec.budget.maxCost above"),
    "overspent": Case(BUDGET_EXCEEDED, Spending(4000, 0), remedy="set spec.cancel"),
    "an estimate within": Case(WITHIN, Spending(0, 1, estimated("1", "3.60")), 3600),
    "an estimate that may exceed it": Case(MAY_EXCEED, Spending(0, 1, estimated("3.60", "9")), 3600),
    "an estimate that does": Case(ESTIMATE_OVER_BUDGET, Spending(0, 0, estimated("3.61", "9")), remedy="fewer epochs"),
    "spent before it is estimated": Case(BUDGET_EXCEEDED, Spending(HOUR, 1, estimated("5", "9")), remedy="raise"),
    "no price": Case(PRICE_UNKNOWN, Spending(0, 0), rate=NoPrice("no price for cpu: set prices.perHour.cpu")),
    "no price, and running": Case(PRICE_UNKNOWN, Spending(60, 1), rate=NoPrice("no price for cpu: set x")),
    "another currency": Case(
        OTHER_CURRENCY, Spending(0, 0), remedy="in USD", budget=Budget(max_cost="3.60", currency="EUR")
    ),
    "a price of 0 never ends": Case(WITHIN, Spending(10**9, 1), rate=Rate(Decimal(0), "free")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_training_by_its_budget(case: Case) -> None:
    verdict = judged(case.budget, case.rate, PRICES, case.spending)
    assert verdict.reason == case.reason
    if isinstance(verdict, Within):
        assert (verdict.seconds_left, case.remedy) == (case.seconds_left, "")
    else:
        assert case.remedy in verdict.remedy
        assert case.seconds_left is None


def test_a_refusal_tells_both_amounts_and_an_unknown_price_what_to_set() -> None:
    over = judged(Budget(max_cost="25.00"), RATE, PRICES, Spending(0, 0, estimated("42.10", "60")))
    assert isinstance(over, Beyond)
    assert over.message == "the training costs 42.10 USD at the least, and its budget is 25.00 USD"
    unknown = judged(Budget(max_cost="25.00"), NoPrice('set prices.perHour."x"'), PRICES, Spending(0, 0))
    assert isinstance(unknown, Beyond)
    assert 'set prices.perHour."x"' in unknown.message


AMOUNTS = st.decimals(min_value="0.01", max_value="10000", places=2)


@given(AMOUNTS, AMOUNTS, st.integers(1, 16), st.lists(st.integers(0, 5), max_size=4))
def test_who_looks_again_when_told_never_overspends_by_more_than_the_delay(
    limit: Decimal, per_hour: Decimal, pods: int, delays: list[int]
) -> None:
    """Each look comes up to some seconds late; what nobody looks at goes on."""
    budget, rate = Budget(max_cost=f"{limit:f}"), Rate(per_hour, "time")
    seconds, last_wait = 0, 0
    for delay in (*delays, 0, 0):
        verdict = judged(budget, rate, PRICES, Spending(seconds * pods, pods))
        if isinstance(verdict, Beyond):
            break
        assert verdict.seconds_left is not None
        last_wait = delay + 1
        seconds += verdict.seconds_left + delay
    assert isinstance(judged(budget, rate, PRICES, Spending(seconds * pods, pods)), Beyond)
    assert spent(rate, (seconds - last_wait) * pods) < limit <= spent(rate, seconds * pods)
