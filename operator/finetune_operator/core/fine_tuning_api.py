"""The OpenAI fine-tuning API as data: what it is asked for, and the part of its answers that we read.

Answers are read tolerantly, since compatible providers leave fields out and add their own.
Source: the API reference, https://developers.openai.com/api/reference/resources/fine_tuning, and the types of the
package openai 3.52.0, by which tests/unit/providers/openai_server.py is checked.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from finetune_operator.contract.training import TrainingConfig

Item = TypeVar("Item")

UID_KEY = "finetune_job_uid"
NAME_KEY = "finetune_job"


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Record(Answer):
    """An answer of which only the fields without a default are needed: what else can't be read counts as not said.

    A list is none: that an item can't be read must not look as if it were not there, or a job would be made twice.
    """

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_if_not_said(cls, value: object, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        try:
            return read(value)
        except ValidationError:
            field = cls.model_fields[info.field_name or ""]
            if field.is_required():
                raise
            return field.get_default(call_default_factory=True)


def _whole_seconds(value: object) -> object:
    """Providers tell times as fractions, as text, and as dates, too."""
    if isinstance(value, str):
        try:
            return round(float(value))
        except (ValueError, OverflowError):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                return value
            return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    if isinstance(value, float) and math.isfinite(value):
        return round(value)
    return value


UnixSeconds = Annotated[int, BeforeValidator(_whole_seconds), Field(ge=0, le=10**15)]


class Page(Answer, Generic[Item]):
    """One page of a list; the next begins after its last item's id."""

    data: tuple[Item, ...] = ()
    has_more: bool | None = False


class RemoteFile(Record):
    """An uploaded file."""

    id: str
    filename: str = ""
    bytes: int = 0


class JobStatus(StrEnum):
    """Where a remote job stands; a provider may know others (`paused`), which are read as running."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> "JobStatus":
        return cls.RUNNING

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class JobError(Record):
    """Why a remote job failed."""

    code: str | None = None
    message: str | None = None
    param: str | None = None


class RemoteJob(Record):
    """A training at the provider; times are Unix seconds."""

    id: str
    status: JobStatus
    model: str = ""
    fine_tuned_model: str | None = None
    training_file: str | None = None
    trained_tokens: int | None = None
    created_at: UnixSeconds = 0
    finished_at: UnixSeconds | None = None
    estimated_finish: UnixSeconds | None = None
    error: JobError | None = None
    metadata: Mapping[str, str] | None = None

    @field_validator("error", mode="before")
    @classmethod
    def _as_its_message(cls, value: object) -> object:
        return {"message": value} if isinstance(value, str) else value

    @field_validator("metadata", mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        """Without entries that are no text: ours are."""
        if not isinstance(value, Mapping):
            return value
        return {key: text for key, text in value.items() if isinstance(text, str)}


class EventData(Record):
    """Numbers of a metrics event."""

    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    full_valid_loss: float | None = None


class RemoteEvent(Record):
    """One line of a remote job's log; `created_at` is in Unix seconds."""

    id: str
    created_at: UnixSeconds = 0
    level: str = "info"
    message: str = ""
    type: str | None = None
    data: EventData | None = None


class CheckpointMetrics(Record):
    """What was measured when a checkpoint was taken."""

    full_valid_loss: float | None = None
    valid_loss: float | None = None


class RemoteCheckpoint(Record):
    """A model as it was after one of the epochs."""

    id: str
    step_number: int = 0
    metrics: CheckpointMetrics = CheckpointMetrics()


def job_request(config: TrainingConfig, training_file: str, validation_file: str | None) -> dict[str, Any]:
    """Body of `POST /fine_tuning/jobs`; its metadata says whose job this is, should its answer be lost."""
    remote, training = config.remote, config.training
    if remote is None:
        raise ValueError("not a training at a provider")
    hyperparameters: dict[str, int | float] = {"n_epochs": int(training.epochs), "batch_size": training.batch_size}
    if remote.learning_rate_multiplier is not None:
        hyperparameters["learning_rate_multiplier"] = remote.learning_rate_multiplier
    if config.method == "DPO":
        hyperparameters["beta"] = training.dpo_beta
    method = {"SFT": "supervised", "DPO": "dpo"}[config.method]
    return {
        "model": remote.model,
        "training_file": training_file,
        **({"validation_file": validation_file} if validation_file else {}),
        "suffix": remote.suffix,
        "seed": training.seed,
        "method": {"type": method, method: {"hyperparameters": hyperparameters}},
        "metadata": {UID_KEY: config.job.uid, NAME_KEY: f"{config.job.namespace}/{config.job.name}"},
    }


def file_name(job_uid: str, part: str) -> str:
    """Name of an upload, by which it is found again should its answer be lost."""
    return f"finetune-{job_uid}-{part}.jsonl"


def training_line(line: bytes, method: str) -> bytes:
    """A row of the prepared dataset as the API wants it; ours are TRL's conversational records."""
    row = json.loads(line)
    if method == "DPO":
        wanted = {
            "input": {"messages": row["prompt"]},
            "preferred_output": row["chosen"],
            "non_preferred_output": row["rejected"],
        }
    else:
        wanted = {"messages": row["messages"]}
    return json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
