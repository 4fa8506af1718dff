"""Where the inputs of a return on investment come from."""

from decimal import Decimal
from typing import Any

from finetune_operator.core.roi_inputs import (
    Calls,
    Evidence,
    Input,
    currencies,
    measured_inputs,
    roi_inputs,
    with_given,
)
from tests.builders import make_job, make_test, make_version

EVALUATION: dict[str, Any] = {
    "id": "e", "time": "2026-11-20T12:00:00Z", "engine": "vllm-a", "examples": 10,
    "metrics": [
        {"name": "RougeL", "base": "0.2", "fineTuned": "0.4"},
        {"name": "SubstringMatch", "base": "0.8", "fineTuned": "0.9"},
        {"name": "ExactMatch", "base": "0.6", "fineTuned": "0.75"},
    ],
    "costPerAnswer": {"currency": "USD", "base": "0.001", "fineTuned": "0.002"},
}  # fmt: skip
SPENT = {"cost": {"currency": "USD", "spent": "12.50", "basis": "allocated time x 1 GPU"}}
ARMS = {
    "baseline": {"servedName": "plato-v1", "samples": 200, "errors": 20},
    "candidate": {"servedName": "plato-v2", "samples": 100, "errors": 1},
}
EVALUATED = make_version(2, status={"evaluation": EVALUATION})
JOB = make_job(status=SPENT)
UNPRICED = "its training had no price: set prices in the chart's values"


def values(known: Evidence) -> dict[str, Decimal | None]:
    return {name: each.value for name, each in measured_inputs(known).items()}


def test_all_that_is_measured() -> None:
    found = values(Evidence(EVALUATED, JOB, calls=Calls(300, 3)))
    assert found == {
        "training_cost": Decimal("12.50"),
        "base_cost_per_call": Decimal("0.001"),
        "cost_per_call": Decimal("0.002"),
        "base_error_rate": Decimal("0.4"),
        "error_rate": Decimal("0.25"),
        "calls_per_day": Decimal(100),
        "value_per_error_saved": Decimal(10),
        "days": Decimal(365),
    }


def test_each_says_where_it_comes_from() -> None:
    found = measured_inputs(Evidence(EVALUATED, JOB, calls=Calls(300, 1)))
    assert found["training_cost"].source == "FineTuneJob plato-ethics, all attempts: allocated time x 1 GPU"
    assert found["error_rate"].source == "1 - ExactMatch of its evaluation, this version"
    assert found["calls_per_day"].source == "300 calls through the gateway in 1 day"
    assert (found["value_per_error_saved"].origin, found["days"].origin) == ("default", "default")


def test_a_test_tells_the_error_rates() -> None:
    found = measured_inputs(Evidence(EVALUATED, test=make_test(status={"arms": ARMS})))
    assert (found["base_error_rate"].value, found["error_rate"].value) == (Decimal("0.1"), Decimal("0.01"))
    assert found["error_rate"].source == "ABTest duel: 1 of 100 requests to plato-v2 failed"


def test_what_is_unknown_says_what_would_make_it_known() -> None:
    found = measured_inputs(Evidence(make_version(2)))
    assert {name for name, each in found.items() if each.value is None} == {
        "training_cost", "base_cost_per_call", "cost_per_call", "base_error_rate", "error_rate", "calls_per_day"
    }  # fmt: skip
    assert "add one to spec.evaluation.metrics" in found["error_rate"].source
    unpriced = measured_inputs(Evidence(EVALUATED, make_job(status={"cost": {"time": "2026-01-01T12:00:00Z"}})))
    assert unpriced["training_cost"] == Input(None, "unknown", UNPRICED)
    untested = measured_inputs(Evidence(EVALUATED, test=make_test()))
    assert untested["error_rate"].source == "ABTest duel has counted no request of this arm"


def test_what_a_person_says_goes_first() -> None:
    found = with_given(measured_inputs(Evidence(EVALUATED, JOB)), {"calls_per_day": Decimal(7), "error_rate": None})
    assert found["calls_per_day"] == Input(Decimal(7), "given", "as you said")
    assert found["error_rate"].origin == "measured"
    assert roi_inputs(found).calls_per_day == Decimal(7)


def test_currencies_are_told_apart() -> None:
    assert currencies(Evidence(EVALUATED, JOB)) == ("USD",)
    euros = make_job(status={"cost": {"currency": "EUR", "spent": "1"}})
    assert currencies(Evidence(EVALUATED, euros)) == ("EUR", "USD")
    assert currencies(Evidence(make_version(2))) == ()
