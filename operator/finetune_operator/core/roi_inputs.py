"""Where the inputs of a version's return on investment come from: its training, its evaluation, an ABTest, its usage.

Each has its source in words, and where it is unknown, what would make it known.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

from finetune_operator.core.inference_cost import amount
from finetune_operator.core.roi import DAYS, VALUE_PER_ERROR_SAVED, RoiInputs
from finetune_operator.resources.abtest import ABTest, ArmStatus
from finetune_operator.resources.evaluation import Metric, MetricValue
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion

RIGHT_OR_WRONG = (Metric.ACCURACY, Metric.EXACT_MATCH, Metric.SUBSTRING_MATCH)
"""Metrics that are a share of right answers, so that the rest are errors; the first that was measured counts."""

Origin = Literal["measured", "given", "default", "unknown"]


@dataclass(frozen=True)
class Input:
    """One input: its value, and where it comes from or why it is unknown."""

    value: Decimal | None
    origin: Origin
    source: str


@dataclass(frozen=True)
class Calls:
    """What was counted of a version: calls on so many days, the first and the last one included."""

    calls: int
    days: int


@dataclass(frozen=True)
class Evidence:
    """What is known of one version; a job or a test that is gone, or that the reader may not see, is None."""

    version: ModelVersion
    job: FineTuneJob | None = None
    test: ABTest | None = None
    calls: Calls | None = None


Inputs = Mapping[str, Input]
"""By the names of `RoiInputs`."""


def measured_inputs(known: Evidence) -> dict[str, Input]:
    """All inputs, without what a person says."""
    return {
        "training_cost": _training_cost(known.job),
        **_costs_per_call(known.version),
        **(_error_rates_of_test(known.test) if known.test else _error_rates(known.version)),
        "calls_per_day": _calls_per_day(known.calls),
        "value_per_error_saved": Input(VALUE_PER_ERROR_SAVED, "default", "an assumption: say what one is worth to you"),
        "days": Input(Decimal(DAYS), "default", "a year"),
    }


def with_given(inputs: Inputs, given: Mapping[str, Decimal | None]) -> dict[str, Input]:
    """What a person says goes first; None says nothing."""
    said = {name: Input(value, "given", "as you said") for name, value in given.items() if value is not None}
    return {**inputs, **said}


def roi_inputs(inputs: Inputs) -> RoiInputs:
    return RoiInputs(**{field.name: inputs[field.name].value for field in fields(RoiInputs)})


def currencies(known: Evidence) -> tuple[str, ...]:
    """Of the measured amounts; more than one can't be added up."""
    cost = known.job.status.cost if known.job else None
    answer = known.version.status.evaluation.cost_per_answer if known.version.status.evaluation else None
    found = (cost.currency if cost and cost.spent else None, answer.currency if answer else None)
    return tuple(sorted({each for each in found if each}))


def _training_cost(job: FineTuneJob | None) -> Input:
    if job is None:
        return _unknown("the FineTuneJob that made it is gone, or you may not see it")
    cost = job.status.cost
    spent = amount(cost.spent) if cost else None
    if cost is None or spent is None:
        return _unknown("its training had no price: set prices in the chart's values")
    return Input(spent, "measured", f"FineTuneJob {job.metadata.name}, all attempts: {cost.basis or 'allocated time'}")


def _costs_per_call(version: ModelVersion) -> dict[str, Input]:
    measured = version.status.evaluation
    cost = measured.cost_per_answer if measured else None
    base, tuned = (amount(cost.base), amount(cost.fine_tuned)) if cost else (None, None)
    if measured is None or base is None or tuned is None:
        unknown = _unknown("no evaluation of the served version has a price: set spec.evaluation and prices")
        return {"base_cost_per_call": unknown, "cost_per_call": unknown}
    source = f"evaluation of {measured.time:%Y-%m-%d}: the engine's price for one answer to the same questions"
    return {
        "base_cost_per_call": Input(base, "measured", f"{source}, base model"),
        "cost_per_call": Input(tuned, "measured", f"{source}, this version"),
    }


def _error_rates(version: ModelVersion) -> dict[str, Input]:
    found = _right_or_wrong(version)
    base, tuned = (amount(found.base), amount(found.fine_tuned)) if found else (None, None)
    if found is None or base is None or tuned is None:
        names = ", ".join(RIGHT_OR_WRONG)
        unknown = _unknown(f"none of {names} was measured: add one to spec.evaluation.metrics, or name an ABTest")
        return {"base_error_rate": unknown, "error_rate": unknown}
    source = f"1 - {found.name.value} of its evaluation"
    return {
        "base_error_rate": Input(1 - base, "measured", f"{source}, base model"),
        "error_rate": Input(1 - tuned, "measured", f"{source}, this version"),
    }


def _right_or_wrong(version: ModelVersion) -> MetricValue | None:
    served = version.status.evaluation.metrics if version.status.evaluation else ()
    known = {value.name: value for value in served or _scores(version)}
    return next((known[name] for name in RIGHT_OR_WRONG if name in known), None)


def _scores(version: ModelVersion) -> tuple[MetricValue, ...]:
    return version.status.metrics.scores if version.status.metrics else ()


def _error_rates_of_test(test: ABTest) -> dict[str, Input]:
    arms = test.status.arms
    return {
        "base_error_rate": _error_rate(arms.baseline if arms else None, test.metadata.name),
        "error_rate": _error_rate(arms.candidate if arms else None, test.metadata.name),
    }


def _error_rate(arm: ArmStatus | None, test: str) -> Input:
    if arm is None or not arm.samples:
        return _unknown(f"ABTest {test} has counted no request of this arm")
    share = Decimal(arm.errors) / arm.samples
    return Input(
        share, "measured", f"ABTest {test}: {arm.errors} of {arm.samples} requests to {arm.served_name} failed"
    )


def _calls_per_day(calls: Calls | None) -> Input:
    if calls is None:
        return _unknown("no gateway has told of a call: wait for some, or say what you expect")
    source = f"{calls.calls} calls through the gateway in {calls.days} {'day' if calls.days == 1 else 'days'}"
    return Input(Decimal(calls.calls) / calls.days, "measured", source)


def _unknown(why: str) -> Input:
    return Input(None, "unknown", why)
