"""A FineTuneJob and a ModelVersion in OpenAI's words. Pure; times are seconds since 1970."""

import csv
import io
import json
import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from finetune_operator.contract.training import Progress
from finetune_operator.resources.finetunejob import KIND, FineTuneJob, Method
from finetune_operator.store.uploaded_files import FILE_ID, UploadedFile
from finetune_operator.web.answering_models import AnsweringModel
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_events import JobEvent, events_of
from finetune_operator.web.job_views import JobStatus, status_of
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.openai_api.requests import FILE_PREFIX, LEARNING_RATE, RATINGS
from finetune_operator.web.pages import Page
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]
JOB_PREFIX = "ftjob-"
RESULT_PREFIX = "ftresult-"
RESULT_COLUMNS = ("step", "train_loss", "valid_loss", "learning_rate", "grad_norm", "tokens")
METADATA_ANNOTATION = "finetune.dev/openai-metadata"
"""What a client attached to its job, as JSON."""
STATUSES: dict[JobStatus, str] = {
    JobStatus.QUEUED: "queued",
    JobStatus.PREPARING: "validating_files",
    JobStatus.TRAINING: "running",
    JobStatus.COMPLETED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


def fine_tuning_job(body: Object, *, whole: bool = True) -> Object:
    """OpenAI's `fine_tuning.job`; `finetune` is ours, with the manifest only where one job is asked for."""
    job = parsed(FineTuneJob, body)
    metadata, spec, status = job.metadata, job.spec, job.status
    phase = status_of(body)
    eta = status.progress.eta_seconds if status.progress else None
    updated = status.progress.last_update_time if status.progress else None
    ours: Object = {"namespace": metadata.namespace, "name": metadata.name, "phase": status.phase}
    ours |= {"message": status.message, "suspended": spec.suspend}
    if whole:
        ours["manifest"] = shown_manifest(KIND, body)
    return {
        "id": job_id(body),
        "object": "fine_tuning.job",
        "created_at": _seconds(metadata.creation_timestamp) or 0,
        "finished_at": _seconds(status.completion_time),
        "estimated_finish": (_seconds(updated) or 0) + eta if updated and eta is not None else None,
        "model": spec.base_model.name,
        "fine_tuned_model": status.model_version,
        "organization_id": metadata.namespace,
        "status": STATUSES[phase],
        "error": _error(job) if phase is JobStatus.FAILED else None,
        "hyperparameters": _hyperparameters(job),
        "method": _method(job),
        "seed": spec.training.seed,
        "training_file": _training_file(job),
        "validation_file": _validation_file(job),
        "result_files": [result_id(metadata.namespace, metadata.name)] if phase is JobStatus.COMPLETED else [],
        "trained_tokens": None,
        "integrations": [],
        "metadata": metadata_of(body),
        "user_provided_suffix": spec.model,
        "finetune": ours,
    }


def result_id(namespace: str, name: str) -> str:
    """Of the file with a training's series."""
    return f"{RESULT_PREFIX}{ObjectId(namespace, name)}"


def result_file(body: Object, content: bytes) -> Object:
    """OpenAI's `file`, of what was measured while a job trained."""
    job = parsed(FineTuneJob, body)
    return {
        "id": result_id(job.metadata.namespace, job.metadata.name),
        "object": "file",
        "bytes": len(content),
        "created_at": _seconds(job.status.completion_time or job.metadata.creation_timestamp) or 0,
        "filename": "step_metrics.csv",
        "purpose": "fine-tune-results",
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }


def result_content(series: Iterable[Progress]) -> bytes:
    """As CSV, a line a measurement; what was not measured is empty. The first columns are as OpenAI's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(RESULT_COLUMNS)
    for point in series:
        losses = point.loss, point.eval_loss
        writer.writerow((point.step, *losses, point.learning_rate, point.grad_norm, point.tokens))
    return file.getvalue().encode()


def job_id(body: Object) -> str:
    return f"{JOB_PREFIX}{ObjectId(body['metadata']['namespace'], body['metadata']['name'])}"


def job_events(body: Object, series: Iterable[Progress]) -> list[Object]:
    """The newest first: what became true, and what was measured."""
    told = [_message(event) for event in events_of(body)]
    measured = [_measurement(point) for point in series]
    return sorted((*told, *measured), key=lambda event: (event["created_at"], event["id"]), reverse=True)


def job_checkpoints(body: Object, series: Iterable[Progress]) -> list[Object]:
    """The newest first; each is named by where it is on the volume of artifacts, since no gateway answers for one."""
    job = parsed(FineTuneJob, body)
    directory = f"{job.metadata.namespace}/{job.spec.model}/{job.metadata.uid}/checkpoints"
    found: dict[int, Object] = {}
    for point in series:
        step = point.checkpoint_step
        if step is None or step in found:
            continue
        metrics = {"step": step, "train_loss": point.loss, "valid_loss": point.eval_loss}
        found[step] = {
            "id": f"ftckpt-{job.metadata.uid}-{step}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": _seconds(point.checkpoint_time or point.time),
            "fine_tuned_model_checkpoint": f"{directory}/checkpoint-{step}",
            "fine_tuning_job_id": job_id(body),
            "step_number": step,
            "metrics": {name: value for name, value in metrics.items() if value is not None},
        }
    return [found[step] for step in sorted(found, reverse=True)]


def page_of_models(page: Page[Object], others: Iterable[AnsweringModel]) -> Object:
    """Names of versions, as the gateway answers to them; its ends as `after` takes them. `others` go before."""
    places = [f"{body['metadata']['namespace']}.{body['metadata']['name']}" for body in page.items]
    return {
        "object": "list",
        "data": [*map(answering_model, others), *map(model, page.items)],
        "first_id": places[0] if places else None,
        "last_id": places[-1] if places else None,
        "has_more": page.has_more,
    }


def model(body: Object) -> Object:
    """OpenAI's `model`."""
    return {
        "id": body["metadata"]["name"],
        "object": "model",
        "created": _created(body),
        "owned_by": body["metadata"]["namespace"],
    }


def answering_model(known: AnsweringModel) -> Object:
    """OpenAI's `model`, of a name that only the gateway knows."""
    return {"id": known.id, "object": "model", "created": known.created, "owned_by": known.namespace}


def _created(body: Object) -> int:
    """Of the raw object: there are up to a thousand."""
    written = body["metadata"].get("creationTimestamp")
    return int(datetime.fromisoformat(written).timestamp()) if written else 0


def file_object(file: UploadedFile) -> Object:
    """OpenAI's `file`."""
    return {
        "id": public_file_id(file.namespace, file.id),
        "object": "file",
        "bytes": file.bytes,
        "created_at": _seconds(file.created_at),
        "filename": file.filename,
        "purpose": "fine-tune",
        "status": "processed",
        "expires_at": None,
        "status_details": None,
    }


def public_file_id(namespace: str, identity: str) -> str:
    """With the namespace, as all ids of REST have it."""
    return f"{FILE_PREFIX}{namespace}.{identity.removeprefix(FILE_PREFIX)}"


def listed(items: list[Object], limit: int, after: str | None) -> Object:
    """A page of a list that is whole; an unknown cursor begins anew, since items are never taken away."""
    position = next((number + 1 for number, item in enumerate(items) if item["id"] == after), 0)
    shown = items[position : position + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > position + limit,
    }


def page_of_jobs(page: Page[Object]) -> Object:
    """OpenAI's list."""
    shown = each_shown(lambda body: fine_tuning_job(body, whole=False), page.items)
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": page.has_more,
    }


