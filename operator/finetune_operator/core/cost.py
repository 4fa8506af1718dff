"""What a training costs: the time for which its pods hold resources, times the installation's prices.

The unit of a price is an hour of one piece: one GPU, one core. Decimal throughout, since these are amounts of money.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from finetune_operator.contract.remote import RemoteModel
from finetune_operator.core.quantities import number
from finetune_operator.resources.common import ResourceRequirements, Scheduling
from finetune_operator.resources.cost import CostStatus

GPU = "nvidia.com/gpu"
GPU_TYPE_LABEL = "nvidia.com/gpu.product"
"""Set on nodes by NVIDIA's GPU feature discovery, and in a nodeSelector by whoever wants a certain type."""
CPU = "cpu"
SECONDS_PER_HOUR = 3600
NO_SHARE = "NoShare"
"""Reason of a pod that asks for nothing that could have a price."""


Price = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class PriceBook(BaseModel):
    """Prices of an hour of one piece of a resource; `gpu_types` go before the general price of a GPU.

    `per_million_tokens` is what a provider takes for training on them, `per_million_generated_tokens` for answers of
    what it has trained, by the name of the model that was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    currency: Annotated[str, Field(min_length=1, max_length=16)] = "USD"
    per_hour: Mapping[str, Price] = {}
    gpu_types: Mapping[str, Price] = {}
    per_million_tokens: Mapping[str, Price] = {}
    per_million_generated_tokens: Mapping[str, Price] = {}


def price_book(text: str) -> PriceBook:
    """From the JSON that the chart writes; a ValueError says what is wrong with it."""
    try:
        return PriceBook.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(
            f'must be JSON such as {{"currency": "USD", "perHour": {{"{GPU}": "2.50"}}, "gpuTypes": {{}}}}: {problems}'
        ) from error


@dataclass(frozen=True)
class Rate:
    """What one pod costs in an hour."""

    per_hour: Decimal
    basis: str


@dataclass(frozen=True)
class NoPrice:
    """Why the cost is unknown, and what to set; the reason is one word for programs."""

    message: str
    reason: str = "NoPrice"


def hourly_rate(resources: ResourceRequirements, scheduling: Scheduling, prices: PriceBook) -> Rate | NoPrice:
    """One pod's price: of its devices where it has any, since their price includes the machine, else of its cores."""
    amounts: dict[str, Decimal] = {}
    for name, quantity in {**resources.limits, **resources.requests}.items():
        try:
            amounts[name] = number(quantity)
        except ValueError as error:
            # The API server refuses the Job of such a spec, which is what ends the training.
            return NoPrice(f"{name}: {error}: correct spec.resources in a new job")
    devices = {name: amount for name, amount in amounts.items() if "/" in name and amount > 0}
    priced = devices or {name: amounts[name] for name in (CPU,) if amounts.get(name)}
    if not priced:
        return NoPrice("the job asks for neither a GPU nor cpu, so that its share of a node is unknown: "
                       "set spec.resources.requests.cpu in the next one", NO_SHARE)  # fmt: skip
    gpu_type = scheduling.node_selector.get(GPU_TYPE_LABEL)
    total, terms = Decimal(0), []
    for name, amount in sorted(priced.items()):
        price = _price(name, gpu_type, prices)
        if price is None:
            return NoPrice(_remedy(name, gpu_type))
        total += amount * price
        terms.append(f"{amount.normalize():f} {name} x {price:f} {prices.currency} per hour")
    return Rate(total, f"allocated time x {' + '.join(terms)}")


def provider_basis(model: str, prices: PriceBook) -> str | NoPrice:
    """By what a provider's training is counted, whatever its pod holds of the cluster meanwhile."""
    price = prices.per_million_tokens.get(model)
    if price is None:
        return NoPrice(f'no price for training {model}: set prices.perMillionTokens."{model}" in the chart\'s values')
    return f"trained tokens x {price:f} {prices.currency} per million"


def provider_cost(model: str, prices: PriceBook, remote: RemoteModel | None, now: datetime) -> CostStatus:
    """Known once the provider has told the tokens, at its end."""
    basis = provider_basis(model, prices)
    if remote is None or remote.cost is None or isinstance(basis, NoPrice):
        return CostStatus(time=now)
    spent = f"{remote.cost:f}"
    return CostStatus(currency=remote.currency, spent=spent, estimated=spent, basis=basis[:256], time=now)


def cost_status(
    rate: Rate | NoPrice, prices: PriceBook, allocated_seconds: int, remaining_seconds: int | None, now: datetime
) -> CostStatus:
    """The amounts; `remaining_seconds` are those of all pods that still run, None where the end is not known."""
    if isinstance(rate, NoPrice):
        return CostStatus(time=now)
    total_seconds = None if remaining_seconds is None else allocated_seconds + remaining_seconds
    return CostStatus(
        currency=prices.currency,
        spent=_amount(rate, allocated_seconds),
        estimated=None if total_seconds is None else _amount(rate, total_seconds),
        basis=rate.basis[:256],
        time=now,
    )


def _amount(rate: Rate, seconds: int) -> str:
    """Cents; below one unit of the currency two digits more, so that a short training is not for free."""
    exact = rate.per_hour * seconds / SECONDS_PER_HOUR
    return f"{exact.quantize(Decimal('0.01') if exact >= 1 else Decimal('0.0001'), ROUND_HALF_UP):f}"


def _price(name: str, gpu_type: str | None, prices: PriceBook) -> Decimal | None:
    special = prices.gpu_types.get(gpu_type) if name == GPU and gpu_type else None
    return prices.per_hour.get(name) if special is None else special


def _remedy(name: str, gpu_type: str | None) -> str:
    of_type = f", or prices.gpuTypes.{gpu_type}" if name == GPU and gpu_type else ""
    return f'no price for {name}: set prices.perHour."{name}"{of_type} in the chart\'s values'
