"""Evaluation: what a FineTuneJob and a served version are measured by, what came out, and what a promotion asks."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import (
    ApiModel,
    Decimal,
    DnsSubdomain,
    LongText,
    ShortText,
    Timestamp,
    VolumeRef,
    exactly_one,
    rule,
    rules,
)
from finetune_operator.resources.dataset import DatasetFormat, ObjectRef, Ratings

MAX_METRICS = 16
MAX_DOMAINS = 10
EVAL_LOSS = "evalLoss"
EVALUATED = "Evaluated"
"""The condition that tells how far the evaluation of a served version is."""


class Metric(StrEnum):
    """Scores of answers."""

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


REQUIREMENT_PATTERN = rf"^({'|'.join(Metric)}|{EVAL_LOSS}) (<|<=|>|>=) (base|[0-9]+(\.[0-9]+)?)$"

EvaluationId = Annotated[str, Field(max_length=64, pattern=r"^[-0-9a-zA-Z]+$")]
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
    timeout_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """Longest time that measuring may take, the loading of the model included; after it the version is published
    without its metrics. An attempt that goes on after a lost pod has the whole time again, at most three times."""
    require: Requirements = ()
    """Conditions such as `RougeL >= 0.3`, `TokenF1 > base` or `evalLoss < base` (the loss on the held-out rows). A
    version that misses one is published and served, but not promoted unless its spec.state is Deployed."""


class EvaluationDataset(ApiModel):
    """Questions and the answers that they should get. Every row counts, however short."""

    model_config = rules(exactly_one("ratings", "volume", "s3"))

    ratings: Ratings | None = None
    """Export from a ratings database."""
    volume: VolumeRef | None = None
    """A JSONL or Parquet file on a volume."""
    s3: ObjectRef | None = None
    """A JSONL or Parquet file in an S3-compatible store."""
    format: DatasetFormat = DatasetFormat.CHAT_ML
    """Format of the records."""


class Saturation(ApiModel):
    """How the engine's limit is looked for: with 1, 2, 4 and so on requests at once, until twice as many bring less
    than 10 % more answers in a second."""

    step_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """How long each number is kept up; answers that have begun are waited for."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 256
    """Never more at once."""


