"""What a version's answers cost, and why that is unknown."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.core.cost import NoPrice, PriceBook
from finetune_operator.core.inference_cost import (
    InferenceCost,
    TokenPrice,
    amount,
    inference_cost,
    rounded,
    token_price,
)
from tests.builders import AT_PROVIDER, make_version

EVALUATION: dict[str, Any] = {
    "id": "e", "time": "2026-11-20T12:00:00Z", "engine": "vllm-a", "examples": 10,
    "costPerMillionTokens": {"currency": "USD", "base": "1.5", "fineTuned": "2"},
}  # fmt: skip
PRICE = TokenPrice(Decimal(2), "USD", "generated tokens x 2 USD per million")


def test_the_price_is_that_of_the_evaluation_and_says_so() -> None:
    price = token_price(make_version(1, status={"evaluation": EVALUATION}), PriceBook())
    where = "price of its engine's pods at spec.evaluation.concurrency, 2026-11-20"
    assert price == TokenPrice(Decimal(2), "USD", f"generated tokens x 2 USD per million ({where})")


UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "not measured": ({}, "set spec.evaluation.metrics"),
    "no price": (
        {"evaluation": EVALUATION | {"costPerMillionTokens": None}},
        "set spec.serving.resources.requests.cpu",
    ),
    "no number": (
        {"evaluation": EVALUATION | {"costPerMillionTokens": {"currency": "USD", "base": "1", "fineTuned": "inf"}}},
        "is no amount: inf",
    ),
}


@pytest.mark.parametrize(("status", "why"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_price_is_no_0_and_says_what_to_do(status: dict[str, Any], why: str) -> None:
    price = token_price(make_version(1, status=status), PriceBook())
    assert isinstance(price, NoPrice)
    assert why in price.message
    assert inference_cost(price, 10, 10, 10_000) == InferenceCost(unknown=price.message)


GPU = {"serving": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
UNPRICED = {"evaluation": EVALUATION | {"costPerMillionTokens": None}}


@pytest.mark.parametrize(
    ("spec", "prices", "why"),
    [
        pytest.param(GPU, {}, 'perHour."nvidia.com/gpu" in the chart\'s values, and measure it again', id="no price"),
        pytest.param(GPU, {"nvidia.com/gpu": "2"}, "had no price, or generated nothing, when it", id="priced since"),
        pytest.param({"serving": {"mergedWeights": True}}, {}, "answer from two engines", id="merged weights"),
    ],
)  # fmt: skip
def test_the_value_to_set_is_named(spec: dict[str, Any], prices: dict[str, Any], why: str) -> None:
    price = token_price(make_version(1, spec, status=UNPRICED), PriceBook(per_hour=prices))
    assert isinstance(price, NoPrice)
    assert why in price.message


def test_a_provider_has_the_price_of_the_installation() -> None:
    version = make_version(1, AT_PROVIDER)
    prices = PriceBook(currency="EUR", per_million_generated_tokens={"gpt-4.1-mini": Decimal("1.60")})
    price = token_price(version, prices)
    assert price == TokenPrice(Decimal("1.60"), "EUR", "generated tokens x 1.60 EUR per million (its provider's price)")
    unknown = token_price(version, PriceBook())
    assert isinstance(unknown, NoPrice)
    assert 'set prices.perMillionGeneratedTokens."gpt-4.1-mini" in the chart\'s values' in unknown.message


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
