"""What REST says of a FineTuneJob. Pure; numbers that the resource has as text are numbers here."""

import math
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from finetune_operator.core.conditions import find
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.cost import CostStatus
from finetune_operator.resources.finetunejob import KIND, FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]


class JobStatus(StrEnum):
    """The life of a training. A suspended one is queued until it goes on."""

    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATUSES: dict[Phase, JobStatus] = {
    Phase.QUEUED: JobStatus.QUEUED,
    Phase.PENDING: JobStatus.QUEUED,
    Phase.SUSPENDED: JobStatus.QUEUED,
    Phase.PREPARING: JobStatus.PREPARING,
    Phase.TRAINING: JobStatus.TRAINING,
    Phase.SUCCEEDED: JobStatus.COMPLETED,
    Phase.FAILED: JobStatus.FAILED,
    Phase.CANCELLED: JobStatus.CANCELLED,
}
NO_COST_YET = "the operator has not counted it yet"
FINISHED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class JobProgress(_View):
    """Where a training stands; losses are those of training."""

    percent: int
    step: int
    total_steps: int
    epoch: float | None
    total_epochs: float | None
    loss: float | None
    best_loss: float | None
    eta_seconds: int | None
    updated_at: datetime | None


class JobCost(_View):
    """Absent amounts are unknown, not 0."""

    currency: str | None
    spent: float | None
    """Until now, or at its end; all attempts."""
    estimated: float | None
    """At its end at the present pace."""
    basis: str | None
    """What is multiplied by what."""
    unknown: str | None
    """Why nothing is known of what was spent."""


class JobBudget(_View):
    """What it may cost."""

    max_cost: float
    currency: str
    kept: bool | None
    """False where the training is not begun, or was stopped, for it; null before the operator has looked."""
    message: str | None
    """Why."""


class JobResult(_View):
    """What came out; losses on held-out rows are per token."""

    final_loss: float | None
    test_loss: float | None
    base_test_loss: float | None
    train_seconds: int | None


class JobDataset(_View):
    """What was trained on."""

    rows: int
    test_rows: int
    digest: str


class JobEntry(_View):
    """A FineTuneJob."""

    id: str
    """`<namespace>.<name>`."""
    uid: str
    """Of this training: names come again."""
    namespace: str
    name: str
    model: str
    base_model: str
    method: str
    backend: str
    philosopher: str | None
    domain: str | None
    """Whose judgements it learns from, where it learns from ratings."""
    status: JobStatus
    phase: Phase | None
    """As `kubectl get` prints it; none before the operator has seen it."""
    message: str | None
    suspended: bool
    """Whether it waits to be resumed."""
    cancelled: bool
    """Whether its end was asked for."""
    progress: JobProgress | None
    cost: JobCost
    budget: JobBudget | None
    dataset: JobDataset | None
    result: JobResult | None
    model_version: str | None
    """The id of what it made."""
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class JobDetail(JobEntry):
    """A FineTuneJob, and how it would be written as YAML."""

    manifest: dict[str, JsonValue]


class JobList(_View):
    """The newest first; `after` of the next page is `next`."""

    jobs: tuple[JobEntry, ...]
    total: int
    has_more: bool
    next: str | None
    """`after` of the next page."""


def status_of(body: Object) -> JobStatus:
    """Of the raw object, so that thousands of them can be sorted out quickly."""
    phase = body.get("status", {}).get("phase")
    return STATUSES.get(phase, JobStatus.QUEUED)


def is_finished(body: Object) -> bool:
    return status_of(body) in FINISHED


def domain_of(body: Object) -> str | None:
    """Of the raw object, as `status_of`."""
    domain: str | None = (body["spec"].get("dataset", {}).get("ratings") or {}).get("domain")
    return domain


def entry_of(body: Object) -> JobEntry:
    return JobEntry(**members_of(body))


def detail_of(body: Object) -> JobDetail:
    return JobDetail(**members_of(body), manifest=shown_manifest(KIND, body))


def number(text: str | None) -> float | None:
    """None, too, for the NaN of a diverged training, which JSON can't bear."""
    if text is None:
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def members_of(body: Object) -> dict[str, Any]:
    """What a `JobEntry` has."""
    job = parsed(FineTuneJob, body)
    metadata, spec, status = job.metadata, job.spec, job.status
    version, ratings = status.model_version, spec.dataset.ratings
    return {
        "id": str(ObjectId(metadata.namespace, metadata.name)),
        "uid": metadata.uid,
        "namespace": metadata.namespace,
        "name": metadata.name,
        "model": spec.model,
        "base_model": spec.base_model.name,
        "method": spec.method.lower(),
        "backend": spec.backend.lower(),
        "philosopher": ratings.philosopher if ratings else None,
        "domain": ratings.domain if ratings else None,
        "status": STATUSES[status.phase] if status.phase else JobStatus.QUEUED,
        "phase": status.phase,
        "message": status.message,
        "suspended": spec.suspend,
        "cancelled": spec.cancel,
        "progress": _progress(status),
        "cost": _cost(job),
        "budget": budget_of(job),
        "dataset": JobDataset(**status.dataset.model_dump()) if status.dataset else None,
        "result": _result(status),
        "model_version": str(ObjectId(metadata.namespace, version)) if version else None,
        "created_at": metadata.creation_timestamp,
        "started_at": status.start_time,
        "finished_at": status.completion_time,
    }


def _progress(status: FineTuneJobStatus) -> JobProgress | None:
    if (known := status.progress) is None:
        return None
    return JobProgress(
        percent=known.percent,
        step=known.step,
        total_steps=known.total_steps,
        epoch=number(known.epoch),
        total_epochs=number(known.total_epochs),
        loss=number(known.loss),
        best_loss=number(known.best_loss),
        eta_seconds=known.eta_seconds,
        updated_at=known.last_update_time,
    )


def _cost(job: FineTuneJob) -> JobCost:
    known = job.status.cost or CostStatus()
    spent = number(known.spent)
    return JobCost(
        currency=known.currency,
        spent=spent,
        estimated=number(known.estimated),
        basis=known.basis,
        unknown=why_unknown(job) if spent is None else None,
    )


def why_unknown(job: FineTuneJob) -> str:
    """Why a training has no cost, and what gives it one."""
    told = find(job.status.conditions, "CostKnown")
    if told and told.status is not ConditionStatus.TRUE:
        return told.message
    if job.spec.openai is not None:
        return "the provider tells it at the end"
    if job.status.completion_time is not None:
        return "it ended before any of its pods had a node"
    return NO_COST_YET


def budget_of(job: FineTuneJob) -> JobBudget | None:
    if (budget := job.spec.budget) is None:
        return None
    told = find(job.status.conditions, "WithinBudget")
    return JobBudget(
        max_cost=float(budget.max_cost),
        currency=budget.currency,
        kept=told.status is ConditionStatus.TRUE if told else None,
        message=told.message if told else None,
    )


def _result(status: FineTuneJobStatus) -> JobResult | None:
    if (known := status.result) is None:
        return None
    return JobResult(
        final_loss=number(known.final_loss),
        test_loss=number(known.test_loss),
        base_test_loss=number(known.base_test_loss),
        train_seconds=known.train_seconds,
    )
