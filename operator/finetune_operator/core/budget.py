"""Whether a training may begin or go on by its budget. What it has spent is time of pods x price, as in `cost`.

Before the first step counts what the preflight says that it costs at the least; from then on, what it has spent.
"""

import math
from dataclasses import dataclass
from decimal import Decimal

from finetune_operator.core.cost import SECONDS_PER_HOUR, NoPrice, PriceBook, Rate
from finetune_operator.core.training_estimates import Range, rough, shown_cost
from finetune_operator.resources.cost import Budget

PRICE_UNKNOWN = "PriceUnknown"
OTHER_CURRENCY = "OtherCurrency"
ESTIMATE_OVER_BUDGET = "EstimateOverBudget"
BUDGET_EXCEEDED = "BudgetExceeded"
MAY_EXCEED = "MayExceedBudget"
WITHIN = "WithinBudget"


@dataclass(frozen=True)
class Spending:
    """What a training has taken up: seconds of all its pods together, and how many of them run now.

    `estimate` is of the whole training, in the currency of the prices; None where it is not known, or no longer counts.
    """

    allocated_seconds: int
    running_pods: int
    estimate: Range | None = None


@dataclass(frozen=True)
class Within:
    """It may; `seconds_left` until the budget is spent if nothing changes, None where nothing is being spent."""

    reason: str
    message: str
    seconds_left: int | None


@dataclass(frozen=True)
class Beyond:
    """It may not: why, and what to change so that it goes on."""

    reason: str
    message: str
    remedy: str


def judged(budget: Budget, rate: Rate | NoPrice, prices: PriceBook, spending: Spending) -> Within | Beyond:
    """Texts have no amounts that the clock moves, since each new text is a write of the status."""
    limit = Decimal(budget.max_cost)
    shown = f"{budget.max_cost} {budget.currency}"
    if isinstance(rate, NoPrice):
        fact = f"spec.budget can't be kept while the cost is unknown: {rate.message}"
        return Beyond(PRICE_UNKNOWN, fact, "it begins as soon as there is a price, or without spec.budget")
    if budget.currency != prices.currency:
        fact = f"spec.budget is in {budget.currency}, and the installation's prices are in {prices.currency}"
        return Beyond(OTHER_CURRENCY, fact, f"set spec.budget in {prices.currency}")
    if spent(rate, spending.allocated_seconds) >= limit:
        remedy = (
            "raise spec.budget.maxCost above status.cost.spent to go on from the last checkpoint, or set spec.cancel"
        )
        return Beyond(BUDGET_EXCEEDED, f"the budget of {shown} is spent", remedy)
    estimate = spending.estimate
    if estimate and estimate.least > limit:
        fact = f"the training costs {rough(estimate.least)} {prices.currency} at the least, and its budget is {shown}"
        remedy = "raise spec.budget.maxCost, or create a job with fewer epochs, rows or a cheaper GPU"
        return Beyond(ESTIMATE_OVER_BUDGET, fact, remedy)
    left = _seconds_left(limit, rate, spending)
    if estimate and estimate.most > limit:
        cost = shown_cost(estimate, prices.currency)
        return Within(MAY_EXCEED, f"estimated at {cost}: it is stopped, with a checkpoint, once {shown} is spent", left)
    return Within(WITHIN, f"it is stopped, with a checkpoint, once {shown} is spent", left)


def spent(rate: Rate, allocated_seconds: int) -> Decimal:
    """Exact; a status has it rounded."""
    return rate.per_hour * allocated_seconds / SECONDS_PER_HOUR


def _seconds_left(limit: Decimal, rate: Rate, spending: Spending) -> int | None:
    per_hour = rate.per_hour * spending.running_pods
    if not per_hour:
        return None
    return max(1, math.ceil((limit - spent(rate, spending.allocated_seconds)) * SECONDS_PER_HOUR / per_hour))