class VersionEvaluation(ApiModel):
    """What to measure on the served version, and what a promotion asks of the measured values."""

    model_config = rules(
        rule(
            "!has(self.dataset) || (has(self.metrics) && size(self.metrics) > 0)",
            "dataset is what metrics are measured on: name at least one of metrics",
            field_path=".dataset",
        ),
        rule(
            "!has(self.saturation) || (has(self.metrics) && size(self.metrics) > 0)",
            "saturation is measured with the questions of metrics: name at least one of metrics",
            field_path=".saturation",
        ),
    )

    metrics: Annotated[
        tuple[Metric, ...], Field(max_length=MAX_METRICS, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Ask the engine, once it has this version loaded, the same questions of the version and of its base model, and
    score the answers; what each metric means is told at FineTuneJob.spec.evaluation.metrics. Latency, tokens per second
    and the cost of an answer are always measured with them. The results are in status.evaluation."""
    max_examples: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Ask at most this many questions."""
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = 256
    """Longest answer in tokens."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Questions asked at once: the engine answers more of them in a second, and each of them later."""
    timeout_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """Longest time that measuring may take, outages of the engine included."""
    dataset: EvaluationDataset | None = None
    """Questions to ask; absent, the rows that the FineTuneJob of this version held out."""
    saturation: Saturation | None = None
    """Also find out how many requests a second the engine answers at most, of the version and of its base model, asked
    the same questions over and over. While it lasts, all others wait longer for this engine. It counts towards
    timeoutSeconds. `{}` takes the defaults."""
    require: Requirements = ()
    """Conditions such as `RougeL >= 0.3` or `evalLoss < base`; while one is missed, neither spec.promotion nor a won
    ABTest promotes this version. spec.state: Deployed does. What metrics name has to be measured on the served version;
    all else is read from lineage.evaluation."""


class MetricValue(ApiModel):
    """One metric, 0 to 1."""

    name: Metric
    """Which."""
    base: Decimal
    """Of the base model's answers."""
    fine_tuned: Decimal
    """Of the answers with the adapter."""


MetricValues = Annotated[tuple[MetricValue, ...], Field(max_length=MAX_METRICS)]


class DomainValue(MetricValue):
    """One metric over the questions of one domain."""

    domain: ShortText
    """Of the ratings that were asked."""
    examples: Annotated[int, Field(ge=0, le=10_000)]
    """Questions of this domain that both answered."""


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


class EngineCost(Comparison):
    """The price of the engine's pods for the time that one answer took of them."""

    currency: Annotated[str, Field(max_length=16)]
    """Of the amounts."""


class MemoryOf(StrEnum):
    """Whose memory an engine's is."""

    ACCELERATORS = "Accelerators"
    CONTAINER = "Container"


class EngineMemoryStatus(Comparison):
    """In gigabytes."""

    of: MemoryOf
    """Accelerators: all of the pod's accelerators; of theirs the engine reserves spec.serving.gpuMemoryUtilization as
    it starts. Container: the pod's working set, where it has no accelerator."""


class SaturationStatus(ApiModel):
    """The most that all pods of the engine together gave, each model asked alone, beside whatever others asked."""

    requests_per_second: Comparison
    """Whole answers."""
    tokens_per_second: Comparison
    """Generated tokens."""
    concurrency: Comparison
    """Requests at once at which it did."""


class ServedEvaluationStatus(ApiModel):
    """What the served version and its base model answered the same engine, side by side."""

    id: EvaluationId
    """Of all that was asked for, and of what was asked; another one is measured anew."""
    time: Timestamp
    """When it was measured."""
    engine: DnsSubdomain
    """The engine that was asked."""
    examples: Annotated[int, Field(ge=0, le=10_000)]
    """Questions that both answered."""
    metrics: MetricValues = ()
    """What was asked for."""
    domains: Annotated[tuple[DomainValue, ...], Field(max_length=MAX_DOMAINS)] = ()
    """The first of spec.evaluation.metrics within each domain, where the questions have one: those of a ratings
    database, or of a file of format Instruction whose metadata has a domain. The domains with the most questions."""
    mean_latency_seconds: Comparison | None = None
    """Mean time from asking to the whole answer, at spec.evaluation.concurrency."""
    p95_latency_seconds: Comparison | None = None
    """19 of 20 answers were complete within this time."""
    mean_seconds_to_first_token: Comparison | None = None
    """Mean time from asking to the first token."""
    tokens_per_second: Comparison | None = None
    """Generated tokens of all answers by the time from the first question to the last answer."""
    cost_per_answer: EngineCost | None = None
    """Absent where the installation has no price for the engine's resources: unknown, not 0."""
    saturation: SaturationStatus | None = None
    """By spec.evaluation.saturation."""
    memory_gigabytes: EngineMemoryStatus | None = None
    """Gigabytes (10^9 bytes) that one pod of the engine took at most while each model was asked. Absent where the
    engine does not tell it, or two engines tell of unlike memory."""
    cost_per_million_tokens: EngineCost | None = None
    """The price of the engine's pods for the time in which they generate a million tokens: at saturation where that was
    measured, else at spec.evaluation.concurrency. Absent where there is no price."""
    message: LongText | None = None
    """Why something is missing, and what to change."""


class RatingMetrics(ApiModel):
    """How people rated a version's own answers, from 1 to 5 stars each; thumbs are 5 or 1."""

    count: Annotated[int, Field(ge=1)]
    """Answers that were rated."""
    average: Decimal
    """Mean rating."""
    standard_deviation: Decimal
    """Of the ratings: the smaller, the more consistent the answers; 0 if all are the same, 2 at the most."""
    gold_star_rate: Decimal
    """Share of the ratings from 4 stars on, which make an answer one to learn from."""


class VersionMetrics(ApiModel):
    """What is known of a version's quality."""

    test_loss: Decimal | None = None
    """Loss on the held-out rows."""
    base_test_loss: Decimal | None = None
    """The base model's loss on the same rows."""
    scores: MetricValues = ()
    """Of answers to held-out prompts: of the served version where they were measured on it, else of the training."""
    win_rate: Decimal | None = None
    """Of the last ABTest that ended with this version as candidate; a tie counts half."""
    elo: int | None = None
    """Strength by the votes of all ABTests of its model that have ended: 400 points more are preferred ten times as
    often, and 1500 is the mean of the versions (and the base model) that met, directly or through others."""
    model_bytes: int | None = None
    """Size of what is served: of the adapter's files (spec.artifact.sizeBytes), beside which the engine has the base
    model's weights, or of the merged weights' (spec.artifact.mergedSizeBytes)."""
    ratings: RatingMetrics | None = None
    """Of its own answers, by the feedback on their request ids; the last ones known once it is not served any more, or
    while the api is away."""
