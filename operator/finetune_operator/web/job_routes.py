"""Public: trainings, each of which is a FineTuneJob made, read and changed in the caller's name."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from finetune_operator.web.acting import JOBS, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.creation import IdempotencyKey, answered
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery
from finetune_operator.web.job_changes import cancel_job, create_job, jobs_page, set_budget, suspend_job
from finetune_operator.web.job_events import JobEventList, events_of
from finetune_operator.web.job_logs import KeptLogs, kept_logs
from finetune_operator.web.job_requests import BudgetRequest, JobRequest
from finetune_operator.web.job_stream import Follower, known_version
from finetune_operator.web.job_views import JobDetail, JobList, JobStatus, detail_of, entry_of, is_finished
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.pages import AFTER_MAX_LENGTH, AFTER_PATTERN
from finetune_operator.web.problems import documented
from finetune_operator.web.required_rights import CHANGE_JOB, DELETE_JOB, FOLLOW_JOB, LIST_JOBS, MAKE_JOB, READ_JOB
from finetune_operator.web.services import ServicesOf
from finetune_operator.web.streams import EVENT_STREAM, EventStream

JOBS_PATH = "/v1/fine-tuning/jobs"
JobId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>`")]
After = Annotated[
    str | None,
    Query(
        max_length=AFTER_MAX_LENGTH,
        pattern=AFTER_PATTERN,
        description="`next` of the page before, or the id of its last item as long as that is there",
    ),
]
READING = documented(401, 403, 404, 422, 503)
CHANGING = documented(401, 403, 404, 409, 422, 503)
CREATING: dict[int | str, dict[str, Any]] = {
    200: {"model": JobDetail, "description": "What this Idempotency-Key has made before"},
    201: {"description": "The FineTuneJob was made", "headers": {"Location": {"schema": {"type": "string"}}}},
    **CHANGING,
}

FOLLOWING: dict[int | str, dict[str, Any]] = {
    200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}, "description": "What happened"},
    204: {"description": "The training has ended, and Last-Event-ID was its last event"},
    **documented(429),
    **READING,
}

router = APIRouter(prefix=JOBS_PATH, tags=["jobs"], dependencies=[Depends(require_caller)])


@router.post("", status_code=201, responses=CREATING, openapi_extra=MAKE_JOB)
async def post_job(
    services: ServicesOf,
    caller: CallerOf,
    request: JobRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobDetail:
    """Train. Sent again with the same `Idempotency-Key`, it answers with the same job."""
    made = await create_job(Acting(services, caller), request, idempotency_key, interface=JOBS_PATH)
    detail = detail_of(made.body)
    answered(response, f"{JOBS_PATH}/{detail.id}", made)
    return detail


@router.get("", responses=READING, openapi_extra=LIST_JOBS)
async def get_jobs(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    status: JobStatus | None = None,
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: After = None,
) -> JobList:
    """Trainings, the newest first, of all namespaces that the caller may read."""
    page = await jobs_page(Acting(services, caller), namespace, limit, after, status=status, model=model)
    return JobList(jobs=each_shown(entry_of, page.items), total=page.total, has_more=page.has_more, next=page.next)


@router.get("/{job_id}", responses=READING, openapi_extra=READ_JOB)
async def get_job(services: ServicesOf, caller: CallerOf, job_id: JobId) -> JobDetail:
    """One training."""
    acting = Acting(services, caller)
    return detail_of(await acting.find(JOBS, job_id))


@router.get("/{job_id}/events", response_model=JobEventList, responses=FOLLOWING, openapi_extra=FOLLOW_JOB)
async def get_events(
    services: ServicesOf,
    caller: CallerOf,
    job_id: JobId,
    accept: Annotated[str, Header(max_length=1024)] = "*/*",
    last_event_id: Annotated[str | None, Header()] = None,
) -> JobEventList | Response:
    """What has happened. With `Accept: text/event-stream` it goes on until the training has ended.

    The stream's events are `status`, `progress` and, as the last one, `end`, `deleted` or `error`; their data is the
    training as it is then. A reconnect with `Last-Event-ID` goes on from there; the api ends a stream after an hour. An
    id that is none of this training's past is as good as none: the present state is told.
    """
    acting = Acting(services, caller)
    body = await acting.find(JOBS, job_id)
    if EVENT_STREAM not in accept:
        return JobEventList(events=events_of(body))
    known = known_version(body, last_event_id)
    if known == body["metadata"]["resourceVersion"] and is_finished(body):
        # Nothing will follow: to a browser this says not to ask again.
        return Response(status_code=204)
    who = caller.name if caller.token is not None else None
    services.streams.require_room(who)
    return EventStream(Follower(acting, body, known).events(), services.streams, who)


@router.get("/{job_id}/logs", responses=READING, openapi_extra=READ_JOB)
async def get_logs(services: ServicesOf, caller: CallerOf, job_id: JobId) -> KeptLogs:
    """The last lines of its containers' logs, some seconds old while it runs; they are kept when the pods are gone."""
    acting = Acting(services, caller)
    return KeptLogs(logs=await kept_logs(services, await acting.find(JOBS, job_id)))


@router.post("/{job_id}/cancel", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def post_cancel(services: ServicesOf, caller: CallerOf, job_id: JobId) -> JobDetail:
    """End it for good; it writes a checkpoint before."""
    return detail_of(await cancel_job(Acting(services, caller), job_id))


@router.post("/{job_id}/suspend", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def post_suspend(services: ServicesOf, caller: CallerOf, job_id: JobId) -> JobDetail:
    """Free its resources until it is resumed; it writes a checkpoint before."""
    return detail_of(await suspend_job(Acting(services, caller), job_id, suspend=True))


@router.post("/{job_id}/resume", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def post_resume(services: ServicesOf, caller: CallerOf, job_id: JobId) -> JobDetail:
    """Go on from the last checkpoint."""
    return detail_of(await suspend_job(Acting(services, caller), job_id, suspend=False))


@router.put("/{job_id}/budget", responses=CHANGING, openapi_extra=CHANGE_JOB)
async def put_budget(services: ServicesOf, caller: CallerOf, job_id: JobId, request: BudgetRequest) -> JobDetail:
    """Say what it may cost. A training that was stopped for its budget goes on with a larger one, or with none."""
    return detail_of(await set_budget(Acting(services, caller), job_id, request))


@router.delete("/{job_id}", status_code=204, responses=CHANGING, openapi_extra=DELETE_JOB)
async def delete_job(services: ServicesOf, caller: CallerOf, job_id: JobId) -> Response:
    """Delete the FineTuneJob, which ends it where it runs. What it made stays."""
    acting = Acting(services, caller)
    await acting.delete(JOBS, acting.identified(job_id))
    return Response(status_code=204)