def metadata_of(body: Object) -> Object:
    """What a client attached; empty where somebody has written something else into the annotation."""
    annotations = body["metadata"].get("annotations") or {}
    try:
        told = json.loads(annotations.get(METADATA_ANNOTATION, "{}"))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _message(event: JobEvent) -> Object:
    return {
        "id": f"ftevent-{event.id}",
        "object": "fine_tuning.job.event",
        "created_at": _seconds(event.time),
        "level": event.level,
        "message": event.message,
        "type": "message",
        "data": {"reason": event.reason},
    }


def _measurement(point: Progress) -> Object:
    losses = {"train_loss": point.loss, "valid_loss": point.eval_loss}
    data = {"step": point.step, "total_steps": point.total_steps, **losses}
    loss = "" if point.loss is None else f", training loss={point.loss:.4g}"
    return {
        "id": f"ftevent-{point.job.uid}.{point.attempt}.{point.step:09}",
        "object": "fine_tuning.job.event",
        "created_at": _seconds(point.time),
        "level": "info",
        "message": f"Step {point.step}/{point.total_steps}{loss}",
        "type": "metrics",
        "data": {name: value for name, value in data.items() if value is not None},
    }


def _hyperparameters(job: FineTuneJob) -> Object:
    training = job.spec.training
    multiplier = float(Decimal(training.learning_rate) / LEARNING_RATE)
    return {"n_epochs": training.epochs, "batch_size": training.batch_size, "learning_rate_multiplier": multiplier}


def _method(job: FineTuneJob) -> Object:
    if job.spec.method is Method.DPO:
        beta = float(job.spec.training.dpo_beta)
        return {"type": "dpo", "dpo": {"hyperparameters": _hyperparameters(job) | {"beta": beta}}}
    return {"type": "supervised", "supervised": {"hyperparameters": _hyperparameters(job)}}


def _training_file(job: FineTuneJob) -> str:
    dataset = job.spec.dataset
    if dataset.stored:
        return _stored_file(job, dataset.stored.path)
    if dataset.volume:
        return f"volume://{dataset.volume.claim_name}/{dataset.volume.path}"
    return dataset.s3.url if dataset.s3 else RATINGS


def _validation_file(job: FineTuneJob) -> str | None:
    stored = job.spec.dataset.stored
    return _stored_file(job, stored.validation_path) if stored and stored.validation_path else None


def _stored_file(job: FineTuneJob, path: str) -> str:
    """An uploaded file's id, or an exported dataset's."""
    identity = path.partition("/")[0]
    if not re.fullmatch(FILE_ID, identity):
        return identity
    return public_file_id(job.metadata.namespace, identity)


def _error(job: FineTuneJob) -> Object:
    stalled = next((each for each in job.status.conditions if each.type == "Stalled"), None)
    return {"code": stalled.reason if stalled else "Failed", "message": job.status.message or "", "param": None}


def _seconds(time: datetime | None) -> int | None:
    return int(time.timestamp()) if time else None
