"""Costs as series: summed up, bounded, and nothing where nothing is known."""

from decimal import Decimal
from typing import Any

from finetune_operator.core import cost_series as series
from finetune_operator.core.cost_series import OTHERS, CostSeries, cost_series
from tests.builders import condition, job_object, version_object

COST = {"currency": "USD", "base": "1", "fineTuned": "2.5"}


def job(spent: str | None, model: str = "plato", currency: str = "USD", **status: Any) -> dict[str, Any]:
    cost = {"currency": currency, "spent": spent} if spent else {"time": "2026-01-01T12:00:00Z"}
    return job_object({"model": model}, status={"phase": "Succeeded", "cost": cost} | status)


def version(number: int, **evaluation: Any) -> dict[str, Any]:
    return version_object(
        number, status={"engine": "vllm-a", "servedName": f"plato-v{number}", "evaluation": evaluation}
    )


def test_trainings_are_summed_up_by_model_and_currency() -> None:
    found = cost_series([job("1.50"), job("2"), job("3", currency="EUR"), job("4", "kant")], [])
    assert found.training == {
        ("finetune", "plato", "USD"): Decimal("3.50"),
        ("finetune", "plato", "EUR"): Decimal(3),
        ("finetune", "kant", "USD"): Decimal(4),
    }
    assert found.trainings == {("finetune", "Succeeded"): 4}


def test_an_unknown_cost_is_no_0_but_is_counted_where_something_was_taken() -> None:
    found = cost_series([job(None), job(None, allocation={"settledSeconds": 5}), job_object()], [version_object(1)])
    assert (found.training, found.unpriced, found.per_million_tokens) == ({}, {("finetune",): 1}, {})
    assert found.trainings[("finetune", "Queued")] == 1


def test_what_a_budget_holds_is_counted_as_long_as_it_does() -> None:
    over = [condition("WithinBudget", "False", reason="BudgetExceeded")]
    found = cost_series([job("1", phase="Suspended", conditions=over), job("1", conditions=over)], [])
    assert found.held_by_budget == {("finetune", "BudgetExceeded"): 1}


def test_a_served_version_has_its_prices() -> None:
    unserved = version_object(3, status={"evaluation": {"costPerAnswer": COST}})
    found = cost_series([], [version(1, costPerMillionTokens=COST, costPerAnswer=COST), version(2), unserved])
    assert found.per_million_tokens == found.per_answer == {("finetune", "plato-v1", "USD"): Decimal("2.5")}


def test_the_number_of_series_is_bounded_and_their_sum_is_right() -> None:
    jobs = [job(str(number + 1), f"model-{number}") for number in range(series.MAX_SERIES + 20)]
    found = cost_series(jobs, [version(number + 1, costPerAnswer=COST) for number in range(series.MAX_SERIES + 1)])
    assert len(found.training) == series.MAX_SERIES + 1
    assert found.training[("finetune", OTHERS, "USD")] == sum(range(1, 21))
    assert sum(found.training.values()) == sum(range(1, series.MAX_SERIES + 21))
    assert len(found.per_answer) == series.MAX_SERIES


def test_an_empty_cluster_has_none() -> None:
    assert cost_series([], []) == CostSeries()
