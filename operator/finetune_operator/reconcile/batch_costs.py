"""What a batch inference cost: the tokens that each model generated, times the price at which its engine does that."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.core.cost import NoPrice, PriceBook
from finetune_operator.core.inference_cost import TokenPrice, amount, token_price
from finetune_operator.reconcile.batch_needs import asked_versions, asks_base_model
from finetune_operator.reconcile.served_version import version_named
from finetune_operator.resources.batch_inference import BatchCost, BatchInference
from finetune_operator.resources.modelversion import ModelVersion

WITHOUT_RESULTS = BatchCost(
    unknown="its tokens would have come with its results: only a BatchInference that runs to its end has a cost"
)
"""Of one that failed or was cancelled after it had begun to ask."""


class Asked(NamedTuple):
    """A model in the order of the report's files, and by which version's evaluation it has its price."""

    name: str
    version: ModelVersion | None
    is_base: bool = False

    @property
    def version_uid(self) -> str | None:
        """Whose usage it is; a base model's is no version's."""
        return self.version.metadata.uid if self.version and not self.is_base else None


def asked(batch: BatchInference, report: BatchReport, versions: Sequence[ModelVersion]) -> tuple[Asked, ...]:
    """One for each file of the report."""
    found = [Asked(name, version_named(name, versions)) for name in asked_versions(batch)]
    if asks_base_model(batch):
        found.append(Asked("its base model", found[0].version, is_base=True))
    found += (Asked(file.served_name, None) for file in report.files[len(found) :])
    return tuple(found[: len(report.files)])


def batch_cost(models: Sequence[Asked], report: BatchReport, prices: PriceBook) -> BatchCost:
    """Of all models together; one that has no price, or another currency, leaves it unknown."""
    total, bases, currencies = Decimal(0), [], set()
    for model, file in zip(models, report.files, strict=True):
        price = _price(model, prices)
        if isinstance(price, NoPrice):
            return BatchCost(unknown=f"{model.name}: {price.message}")
        total += price.of(file.completion_tokens)
        currencies.add(price.currency)
        bases.append(f"{model.name}: {file.completion_tokens} {price.basis}")
    if len(currencies) != 1:
        return BatchCost(
            unknown=f"its models have prices in {' and '.join(sorted(currencies))}, which are not added up"
        )
    return BatchCost(currency=currencies.pop(), spent=f"{total.normalize():f}", basis="; ".join(bases))


def _price(model: Asked, prices: PriceBook) -> TokenPrice | NoPrice:
    if model.version is None:
        return NoPrice("the ModelVersion is gone, and with it the price of its engine")
    price = token_price(model.version, prices)
    if isinstance(price, NoPrice) or not model.is_base:
        return price
    measured = model.version.status.evaluation
    cost = measured.cost_per_million_tokens if measured else None
    per_million = amount(cost.base) if cost else None
    if cost is None or per_million is None:
        return NoPrice(
            "its speed was not measured beside the version's: measure it again by a change of spec.evaluation"
        )
    return TokenPrice(per_million, cost.currency, f"generated tokens x {per_million:f} {cost.currency} per million")
