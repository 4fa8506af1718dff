"""Whether a fine-tuned model pays: what its fewer errors are worth against what it costs.

Amounts are in one currency, rates are shares from 0 to 1, and volumes are calls.

    errors saved per call  = base_error_rate - error_rate
    net value per call     = errors saved per call x value_per_error_saved - (cost_per_call - base_cost_per_call)
    calls                  = calls_per_day x days
    net value              = calls x net value per call - training_cost
    ROI                    = net value / training_cost                  (1 = the training's cost is earned once more)
    break-even             = the fewest whole calls with calls x net value per call >= training_cost
    payback, in days       = break-even calls / calls_per_day

`training_cost` is of all attempts. A net value per call of 0 or less never breaks even. What an unknown input leaves
unknown is None, and says so; nothing is taken as 0.
"""

from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, Decimal

VALUE_PER_ERROR_SAVED = Decimal(10)
DAYS = 365


@dataclass(frozen=True)
class RoiInputs:
    """What the formulas need; None is unknown. Costs and rates of `base` are of the model that it would replace."""

    training_cost: Decimal | None = None
    base_cost_per_call: Decimal | None = None
    cost_per_call: Decimal | None = None
    base_error_rate: Decimal | None = None
    error_rate: Decimal | None = None
    calls_per_day: Decimal | None = None
    value_per_error_saved: Decimal | None = VALUE_PER_ERROR_SAVED
    days: Decimal | None = Decimal(DAYS)


@dataclass(frozen=True)
class Roi:
    """The outcome; `verdict` says it in a sentence, `missing` names the inputs that are unknown.

    `break_even_calls` is None where it never breaks even (`never_breaks_even`) or where that is not known.
    """

    missing: tuple[str, ...]
    verdict: str
    errors_saved_per_call: Decimal | None = None
    extra_cost_per_call: Decimal | None = None
    net_value_per_call: Decimal | None = None
    calls: Decimal | None = None
    errors_saved: Decimal | None = None
    value_of_errors_saved: Decimal | None = None
    extra_inference_cost: Decimal | None = None
    net_value: Decimal | None = None
    roi: Decimal | None = None
    never_breaks_even: bool | None = None
    break_even_calls: int | None = None
    payback_days: Decimal | None = None


def return_on_investment(inputs: RoiInputs) -> Roi:
    """As far as the inputs are known."""
    missing = tuple(field.name for field in fields(inputs) if getattr(inputs, field.name) is None)
    training, value = inputs.training_cost, inputs.value_per_error_saved
    saved = _difference(inputs.base_error_rate, inputs.error_rate)
    extra = _difference(inputs.cost_per_call, inputs.base_cost_per_call)
    worth = _product(saved, value)
    per_call = _difference(worth, extra)
    calls = _product(inputs.calls_per_day, inputs.days)
    earned = _product(calls, per_call)
    net = _difference(earned, training)
    never = None if per_call is None or training is None else per_call <= 0 and (training > 0 or per_call < 0)
    break_even = _break_even_calls(training, per_call)
    payback = None
    if break_even is not None and (inputs.calls_per_day or break_even == 0):
        payback = Decimal(break_even) / inputs.calls_per_day if inputs.calls_per_day else Decimal(0)
    found = Roi(
        missing=missing,
        verdict="",
        errors_saved_per_call=saved,
        extra_cost_per_call=extra,
        net_value_per_call=per_call,
        calls=calls,
        errors_saved=_product(calls, saved),
        value_of_errors_saved=_product(calls, worth),
        extra_inference_cost=_product(calls, extra),
        net_value=net,
        roi=net / training if net is not None and training else None,
        never_breaks_even=never,
        break_even_calls=break_even,
        payback_days=payback,
    )
    return Roi(**{field.name: getattr(found, field.name) for field in fields(found)} | {"verdict": _verdict(found)})


def _break_even_calls(training: Decimal | None, per_call: Decimal | None) -> int | None:
    if training is None or per_call is None:
        return None
    if training <= 0:
        return 0 if per_call >= 0 else None
    return int((training / per_call).to_integral_value(ROUND_CEILING)) if per_call > 0 else None


def _verdict(found: Roi) -> str:
    if found.never_breaks_even is None:
        return f"not known without {', '.join(name.replace('_', ' ') for name in found.missing)}"
    if found.never_breaks_even:
        if found.errors_saved_per_call is not None and found.errors_saved_per_call <= 0:
            return "it never pays: it makes no fewer errors than the model it would replace"
        return "it never pays: each call costs more than its saved errors are worth"
    if found.payback_days is None:
        return f"it pays after {found.break_even_calls} calls; nobody calls it yet, so when is not known"
    return f"it pays after {found.break_even_calls} calls, in {_days(found.payback_days)}"


def _days(days: Decimal) -> str:
    return "less than a day" if days < 1 else f"{days:.1f} days"


def _difference(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else first - second


def _product(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else first * second
