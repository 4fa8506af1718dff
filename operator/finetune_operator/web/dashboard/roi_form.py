"""The calculator's form: what a person types, in units that people use, and back. Pure.

A field that still has what was shown in it says nothing: then the measured value counts, with its source.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from finetune_operator.core.decimals import MAX_CHARACTERS, decimal_text
from finetune_operator.web.cost_views import RoiInput
from finetune_operator.web.ids import ID_PATTERN
from finetune_operator.web.problems import Problem

HUNDRED = Decimal(100)
MOST = Decimal(10) ** 12


class FieldOf(NamedTuple):
    """One input; its unit is `money`, `%`, a word, or nothing that its label does not say."""

    name: str
    label: str
    unit: str


FIELDS = (
    FieldOf("base_error_rate", "Errors without it", "%"),
    FieldOf("error_rate", "Errors with it", "%"),
    FieldOf("value_per_error_saved", "Value of one saved", "money"),
    FieldOf("calls_per_day", "Calls a day", ""),
    FieldOf("training_cost", "Its training", "money"),
    FieldOf("base_cost_per_call", "A call without it", "money"),
    FieldOf("cost_per_call", "A call with it", "money"),
    FieldOf("days", "Reckoned over", "days"),
)
UNITS = {field.name: field.unit for field in FIELDS}
Typed = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class RoiForm(BaseModel):
    """As a browser sends it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Annotated[str, Field(max_length=317, pattern=ID_PATTERN)]
    test: Annotated[str, Field(max_length=317, pattern=f"^$|{ID_PATTERN}")] = ""
    training_cost: Typed = ""
    base_cost_per_call: Typed = ""
    cost_per_call: Typed = ""
    base_error_rate: Typed = ""
    error_rate: Typed = ""
    calls_per_day: Typed = ""
    value_per_error_saved: Typed = ""
    days: Typed = ""


def shown(inputs: Mapping[str, RoiInput]) -> dict[str, str]:
    """What each field has in it at first."""
    return {name: _text(name, known.value) for name, known in inputs.items()}


def given(form: RoiForm, inputs: Mapping[str, RoiInput]) -> dict[str, Decimal | None]:
    """What a person has changed, as the formulas take it. Raises 422 with the field to correct."""
    at_first = shown(inputs)
    typed = {field: getattr(form, field.name).strip().replace(",", ".") for field in FIELDS}
    return {field.name: _value(field, text) for field, text in typed.items() if text and text != at_first[field.name]}


def _value(field: FieldOf, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    most = HUNDRED if field.unit == "%" else MOST
    if not value.is_finite() or not 0 <= value <= most:
        raise Problem(422, "invalid-request", f"{field.label}: write a number from 0 to {most:f}, not {text}")
    return value / HUNDRED if field.unit == "%" else value


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    exact = Decimal(str(round(value, 8)))
    return decimal_text(exact * HUNDRED if UNITS[name] == "%" else exact)
