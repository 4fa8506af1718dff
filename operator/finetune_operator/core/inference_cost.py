"""What a version's answers cost: generated tokens x the price at which its engine generates them.

That price is `costPerMillionTokens` of the version's last evaluation: what the engine's pods cost for the time in which
they generate a million tokens, at the load of the measurement. It is the cost of work, not of waiting: an engine that
idles costs the same and answers less. A provider's price is the installation's, and its calls pass no gateway, which
counts tokens. Whatever is not known is absent, with a reason, and never 0.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from finetune_operator.core.cost import NO_SHARE, NoPrice, PriceBook, hourly_rate
from finetune_operator.resources.modelversion import ModelVersion

MILLION = 1_000_000
NOT_MEASURED = "NotMeasured"
UNCOUNTED = "it answers at its provider, whose calls no gateway counts: the provider's bill has their cost"


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


def token_price(version: ModelVersion, prices: PriceBook) -> TokenPrice | NoPrice:
    """By the last evaluation of the served version, or by what its provider takes."""
    measured = version.status.evaluation
    if provided := version.spec.base_model.source.openai:
        return _provider_price(provided.model, prices)
    if measured is None:
        unknown = "its engine's speed was not measured: set spec.evaluation.metrics and spec.serving, and wait"
        return NoPrice(unknown, NOT_MEASURED)
    cost = measured.cost_per_million_tokens
    if cost is None:
        return _not_priced(version, prices)
    per_million = amount(cost.fine_tuned)
    if per_million is None:
        return NoPrice(f"status.evaluation.costPerMillionTokens is no amount: {cost.fine_tuned}")
    load = "at saturation" if measured.saturation else "at spec.evaluation.concurrency"
    when = f"{measured.time:%Y-%m-%d}"
    shown = f"{per_million:f} {cost.currency} per million"
    basis = f"generated tokens x {shown} (price of its engine's pods {load}, {when})"
    return TokenPrice(per_million, cost.currency, basis)


def _provider_price(model: str, prices: PriceBook) -> TokenPrice | NoPrice:
    per_million = prices.per_million_generated_tokens.get(model)
    if per_million is None:
        value = f'prices.perMillionGeneratedTokens."{model}"'
        return NoPrice(f"no price for answers of models trained on {model}: set {value} in the chart's values")
    shown = f"{per_million:f} {prices.currency} per million"
    return TokenPrice(per_million, prices.currency, f"generated tokens x {shown} (its provider's price)")


def _not_priced(version: ModelVersion, prices: PriceBook) -> NoPrice:
    """Of a measurement that ended without one; a price that was set since needs another."""
    serving = version.spec.serving
    if serving and serving.merged_weights:
        unknown = "merged weights and their base model answer from two engines, which were not measured for a price"
        return NoPrice(unknown, NOT_MEASURED)
    again = "measure it again by a change of spec.evaluation"
    if serving and isinstance(rate := hourly_rate(serving.resources, serving.scheduling, prices), NoPrice):
        own = "its engine asks for neither a GPU nor cpu: set spec.serving.resources.requests.cpu"
        return NoPrice(f"{own if rate.reason == NO_SHARE else rate.message}, and {again}")
    unknown = "its engine had no price, or generated nothing, when it was measured: set prices.perHour or "
    return NoPrice(f"{unknown}prices.gpuTypes in the chart's values, and {again}")


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
