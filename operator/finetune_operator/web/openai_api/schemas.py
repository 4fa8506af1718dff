"""OpenAI's objects, as far as they have something to say here."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class JobError(_Object):
    """Why a training failed."""

    code: str
    message: str
    param: str | None


class OurWords(_Object):
    """The FineTuneJob behind it; the manifest only where one job is asked for."""

    namespace: str
    name: str
    phase: str | None
    message: str | None
    suspended: bool
    manifest: dict[str, JsonValue] | None = None


class FineTuningJobObject(_Object):
    """OpenAI's `fine_tuning.job`."""

    id: str
    """`ftjob-<namespace>.<name>`."""
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    """As clients ask the gateway for it."""
    organization_id: str
    """The namespace."""
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    """`queued`, too, while it is paused."""
    error: JobError | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    training_file: str
    validation_file: str | None
    result_files: list[str]
    """Once it has succeeded, the id of a file with its series: `client.files.content(...)` is CSV."""
    trained_tokens: None
    integrations: list[Any]
    metadata: dict[str, Any]
    user_provided_suffix: str
    finetune: OurWords


class FineTuningEventObject(_Object):
    """OpenAI's `fine_tuning.job.event`."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointObject(_Object):
    """OpenAI's `fine_tuning.job.checkpoint`."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    """Where it is on the volume of artifacts; the gateway answers for whole versions alone."""
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float]


class FileObject(_Object):
    """OpenAI's `file`."""

    id: str
    """`file-<namespace>.<digest of the content>`; of a training's series `ftresult-<namespace>.<name>`."""
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["processed"]
    """Each row was read before the file was taken."""
    expires_at: None
    status_details: None


class DeletedFile(_Object):
    """OpenAI's answer to a deletion."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class ModelObject(_Object):
    """OpenAI's `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class _List(_Object):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningJobs(_List):
    """The newest first."""

    data: list[FineTuningJobObject]


class FineTuningEvents(_List):
    """The newest first."""

    data: list[FineTuningEventObject]


class Checkpoints(_List):
    """The newest first."""

    data: list[CheckpointObject]


class Files(_List):
    """The newest first, unless asked otherwise."""

    data: list[FileObject]


class Models(_List):
    """Versions that the caller may see, the newest first; those that are loaded answer at the gateway."""

    data: list[ModelObject]
