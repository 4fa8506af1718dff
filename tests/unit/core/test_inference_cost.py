"""What a version's answers cost, and why that is unknown."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.core.cost import NoPrice
from finetune_operator.core.inference_cost import (
    InferenceCost,
    TokenPrice,
    amount,
    inference_cost,
    rounded,
    token_price,
)
from tests.builders import make_version

EVALUATION: dict[str, Any] = {
    "id": "e", "time": "2026-11-20T12:00:00Z", "engine": "vllm-a", "examples": 10,
    "costPerMillionTokens": {"currency": "USD", "base": "1.5", "fineTuned": "2"},
}  # fmt: skip
PRICE = TokenPrice(Decimal(2), "USD", "generated tokens x 2 USD per million")


def test_the_price_is_that_of_the_evaluation_and_says_so() -> None:
    price = token_price(make_version(1, status={"evaluation": EVALUATION}))
    where = "price of its engine's pods at spec.evaluation.concurrency, 2026-11-20"
    assert price == TokenPrice(Decimal(2), "USD", f"generated tokens x 2 USD per million ({where})")


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "not measured": ({}, "set spec.evaluation.metrics"),
    "no price": ({"evaluation": EVALUATION | {"costPerMillionTokens": None}}, "set prices.perHour"),
    "no number": (
        {"evaluation": EVALUATION | {"costPerMillionTokens": {"currency": "USD", "base": "1", "fineTuned": "inf"}}},
        "is no amount: inf",
    ),
}


@pytest.mark.parametrize(("status", "why"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_price_is_no_0_and_says_what_to_do(status: dict[str, Any], why: str) -> None:
    price = token_price(make_version(1, status=status))
    assert isinstance(price, NoPrice)
    assert why in price.message
    assert inference_cost(price, 10, 10, 10_000) == InferenceCost(unknown=price.message)


def test_the_cost_is_of_the_calls_whose_tokens_are_known() -> None:
    found = inference_cost(PRICE, calls=10, calls_with_tokens=4, tokens=2_000_000)
    assert (found.total, found.per_call, found.currency, found.unknown) == (Decimal(4), Decimal(1), "USD", None)


def test_calls_without_tokens_have_no_cost() -> None:
    found = inference_cost(PRICE, calls=10, calls_with_tokens=0, tokens=0)
    assert (found.total, found.per_call) == (None, None)
    assert "stream_options.include_usage" in (found.unknown or "")


def test_what_nobody_called_has_cost_nothing_and_no_mean() -> None:
    found = inference_cost(PRICE, 0, 0, 0)
    assert (found.total, found.per_call, found.unknown) == (Decimal(0), None, "nobody has called it yet")


@pytest.mark.parametrize(("text", "value"), [("1.5", "1.5"), (None, None), ("NaN", None), ("-1", None), ("x", None)])
def test_an_amount(text: str | None, value: str | None) -> None:
    assert amount(text) == (None if value is None else Decimal(value))


@pytest.mark.parametrize(("value", "shown"), [("12.345", "12.35"), ("0.0000123", "0.000012"), ("-2.005", "-2.01")])
def test_rounded(value: str, shown: str) -> None:
    assert rounded(Decimal(value)) == Decimal(shown)
