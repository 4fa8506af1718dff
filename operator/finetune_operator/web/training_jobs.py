"""Public: trainings in the words of the training interface, where one is made first and started then."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.creation import IdempotencyKey, answered
from finetune_operator.web.ids import NamespaceQuery, ObjectId
from finetune_operator.web.job_changes import cancel_job, create_job, jobs_page, suspend_job
from finetune_operator.web.job_routes import CHANGING, READING, After, JobId
from finetune_operator.web.job_views import JobStatus
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem
from finetune_operator.web.required_rights import CHANGE_JOB, DELETE_JOB, LIST_JOBS, MAKE_JOB, READ_JOB, READ_TRAINED
from finetune_operator.web.services import Object, ServicesOf
from finetune_operator.web.training_views import (
    TrainingArtifacts,
    TrainingJobDetail,
    TrainingJobList,
    TrainingJobRequest,
    TrainingMetrics,
    artifacts_of,
    metrics_of,
    training_job,
    training_job_detail,
)

JOBS_PATH = "/api/training/jobs"
CREATING: dict[int | str, dict[str, Any]] = {
    200: {"model": TrainingJobDetail, "description": "What this Idempotency-Key has made before"},
    201: {"description": "The FineTuneJob was made", "headers": {"Location": {"schema": {"type": "string"}}}},
    **CHANGING,
}

router = APIRouter(prefix=JOBS_PATH, tags=["training"], dependencies=[Depends(require_caller)])


@router.post("", status_code=201, responses=CREATING, openapi_extra=MAKE_JOB)
async def post_training(
    services: ServicesOf,
    caller: CallerOf,
    request: TrainingJobRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> TrainingJobDetail:
    """Make a training that waits to be started, or begins at once with `start`."""
    extra = {} if request.start else {"suspend": True}
    acting = Acting(services, caller)
    acting.place_to_make(request.namespace)
    made = await create_job(acting, request.job(), idempotency_key, interface=JOBS_PATH, said=request, extra=extra)
    detail = training_job_detail(made.body)
    answered(response, f"{JOBS_PATH}/{detail.id}", made)
    return detail


@router.get("", responses=READING, openapi_extra=LIST_JOBS)
async def get_trainings(
    services: ServicesOf,
    caller: CallerOf,
    vertical: str | None = None,
    status: JobStatus | None = None,
    namespace: NamespaceQuery = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: After = None,
) -> TrainingJobList:
    """Trainings, the newest first."""
    page = await jobs_page(Acting(services, caller), namespace, limit, after, status=status, domain=vertical)
    return TrainingJobList(
        jobs=each_shown(training_job, page.items), total=page.total, has_more=page.has_more, next=page.next
    )


@router.get("/{job_id}", responses=READING, openapi_extra=READ_JOB)
async def get_training(services: ServicesOf, caller: CallerOf, job_id: JobId) -> TrainingJobDetail:
    """One training."""
    return training_job_detail(await Acting(services, caller).find(JOBS, job_id))


@router.post("/{job_id}/start", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def post_start(services: ServicesOf, caller: CallerOf, job_id: JobId) -> TrainingJobDetail:
    """Begin, or go on. Starting again what runs changes nothing."""
    return training_job_detail(await suspend_job(Acting(services, caller), job_id, suspend=False))


@router.post("/{job_id}/cancel", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def post_training_cancel(services: ServicesOf, caller: CallerOf, job_id: JobId) -> TrainingJobDetail:
    """End it for good."""
    return training_job_detail(await cancel_job(Acting(services, caller), job_id))


@router.delete("/{job_id}", status_code=204, responses=CHANGING, openapi_extra=DELETE_JOB)
async def delete_training(services: ServicesOf, caller: CallerOf, job_id: JobId) -> Response:
    """Delete the FineTuneJob, which ends it where it runs. What it made stays."""
    acting = Acting(services, caller)
    await acting.delete(JOBS, acting.identified(job_id))
    return Response(status_code=204)


@router.get("/{job_id}/metrics", responses=READING, openapi_extra=READ_TRAINED)
async def get_training_metrics(services: ServicesOf, caller: CallerOf, job_id: JobId) -> TrainingMetrics:
    """Losses, scores, Elo rating, win rate and accuracy by vertical."""
    acting = Acting(services, caller)
    body = await acting.find(JOBS, job_id)
    return metrics_of(body, await _made_by(acting, body))


@router.get("/{job_id}/artifacts", responses=READING, openapi_extra=READ_TRAINED)
async def get_training_artifacts(services: ServicesOf, caller: CallerOf, job_id: JobId) -> TrainingArtifacts:
    """Files with their sizes and types."""
    return artifacts_of(await Acting(services, caller).find(JOBS, job_id))


async def _made_by(acting: Acting, job: Object) -> Object | None:
    """The version that a training made, unless it is gone or the caller may not read it."""
    name = job.get("status", {}).get("modelVersion")
    if name is None:
        return None
    try:
        return await acting.get(VERSIONS, ObjectId(job["metadata"]["namespace"], name))
    except Problem as problem:
        if problem.status not in (FORBIDDEN, NOT_FOUND):
            raise
        return None
