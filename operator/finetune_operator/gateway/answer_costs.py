"""What the answers of each version have cost: their generated tokens at the price of the moment."""

from typing import NamedTuple

from prometheus_client import Counter

from finetune_operator.core.cost import NoPrice, PriceBook
from finetune_operator.core.inference_cost import MILLION, token_price
from finetune_operator.gateway.usage import Usage
from finetune_operator.resources.modelversion import ModelVersion

NO_PROVIDERS = PriceBook()
"""Those that answer at a provider answer there, and not here."""


class Price(NamedTuple):
    """`per_token` is None where it is not known; the version is as it was when this was computed."""

    version: ModelVersion
    per_token: float | None
    currency: str


class AnswerCosts:
    """`cost` has no series of what is not known; `unpriced` counts the answers that it lacks."""

    def __init__(self, cost: Counter, unpriced: Counter) -> None:
        self._cost = cost
        self._unpriced = unpriced
        self._prices: dict[str, Price] = {}

    def add(self, version: ModelVersion, served_name: str, usage: Usage) -> None:
        """One whole answer."""
        if usage.completion_tokens is None:
            return
        price = self._price_of(version)
        if price.per_token is None:
            self._unpriced.labels(served_name).inc()
            return
        labels = (version.metadata.namespace, version.spec.model, served_name, price.currency)
        self._cost.labels(*labels).inc(usage.completion_tokens * price.per_token)

    def _price_of(self, version: ModelVersion) -> Price:
        """Computed once for each state of a version."""
        uid = version.metadata.uid
        known = self._prices.get(uid)
        if known and known.version is version:
            return known
        found = token_price(version, NO_PROVIDERS)
        if isinstance(found, NoPrice):
            price = Price(version, None, "")
        else:
            price = Price(version, float(found.per_million / MILLION), found.currency)
        self._prices[uid] = price
        return price
