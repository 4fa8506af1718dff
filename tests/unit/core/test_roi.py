"""Whether a fine-tuned model pays."""

from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.roi import Roi, RoiInputs, return_on_investment

PAYS = RoiInputs(
    training_cost=Decimal(500),
    base_cost_per_call=Decimal("0.001"),
    cost_per_call=Decimal("0.003"),
    base_error_rate=Decimal("0.10"),
    error_rate=Decimal("0.04"),
    calls_per_day=Decimal(100),
    days=Decimal(30),
)
"""Each call saves 0.06 errors at 10, for 0.002 more: 0.598."""


def of(**changes: str | None) -> RoiInputs:
    return replace(PAYS, **{name: None if value is None else Decimal(value) for name, value in changes.items()})


def test_all_quantities_of_one_that_pays() -> None:
    found = return_on_investment(PAYS)
    assert found == Roi(
        missing=(),
        verdict="it pays after 837 calls, in 8.4 days",
        errors_saved_per_call=Decimal("0.06"),
        extra_cost_per_call=Decimal("0.002"),
        net_value_per_call=Decimal("0.598"),
        calls=Decimal(3000),
        errors_saved=Decimal(180),
        value_of_errors_saved=Decimal(1800),
        extra_inference_cost=Decimal(6),
        net_value=Decimal(1294),
        roi=Decimal("2.588"),
        never_breaks_even=False,
        break_even_calls=837,
        payback_days=Decimal("8.37"),
    )


@dataclass(frozen=True)
class Case:
    inputs: RoiInputs
    verdict: str
    never: bool | None = False
    calls: int | None = None
    days: str | None = None
    roi: str | None = None
    missing: tuple[str, ...] = ()


NEVER_FEWER = "it never pays: it makes no fewer errors than the model it would replace"
CASES = {
    "a cheaper one of the same quality pays by its answers": Case(
        of(error_rate="0.10", cost_per_call="0.0005"), "in 10000.0 days", calls=1_000_000, days="10000", roi="-0.997"
    ),
    "one of the same quality and cost never does": Case(
        of(error_rate="0.10", cost_per_call="0.001"), NEVER_FEWER, never=True, roi="-1"
    ),
    "one that makes more errors never does": Case(of(error_rate="0.2"), NEVER_FEWER, never=True, roi="-7.012"),
    "one whose answers cost more than they are worth never does": Case(
        of(value_per_error_saved="0.01"), "costs more than its saved errors", never=True, roi="-1.0084"
    ),
    "a free training pays at once": Case(of(training_cost="0"), "after 0 calls", calls=0, days="0"),
    "a free training that makes it worse never pays": Case(
        of(training_cost="0", error_rate="0.2"), NEVER_FEWER, never=True
    ),
    "nobody calls it": Case(of(calls_per_day="0"), "nobody calls it yet", calls=837, roi="-1"),
    "how often it is called is not known": Case(
        of(calls_per_day=None), "when is not known", calls=837, missing=("calls_per_day",)
    ),
    "a value of 0": Case(of(value_per_error_saved="0"), "costs more than", never=True, roi="-1.012"),
    "no days": Case(of(days="0"), "in 8.4 days", calls=837, days="8.37", roi="-1"),
    "break-even on the dot": Case(
        of(training_cost="598"), "after 1000 calls", calls=1000, days="10", roi="2"
    ),
    "within a day": Case(of(calls_per_day="100000"), "in less than a day", calls=837, days="0.00837", roi="3587"),
    "an unknown training": Case(of(training_cost=None), "without training cost", None, missing=("training_cost",)),
    "unknown answers": Case(
        of(cost_per_call=None, base_cost_per_call=None), "not known without base cost per call, cost per call", None,
        missing=("base_cost_per_call", "cost_per_call"),
    ),
    "an unknown error rate": Case(of(error_rate=None), "not known without error rate", None, missing=("error_rate",)),
    "nothing is known": Case(
        RoiInputs(), "not known without training cost, base cost per call", None,
        missing=(
            "training_cost", "base_cost_per_call", "cost_per_call", "base_error_rate", "error_rate", "calls_per_day"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_return_on_investment(case: Case) -> None:
    found = return_on_investment(case.inputs)
    assert case.verdict in found.verdict
    assert (found.never_breaks_even, found.break_even_calls, found.missing) == (case.never, case.calls, case.missing)
    assert found.payback_days == (None if case.days is None else Decimal(case.days))
    assert found.roi == (None if case.roi is None else Decimal(case.roi))


def test_an_unknown_input_leaves_the_rest_known() -> None:
    """Errors saved need no price, and a net value per call no training."""
    found = return_on_investment(of(training_cost=None, cost_per_call=None))
    assert (found.errors_saved, found.value_of_errors_saved) == (Decimal(180), Decimal(1800))
    assert (found.net_value_per_call, found.net_value, found.roi) == (None, None, None)


RATES = st.decimals(0, 1, places=3)
AMOUNTS = st.decimals(0, 1000, places=4)


@given(AMOUNTS, AMOUNTS, AMOUNTS, RATES, RATES)
def test_break_even_is_the_first_call_that_pays(
    training: Decimal, base_cost: Decimal, cost: Decimal, base_rate: Decimal, rate: Decimal
) -> None:
    found = return_on_investment(RoiInputs(training, base_cost, cost, base_rate, rate, Decimal(1)))
    assert found.net_value_per_call is not None
    if found.break_even_calls is None:
        assert found.never_breaks_even
        assert found.net_value_per_call <= 0
        return
    assert found.break_even_calls * found.net_value_per_call >= training
    assert found.break_even_calls == 0 or (found.break_even_calls - 1) * found.net_value_per_call < training
