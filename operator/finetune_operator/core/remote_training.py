"""Rules of a training at a provider: progress, cost, what its refusals mean, and when it is no longer wanted."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.fine_tuning_api import UID_KEY, JobError, RemoteEvent, RemoteJob

# English text has about four characters a token in the vocabularies of the last years; for an estimate only.
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_PRICE = 1_000_000

# Of a job, or of an answer, that another try may mend: the fault is the provider's own.
PASSING_CODES = frozenset({"server_error", "internal_error", "internal_server_error", "timeout", "rate_limit_exceeded"})
QUOTA_TYPES = frozenset({"insufficient_quota", "billing_not_active", "exceeded_quota"})
PASSING_STATUSES = frozenset({408, 409, 425, 429})

SHOWN_MAX_CHARACTERS = 800


def estimated_tokens(characters: int, epochs: float) -> int:
    """What a provider is likely to bill: each epoch's tokens."""
    return math.ceil(characters / CHARACTERS_PER_TOKEN * epochs)


def cost(tokens: int | None, price_per_million: Decimal | None) -> Decimal | None:
    """In the price's currency; None where the tokens or the price are unknown."""
    if tokens is None or price_per_million is None:
        return None
    return (tokens * price_per_million / TOKENS_PER_PRICE).quantize(Decimal("0.0001"), ROUND_HALF_UP)


def estimated_steps(rows: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps, for a provider that does not tell."""
    return max(1, math.ceil(rows * epochs / batch_size))


def measurements(
    events: Iterable[RemoteEvent],
    job: JobIdentity,
    attempt: str,
    *,
    total_steps: int,
    total_epochs: float,
    finish: int | None = None,
) -> tuple[Progress, ...]:
    """The metrics events as progress, in the order of their steps; `finish` is the estimated end in Unix seconds."""
    found: list[Progress] = []
    for event in events:
        data = event.data
        if data is None or data.step is None:
            continue
        total = max(data.total_steps or total_steps, data.step)
        held_out = data.full_valid_loss if data.full_valid_loss is not None else data.valid_loss
        found.append(
            Progress(
                job=job,
                attempt=attempt,
                step=data.step,
                total_steps=total,
                epoch=round(total_epochs * data.step / total, 4),
                total_epochs=total_epochs,
                loss=data.train_loss,
                eval_loss=held_out,
                eta_seconds=None if finish is None else max(0, finish - event.created_at),
                time=_moment(event.created_at),
            )
        )
    return tuple(sorted(found, key=lambda progress: progress.step))


def _moment(unix_seconds: int) -> datetime:
    """The beginning of time for what no calendar has: a provider that counts milliseconds must not end a training."""
    try:
        return datetime.fromtimestamp(unix_seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def is_ours(job: RemoteJob, uid: str, training_file: str | None) -> bool:
    """By the metadata, or where a provider drops that, by the file that nobody else trains on."""
    if (job.metadata or {}).get(UID_KEY) == uid:
        return True
    return training_file is not None and job.training_file == training_file


def is_passing(status: int, error: JobError | None = None, error_type: str | None = None) -> bool:
    """Whether the same request may be answered better later; an exhausted quota has the status of a busy server."""
    if error_type in QUOTA_TYPES or (error and error.code in QUOTA_TYPES):
        return False
    return status >= 500 or status in PASSING_STATUSES


def refusal(status: int, error: JobError, error_type: str | None, what: str) -> Failure:
    """An answer that no second try will better, with what to change."""
    said = _shown(error.message) or f"HTTP status {status}"
    if error_type in QUOTA_TYPES or error.code in QUOTA_TYPES:
        remedy = "raise the spending limit or add credit at the provider, then create the FineTuneJob anew"
    elif status == 401:
        remedy = (
            "put a valid API key into the Secret that spec.openai.secretRef names, then create the FineTuneJob anew"
        )
    elif status == 403:
        remedy = "give the API key's project the right to fine-tune this model, or use another key"
    elif status == 404:
        remedy = "check spec.openai.baseUrl and baseModel.source.openai.model: the provider does not know one of them"
    elif status == 413:
        remedy = "train on fewer rows (spec.dataset.ratings.limit): the file is larger than the provider takes"
    else:
        remedy = "change what the provider names in the FineTuneJob's spec or in its dataset"
    return Failure(reason=FailureReason.PROVIDER_REFUSED, message=f"the provider refused {what}: {said}", remedy=remedy)


def failure_of(job: RemoteJob) -> Failure | None:
    """Why a remote job that has failed or was cancelled ends this training; None where another may go better."""
    if job.status == "cancelled":
        return Failure(
            reason=FailureReason.PROVIDER_REFUSED,
            message=f"job {job.id} was cancelled at the provider",
            remedy="create the FineTuneJob anew to train again",
        )
    error = job.error or JobError()
    if error.code in PASSING_CODES:
        return None
    said = _shown(error.message) or "no reason was given"
    if error.param in ("training_file", "validation_file") or "file" in (error.code or ""):
        remedy = f"correct the dataset's rows: the provider does not take them as its {error.param or 'training_file'}"
    elif error.code in QUOTA_TYPES:
        remedy = "raise the spending limit or add credit at the provider"
    else:
        remedy = "change what the provider names in the FineTuneJob's spec or in its dataset"
    code = f" ({error.code})" if error.code else ""
    return Failure(
        reason=FailureReason.PROVIDER_REFUSED,
        message=f"job {job.id} failed at the provider{code}: {said}",
        remedy=remedy,
    )


def unwanted_because(job: Mapping[str, Any] | None, workload: Mapping[str, Any] | None, uid: str) -> str | None:
    """Why nobody waits for the remote model any more, or None.

    `job` is the FineTuneJob and `workload` its Job as the API server has them, None where there is none. A pod that is
    drained, preempted or suspended finds both in good order: the training goes on at the provider.
    """
    if job is None or job["metadata"]["uid"] != uid or "deletionTimestamp" in job["metadata"]:
        return "the FineTuneJob is deleted"
    if job.get("spec", {}).get("cancel"):
        return "the FineTuneJob is cancelled"
    if _holds(job, "Stalled"):
        return "the FineTuneJob has failed"
    if workload is not None and (_holds(workload, "Failed") or _holds(workload, "FailureTarget")):
        return "the Job has failed"
    return None


def _holds(body: Mapping[str, Any], type_: str) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    return any(condition["type"] == type_ and condition["status"] == "True" for condition in conditions)


def _shown(text: str | None) -> str:
    return (text or "").strip()[:SHOWN_MAX_CHARACTERS]
