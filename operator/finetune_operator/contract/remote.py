"""A training at a provider with an OpenAI-compatible fine-tuning API: what the pod is told, and what came out."""

from finetune_operator.contract.base import Message


class RemoteConfig(Message):
    """Where to train; the API key comes in `PROVIDER_KEY_VARIABLE`."""

    base_url: str
    model: str
    suffix: str
    learning_rate_multiplier: float | None = None
    usd_per_million_tokens: float | None = None
    poll_seconds: float = 10.0


class RemoteModel(Message):
    """A model that lives at its provider; `cost_usd` is null where the price or the tokens are unknown."""

    base_url: str
    model: str
    job: str
    trained_tokens: int | None = None
    cost_usd: float | None = None
