"""What is known of one version, or of its base model, as numbers that can be compared. Pure; None is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from finetune_operator.core.served_size import served_bytes
from finetune_operator.resources.evaluation import Comparison, MemoryOf, ServedEvaluationStatus
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.web.job_views import number

BYTES_PER_MEGABYTE = 1e6


@dataclass(frozen=True)
class Money:
    """An amount; those of other currencies can't be compared with it."""

    amount: float
    currency: str


@dataclass(frozen=True)
class Memory:
    """What one pod of an engine took; that of accelerators can't be compared with a container's."""

    gigabytes: float
    of: MemoryOf


class _Measured(TypedDict, total=False):
    """Those of `Figures` that are measured on the engine."""

    tokens_per_second: float | None
    seconds_to_first_token: float | None
    latency_seconds: float | None
    p95_latency_seconds: float | None
    requests_per_second: float | None
    memory: Memory | None
    cost_per_million_tokens: Money | None
    cost_per_answer: Money | None


@dataclass(frozen=True)
class Figures:
    """One side of a comparison."""

    title: str
    is_base: bool = False
    elo: int | None = None
    ratings: int = 0
    gold_star_rate: float | None = None
    average_rating: float | None = None
    rating_deviation: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    """By metric, from 0 to 1."""
    test_loss: float | None = None
    dataset_digest: str | None = None
    """Of the data whose held-out rows it was measured on."""
    tokens_per_second: float | None = None
    seconds_to_first_token: float | None = None
    latency_seconds: float | None = None
    p95_latency_seconds: float | None = None
    requests_per_second: float | None = None
    model_megabytes: float | None = None
    memory: Memory | None = None
    """What one pod of its engine took at most."""
    cost_per_million_tokens: Money | None = None
    cost_per_answer: Money | None = None


def figures_of(version: ModelVersion) -> Figures:
    """Of the version itself."""
    metrics, ratings = version.status.metrics, version.status.metrics.ratings if version.status.metrics else None
    return Figures(
        title=version.metadata.name,
        elo=metrics.elo if metrics else None,
        ratings=ratings.count if ratings else 0,
        gold_star_rate=number(ratings.gold_star_rate) if ratings else None,
        average_rating=number(ratings.average) if ratings else None,
        rating_deviation=number(ratings.standard_deviation) if ratings else None,
        scores=_scores(version, of_base=False),
        test_loss=number(metrics.test_loss) if metrics else None,
        dataset_digest=version.spec.lineage.dataset_digest,
        model_megabytes=_megabytes(version),
        **_measured(version.status.evaluation, of_base=False),
    )


def figures_of_base(version: ModelVersion) -> Figures:
    """Of the base model, as far as it was measured beside this version."""
    metrics = version.status.metrics
    return Figures(
        title=version.spec.base_model.name,
        is_base=True,
        scores=_scores(version, of_base=True),
        test_loss=number(metrics.base_test_loss) if metrics else None,
        dataset_digest=version.spec.lineage.dataset_digest,
        **_measured(version.status.evaluation, of_base=True),
    )


def _scores(version: ModelVersion, *, of_base: bool) -> dict[str, float]:
    values = version.status.metrics.scores if version.status.metrics else ()
    found = {value.name.value: number(value.base if of_base else value.fine_tuned) for value in values}
    return {name: value for name, value in found.items() if value is not None}


def _megabytes(version: ModelVersion) -> float | None:
    size = served_bytes(version)
    return None if size is None else size / BYTES_PER_MEGABYTE


def _measured(found: ServedEvaluationStatus | None, *, of_base: bool) -> _Measured:
    def of(pair: Comparison | None) -> float | None:
        return None if pair is None else number(pair.base if of_base else pair.fine_tuned)

    if found is None:
        return {}
    per_million, per_answer = found.cost_per_million_tokens, found.cost_per_answer
    taken = of(found.memory_gigabytes)
    return {
        "tokens_per_second": of(found.tokens_per_second),
        "seconds_to_first_token": of(found.mean_seconds_to_first_token),
        "latency_seconds": of(found.mean_latency_seconds),
        "p95_latency_seconds": of(found.p95_latency_seconds),
        "requests_per_second": of(found.saturation.requests_per_second) if found.saturation else None,
        "memory": Memory(taken, found.memory_gigabytes.of) if found.memory_gigabytes and taken is not None else None,
        "cost_per_million_tokens": _money(of(per_million), per_million.currency if per_million else None),
        "cost_per_answer": _money(of(per_answer), per_answer.currency if per_answer else None),
    }


def _money(amount: float | None, currency: str | None) -> Money | None:
    return None if amount is None or currency is None else Money(amount, currency)
