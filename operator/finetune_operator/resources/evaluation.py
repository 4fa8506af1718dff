"""Evaluation: what a FineTuneJob measures on held-out rows, what came out, and what a promotion asks of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import ApiModel, Decimal, LongText, rule, rules

MAX_METRICS = 16
EVAL_LOSS = "evalLoss"


class Metric(StrEnum):
    """Scores of answers."""

    EXACT_MATCH = "ExactMatch"
    SUBSTRING_MATCH = "SubstringMatch"
    TOKEN_ACCURACY = "TokenAccuracy"  # noqa: S105 - not that kind of token
    TOKEN_F1 = "TokenF1"  # noqa: S105
    BLEU = "Bleu"
    ROUGE_1 = "Rouge1"
    ROUGE_2 = "Rouge2"
    ROUGE_L = "RougeL"
    ACCURACY = "Accuracy"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"


REQUIREMENT_PATTERN = rf"^({'|'.join(Metric)}|{EVAL_LOSS}) (<|<=|>|>=) (base|[0-9]+(\.[0-9]+)?)$"

Requirement = Annotated[str, Field(max_length=64, pattern=REQUIREMENT_PATTERN)]
Requirements = Annotated[
    tuple[Requirement, ...], Field(max_length=MAX_METRICS, json_schema_extra={"x-kubernetes-list-type": "set"})
]


class Evaluation(ApiModel):
    """What to measure on held-out rows after the training, for the base model and for the adapter on it."""

    model_config = rules(
        rule(
            "(has(self.metrics) && size(self.metrics) > 0) || (has(self.require) && size(self.require) > 0)",
            "name at least one of metrics or require",
        ),
        rule(
            "!has(self.require) || self.require.all(r, r.startsWith('evalLoss ') || "
            "(has(self.metrics) && self.metrics.exists(m, r.startsWith(m + ' '))))",
            "require names a metric that is not measured: add it to metrics",
            field_path=".require",
        ),
    )

    metrics: Annotated[
        tuple[Metric, ...], Field(max_length=MAX_METRICS, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """All from 0 to 1, higher is better. Greedy answers to the prompts are compared with the held-out ones (DPO: the
    chosen ones). ExactMatch, SubstringMatch (the reference's words in the answer) and TokenF1 (overlap of words)
    ignore case, punctuation and articles, as SQuAD does. Bleu: of the corpus, by sacrebleu. Rouge1, Rouge2, RougeL:
    mean F-measure, by rouge-score. TokenAccuracy: share of the reference's tokens that the model ranks first given
    all before them. Accuracy, Precision, Recall and F1 are for answers that are labels: the last three are averaged
    over the set of labels that the references have, each label counting the same."""
    max_examples: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Measure on the first held-out rows, at most this many: generating answers is slow."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Longest answer in tokens."""
    require: Requirements = ()
    """Conditions such as `RougeL >= 0.3`, `TokenF1 > base` or `evalLoss < base` (the loss on the held-out rows). A
    version that misses one is published and served, but not promoted unless its spec.state is Deployed."""


class VersionEvaluation(ApiModel):
    """What a promotion asks of the measured values."""

    require: Requirements = ()
    """Conditions such as `RougeL >= 0.3` or `evalLoss < base`; while one is missed, neither spec.promotion nor a won
    ABTest promotes this version. spec.state: Deployed does."""


class MetricValue(ApiModel):
    """One metric, 0 to 1."""

    name: Metric
    """Which."""
    base: Decimal
    """Of the base model's answers."""
    fine_tuned: Decimal
    """Of the answers with the adapter."""


MetricValues = Annotated[tuple[MetricValue, ...], Field(max_length=MAX_METRICS)]


class Comparison(ApiModel):
    """One quantity, for both."""

    base: Decimal
    """Of the base model."""
    fine_tuned: Decimal
    """With the adapter."""


class AnswerCost(Comparison):
    """The trainer's price for the time that one answer takes of it, in its batches."""

    currency: Annotated[str, Field(max_length=16)]
    """Of the amounts."""


class Measurements(ApiModel):
    """What was measured on the held-out rows."""

    examples: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Held-out rows that were answered."""
    metrics: MetricValues = ()
    """What was asked for."""
    mean_latency_seconds: Comparison | None = None
    """Mean time from asking to the whole answer, in the trainer's batches; an engine is faster."""
    tokens_per_second: Comparison | None = None
    """Generated tokens of all answers of a batch."""
    message: LongText | None = None
    """Why something is missing, and what to change."""


class EvaluationStatus(Measurements):
    """What was measured on the held-out rows, and what it costs to answer."""

    cost_per_answer: AnswerCost | None = None
    """What one answer costs on the trainer's resources; absent where the installation has no price for them."""


class EvaluationRecord(Measurements):
    """What was measured on the held-out rows, and the losses on them."""

    test_loss: Decimal | None = None
    """Loss with the adapter."""
    base_test_loss: Decimal | None = None
    """The base model's loss on the same rows."""


class VersionMetrics(ApiModel):
    """What is known of a version's quality."""

    test_loss: Decimal | None = None
    """Loss on the held-out rows."""
    base_test_loss: Decimal | None = None
    """The base model's loss on the same rows."""
    scores: MetricValues = ()
    """Of answers to held-out prompts."""
    win_rate: Decimal | None = None
    """Of the last ABTest that ended with this version as candidate; a tie counts half."""
