"""A training at a provider with an OpenAI-compatible fine-tuning API: what the pod is told, and what came out."""

from decimal import Decimal

from finetune_operator.contract.base import Message


class RemoteConfig(Message):
    """Where to train; the API key comes in `PROVIDER_KEY_VARIABLE`."""

    base_url: str
    model: str
    suffix: str
    learning_rate_multiplier: float | None = None
    price_per_million_tokens: Decimal | None = None
    currency: str = "USD"
    poll_seconds: float = 10.0


class RemoteModel(Message):
    """A model that lives at its provider; `cost` is null where the price or the tokens are unknown."""

    base_url: str
    model: str
    job: str
    trained_tokens: int | None = None
    cost: Decimal | None = None
    currency: str = "USD"
