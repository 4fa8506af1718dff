"""What an evaluation of a served version is asked for, and how an evaluation goes into the database."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.contract.base import Message, Report
from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.evaluation import Metric

VALUES_MAX = 64


class SaturationConfig(Message):
    """How an engine's limit is looked for: so long with each number of requests at once, of which so many at most."""

    step_seconds: int
    max_concurrency: int


class ServedEvaluationConfig(Message):
    """What the evaluator's pod reads: whom to ask what, and where the questions are.

    `rows_path` are the held-out rows of the job that made the version, unless a `dataset` is named. The base model is
    asked at the same engine, unless there is a `base_engine_url`.
    """

    engine_url: str
    base_engine_url: str | None = None
    base_model_name: str
    served_name: str
    metrics: tuple[Metric, ...]
    max_examples: int
    max_new_tokens: int
    concurrency: int
    rows_path: str
    dataset: DatasetConfig | None = None
    saturation: SaturationConfig | None = None


class EvaluationSource(StrEnum):
    """Who measured: the trainer after a training, or an evaluator that asked the served version."""

    TRAINING = "Training"
    SERVED = "Served"


class RecordedValue(Report):
    """One quantity, for the base model and for the version; `name` is a metric's, `metric/domain`, or a camelCase one
    with its unit."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    base: float
    fine_tuned: float


class RecordedEvaluation(Report):
    """Body of a PUT to `EVALUATION_PATH`: one evaluation of one version. The same id again replaces it."""

    source: EvaluationSource
    namespace: Annotated[str, Field(min_length=1, max_length=63)]
    model_version: Annotated[str, Field(min_length=1, max_length=253)]
    model: Annotated[str, Field(min_length=1, max_length=63)]
    base_model: Annotated[str, Field(min_length=1, max_length=128)]
    adapter_digest: Annotated[str, Field(max_length=71)] | None = None
    dataset_digest: Annotated[str, Field(max_length=71)] | None = None
    examples: Annotated[int, Field(ge=0)] | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None
    currency: Annotated[str, Field(max_length=16)] | None = None
    measured_at: datetime
    values: Annotated[tuple[RecordedValue, ...], Field(max_length=VALUES_MAX)] = ()
