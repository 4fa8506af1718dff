"""What a trainer is asked to measure on the held-out rows, and what it measured."""

from enum import StrEnum

from finetune_operator.contract.base import Message, Report


class Metric(StrEnum):
    """Scores of answers, all from 0 to 1; `FineTuneJob.spec.evaluation.metrics` says what each means."""

    EXACT_MATCH = "ExactMatch"
    SUBSTRING_MATCH = "SubstringMatch"
    TOKEN_ACCURACY = "TokenAccuracy"  # noqa: S105 - not that kind of token
    TOKEN_F1 = "TokenF1"  # noqa: S105 - nor this
    BLEU = "Bleu"
    ROUGE_1 = "Rouge1"
    ROUGE_2 = "Rouge2"
    ROUGE_L = "RougeL"
    ACCURACY = "Accuracy"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"


class EvaluationConfig(Message):
    """What to measure; only asked for with at least one metric."""

    metrics: tuple[Metric, ...]
    max_examples: int = 100
    max_new_tokens: int = 256
    timeout_seconds: int = 3600


class Score(Message):
    """One metric, for the base model and for the adapter on it."""

    metric: Metric
    base: float
    fine_tuned: float


class DomainScore(Message):
    """The first of the metrics that answers are scored by, over the questions of one domain."""

    domain: str
    examples: int
    metric: Metric
    base: float
    fine_tuned: float


class Speed(Message):
    """How fast one of the two answered.

    In a training, answers are made in batches: each waits for the whole of its batch, but takes up only its share of
    that time. An engine makes several at once; only it has a percentile and a time to the first token.
    """

    mean_latency_seconds: float
    seconds_per_answer: float
    tokens_per_second: float
    p95_latency_seconds: float | None = None
    mean_seconds_to_first_token: float | None = None


class Saturation(Message):
    """What an engine answered in a second, asked by so many at once: the most that it did."""

    concurrency: int
    requests_per_second: float
    tokens_per_second: float


class MemoryOf(StrEnum):
    """Whose memory an engine's is."""

    ACCELERATORS = "Accelerators"
    CONTAINER = "Container"
    """Of a pod without accelerators."""


class EngineMemory(Report):
    """What one pod of an engine takes, weights and key-value cache included. Engines may be of another release."""

    of: MemoryOf
    size_bytes: int


class EvaluationReport(Message):
    """The outcome. With `error` the training is as good as ever, but its scores are unknown.

    `left_out` counts held-out rows that ask nothing, or don't fit the model's context with their answer. `remark` says
    what could not be measured, though the rest was.
    """

    examples: int = 0
    left_out: int = 0
    remark: str | None = None
    scores: tuple[Score, ...] = ()
    domains: tuple[DomainScore, ...] = ()
    base_speed: Speed | None = None
    fine_tuned_speed: Speed | None = None
    base_saturation: Saturation | None = None
    fine_tuned_saturation: Saturation | None = None
    base_memory: EngineMemory | None = None
    """The most that was seen while the model was asked; None of an engine that does not tell."""
    fine_tuned_memory: EngineMemory | None = None
    error: str | None = None
