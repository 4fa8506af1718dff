"""What a version's answers cost: generated tokens x the price at which its engine generates them.

That price is `costPerMillionTokens` of the version's last evaluation: what the engine's pods cost for the time in which
they generate a million tokens, at the load of the measurement. It is the cost of work, not of waiting: an engine that
idles costs the same and answers less. Whatever is not known is absent, with a reason, and never 0.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from finetune_operator.core.cost import NoPrice
from finetune_operator.resources.modelversion import ModelVersion

MILLION = 1_000_000


@dataclass(frozen=True)
class TokenPrice:
    """Of a million generated tokens."""

    per_million: Decimal
    currency: str
    basis: str

    def of(self, completion_tokens: int) -> Decimal:
        """Exact."""
        return self.per_million * completion_tokens / MILLION


@dataclass(frozen=True)
class InferenceCost:
    """Of the calls whose tokens are known; `per_call` is their mean. Amounts that are absent have an `unknown`."""

    currency: str | None = None
    total: Decimal | None = None
    per_call: Decimal | None = None
    basis: str | None = None
    unknown: str | None = None


def token_price(version: ModelVersion) -> TokenPrice | NoPrice:
    """By the last evaluation of the served version."""
    measured = version.status.evaluation
    if version.spec.base_model.source.openai:
        return NoPrice("it answers at its provider, whose bill has the cost")
    if measured is None:
        return NoPrice("its engine's speed was not measured: set spec.evaluation.metrics and spec.serving, and wait")
    cost = measured.cost_per_million_tokens
    if cost is None:
        return NoPrice("its engine has no price, or generated nothing while it was measured: set prices.perHour or "
                       "prices.gpuTypes in the chart's values, and measure it again")  # fmt: skip
    per_million = amount(cost.fine_tuned)
    if per_million is None:
        return NoPrice(f"status.evaluation.costPerMillionTokens is no amount: {cost.fine_tuned}")
    load = "at saturation" if measured.saturation else "at spec.evaluation.concurrency"
    when = f"{measured.time:%Y-%m-%d}"
    shown = f"{per_million:f} {cost.currency} per million"
    basis = f"generated tokens x {shown} (price of its engine's pods {load}, {when})"
    return TokenPrice(per_million, cost.currency, basis)


def inference_cost(price: TokenPrice | NoPrice, calls: int, calls_with_tokens: int, tokens: int) -> InferenceCost:
    """Of so many generated tokens, which `calls_with_tokens` of all `calls` have told."""
    if isinstance(price, NoPrice):
        return InferenceCost(unknown=price.message)
    unknown: str | None
    if calls and not calls_with_tokens:
        unknown = "no engine told the tokens of these calls: ask streams with stream_options.include_usage"
        return InferenceCost(currency=price.currency, basis=price.basis, unknown=unknown)
    total = price.of(tokens)
    per_call = total / calls_with_tokens if calls_with_tokens else None
    unknown = None if calls else "nobody has called it yet"
    return InferenceCost(price.currency, total, per_call, price.basis, unknown)


def amount(text: str | None) -> Decimal | None:
    """Of a status; None for what is no finite number that is at least 0."""
    if text is None:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 else None


def rounded(value: Decimal) -> Decimal:
    """Cents of an amount from one unit on, six decimal places below: the cost of an answer is a fraction of a cent."""
    return value.quantize(Decimal("0.01") if abs(value) >= 1 else Decimal("0.000001"), ROUND_HALF_UP)
