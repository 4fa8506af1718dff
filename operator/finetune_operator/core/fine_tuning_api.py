"""The OpenAI fine-tuning API as data: what it is asked for, and the part of its answers that we read.

Answers are read tolerantly, since compatible providers leave fields out and add their own.
Source: the API reference, https://developers.openai.com/api/reference/resources/fine_tuning, and the types of the
package openai 3.52.0, by which tests/unit/providers/openai_server.py is checked.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from finetune_operator.contract.training import TrainingConfig

Item = TypeVar("Item")

UID_KEY = "finetune_job_uid"
NAME_KEY = "finetune_job"


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(Answer, Generic[Item]):
    """One page of a list; the next begins after its last item's id."""

    data: tuple[Item, ...] = ()
    has_more: bool = False


class RemoteFile(Answer):
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


class JobError(Answer):
    """Why a remote job failed."""

    code: str | None = None
    message: str | None = None
    param: str | None = None


class RemoteJob(Answer):
    """A training at the provider; times are Unix seconds."""

    id: str
    status: JobStatus
    model: str = ""
    fine_tuned_model: str | None = None
    training_file: str | None = None
    trained_tokens: int | None = None
    created_at: int = 0
    finished_at: int | None = None
    estimated_finish: int | None = None
    error: JobError | None = None
    metadata: Mapping[str, str] | None = None


class EventData(Answer):
    """Numbers of a metrics event."""

    step: int | None = None
    total_steps: int | None = None
    train_loss: float | None = None
    valid_loss: float | None = None
    full_valid_loss: float | None = None


class RemoteEvent(Answer):
    """One line of a remote job's log; `created_at` is in Unix seconds."""

    id: str
    created_at: int = 0
    level: str = "info"
    message: str = ""
    type: str | None = None
    data: EventData | None = None

    @field_validator("data", mode="wrap")
    @classmethod
    def _unless_unreadable(cls, value: object, read: ValidatorFunctionWrapHandler) -> EventData | None:
        """Providers put what they like there; a log must not end a training."""
        try:
            found: EventData | None = read(value)
        except ValidationError:
            return None
        return found


class CheckpointMetrics(Answer):
    """What was measured when a checkpoint was taken."""

    full_valid_loss: float | None = None
    valid_loss: float | None = None


class RemoteCheckpoint(Answer):
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
