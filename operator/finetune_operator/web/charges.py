"""What a raw resource says of money, as the tables keep it: read so that a hundred thousand take no longer than needed.

Pure.
"""

from decimal import Decimal
from typing import Any, NamedTuple

from finetune_operator.core.inference_cost import amount
from finetune_operator.resources.finetunejob import Phase
from finetune_operator.store.mirrored_sums import MICROS

Object = dict[str, Any]
MAX_MICROS = 10**15
"""Of a larger amount, sums would go beyond what databases count with."""


class Charge(NamedTuple):
    """Named as the columns are."""

    currency: str | None = None
    amount_micros: int | None = None
    is_unpriced: bool = False
    is_over_budget: bool = False


def training_charge(body: Object) -> Charge:
    """What a FineTuneJob has spent; one that has begun without a price is told apart from one that has not begun."""
    status = body.get("status") or {}
    cost = status.get("cost") or {}
    currency, micros = cost.get("currency"), _micros(cost.get("spent"))
    is_stopped = status.get("phase") == Phase.SUSPENDED.value and any(
        condition["type"] == "WithinBudget" and condition["status"] == "False"
        for condition in status.get("conditions") or ()
    )
    if currency and micros is not None:
        return Charge(currency, micros, is_over_budget=is_stopped)
    return Charge(is_unpriced=bool(status.get("allocation")), is_over_budget=is_stopped)


def token_charge(body: Object) -> Charge:
    """What a million generated tokens of a ModelVersion cost, by the rules of `token_price`; of those that answer at a
    provider no tokens are counted."""
    if body["spec"]["baseModel"].get("source", {}).get("openai"):
        return Charge()
    evaluation = (body.get("status") or {}).get("evaluation") or {}
    cost = evaluation.get("costPerMillionTokens") or {}
    micros = _micros(cost.get("fineTuned"))
    return Charge() if micros is None else Charge(cost["currency"], micros)


def _micros(text: str | None) -> int | None:
    value = amount(text)
    if value is None or value > Decimal(MAX_MICROS) / MICROS:
        return None
    return int((value * MICROS).to_integral_value())
