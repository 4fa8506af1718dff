"""Public: OpenAI's fine-tuning jobs and models, for its unmodified clients; the API key is a Kubernetes token."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from finetune_operator.contract.training import Progress
from finetune_operator.core.routing import Meaning
from finetune_operator.logs import get_logger
from finetune_operator.store import progress
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.answering_models import AnsweringModel
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.creation import IdempotencyKey
from finetune_operator.web.ids import ID
from finetune_operator.web.ids import ID_PATTERN as OBJECT_PATTERN
from finetune_operator.web.job_changes import cancel_job, create_job, suspend_job
from finetune_operator.web.job_requests import WrongRequest
from finetune_operator.web.openai_api.errors import documented_errors
from finetune_operator.web.openai_api.files import found_file
from finetune_operator.web.openai_api.requests import FineTuningRequest, as_sent, file_ids, file_namespace, job_request
from finetune_operator.web.openai_api.schemas import (
    Checkpoints,
    FineTuningEvents,
    FineTuningJobObject,
    FineTuningJobs,
    ModelObject,
    Models,
)
from finetune_operator.web.openai_api.views import (
    JOB_PREFIX,
    METADATA_ANNOTATION,
    answering_model,
    fine_tuning_job,
    job_checkpoints,
    job_events,
    listed,
    model,
    page_of_jobs,
    page_of_models,
)
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem
from finetune_operator.web.required_rights import (
    CHANGE_JOB,
    LIST_ANY_JOBS,
    LIST_ANY_VERSIONS,
    MAKE_JOB,
    READ_JOB,
    READ_NAMED_VERSION,
)
from finetune_operator.web.services import GatewayAway, Object, Services, ServicesOf

INVALID = "invalid-request"
SERIES_MAX_POINTS = 1000
MODELS_MAX = 1000
JOBS_PATH = "/v1/fine_tuning/jobs"
ID_PATTERN = f"^{JOB_PREFIX}{ID}$"
JobId = Annotated[str, Path(pattern=ID_PATTERN, description="`ftjob-<namespace>.<name>`")]
MODEL_PATTERN = r"^[A-Za-z0-9]([-._/A-Za-z0-9]*[A-Za-z0-9])?$"
"""What a model may be called at the gateway, with its namespace or without."""
ModelId = Annotated[
    str,
    Path(max_length=317, pattern=MODEL_PATTERN, description="`<name>`, `<namespace>/<name>` or `<namespace>.<name>`"),
]
After = Annotated[str | None, Query(max_length=512, description="The last id of the page before")]
Limit = Annotated[int, Query(ge=1, le=500)]
ModelsLimit = Annotated[int, Query(ge=1, le=MODELS_MAX)]
READING = documented_errors(400, 401, 403, 404, 503)
CHANGING = documented_errors(400, 401, 403, 404, 409, 503)

logger = get_logger(__name__)
router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[Depends(require_caller)])


@router.post("/fine_tuning/jobs", response_model=FineTuningJobObject, responses=CHANGING, openapi_extra=MAKE_JOB)
async def create_fine_tuning_job(
    services: ServicesOf, caller: CallerOf, request: FineTuningRequest, idempotency_key: IdempotencyKey = None
) -> Object:
    """Train. What else a FineTuneJob can do is at `/v1/fine-tuning/jobs`."""
    acting = Acting(services, caller)
    with _told_as_sent(request):
        acting.place_to_make(file_namespace(request))
        job = job_request(request)
    for text in file_ids(request):
        file = await found_file(services, caller, text)
        if (file.format == "DPO") != (job.method == "dpo"):
            wanted = "pairs (prompt, chosen, rejected)" if job.method == "dpo" else "conversations (messages)"
            detail = f"{text} is of another method: it should have {wanted}"
            param = "validation_file" if text == request.validation_file else "training_file"
            raise Problem(422, INVALID, detail, param=param)
    noted = {METADATA_ANNOTATION: json.dumps(request.metadata, sort_keys=True)} if request.metadata else {}
    with _told_as_sent(request):
        made = await create_job(acting, job, idempotency_key, interface=JOBS_PATH, said=request, annotations=noted)
    return fine_tuning_job(made.body)


@router.get("/fine_tuning/jobs", response_model=FineTuningJobs, responses=READING, openapi_extra=LIST_ANY_JOBS)
async def list_fine_tuning_jobs(
    services: ServicesOf, caller: CallerOf, request: Request, limit: Limit = 20, after: After = None
) -> Object:
    """Trainings, the newest first; `metadata[<key>]=<value>` chooses some."""
    pieces = tuple(
        json.dumps({name.removeprefix("metadata[").removesuffix("]"): value})[1:-1]
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    )
    cursor = after.removeprefix(JOB_PREFIX) if after else None
    wanted = Wanted(JOBS.plural, attached=pieces)
    return page_of_jobs(await Acting(services, caller).page(JOBS, None, limit, cursor, wanted))


@router.get(
    "/fine_tuning/jobs/{fine_tuning_job_id}",
    response_model=FineTuningJobObject,
    responses=READING,
    openapi_extra=READ_JOB,
)
async def retrieve_fine_tuning_job(services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId) -> Object:
    """One training."""
    return fine_tuning_job(await _found(Acting(services, caller), fine_tuning_job_id))


@router.post(
    "/fine_tuning/jobs/{fine_tuning_job_id}/cancel",
    response_model=FineTuningJobObject,
    responses=CHANGING,
    openapi_extra=CHANGE_JOB,
)
async def cancel_fine_tuning_job(services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId) -> Object:
    """End it for good."""
    return fine_tuning_job(await cancel_job(Acting(services, caller), _ours(fine_tuning_job_id)))


@router.post(
    "/fine_tuning/jobs/{fine_tuning_job_id}/pause",
    response_model=FineTuningJobObject,
    responses=CHANGING,
    openapi_extra=CHANGE_JOB,
)
async def pause_fine_tuning_job(services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId) -> Object:
    """Free its resources until it is resumed."""
    return fine_tuning_job(await suspend_job(Acting(services, caller), _ours(fine_tuning_job_id), suspend=True))


@router.post(
    "/fine_tuning/jobs/{fine_tuning_job_id}/resume",
    response_model=FineTuningJobObject,
    responses=CHANGING,
    openapi_extra=CHANGE_JOB,
)
async def resume_fine_tuning_job(services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId) -> Object:
    """Go on from the last checkpoint."""
    return fine_tuning_job(await suspend_job(Acting(services, caller), _ours(fine_tuning_job_id), suspend=False))


@router.get(
    "/fine_tuning/jobs/{fine_tuning_job_id}/events",
    response_model=FineTuningEvents,
    responses=READING,
    openapi_extra=READ_JOB,
)
async def list_fine_tuning_events(
    services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId, limit: Limit = 20, after: After = None
) -> Object:
    """What happened, and what was measured, the newest first."""
    body = await _found(Acting(services, caller), fine_tuning_job_id)
    return listed(job_events(body, await _series(services, body)), limit, after)


@router.get(
    "/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    response_model=Checkpoints,
    responses=READING,
    openapi_extra=READ_JOB,
)
async def list_fine_tuning_checkpoints(
    services: ServicesOf, caller: CallerOf, fine_tuning_job_id: JobId, limit: Limit = 10, after: After = None
) -> Object:
    """Checkpoints that the series tells of, the newest first."""
    body = await _found(Acting(services, caller), fine_tuning_job_id)
    return listed(job_checkpoints(body, await _series(services, body)), limit, after)


@router.get("/models", response_model=Models, responses=READING, openapi_extra=LIST_ANY_VERSIONS)
async def list_models(
    services: ServicesOf, caller: CallerOf, limit: ModelsLimit = MODELS_MAX, after: After = None
) -> Object:
    """Fine-tuned versions, the newest first, and before the first of them what else answers at the gateway: names of
    models and base models. OpenAI's own clients ask for no page but the first."""
    acting = Acting(services, caller)
    page = await acting.page(VERSIONS, None, limit, after, Wanted(VERSIONS.plural))
    return page_of_models(page, () if after else await _other_names(acting))


@router.get("/models/{model_id:path}", response_model=ModelObject, responses=READING, openapi_extra=READ_NAMED_VERSION)
async def retrieve_model(services: ServicesOf, caller: CallerOf, model_id: ModelId) -> Object:
    """One version, model or base model, by the name that the list has; where several namespaces have it, by
    `<namespace>/<name>` as in a chat, or `<namespace>.<name>`."""
    acting = Acting(services, caller)
    identity = model_id.replace("/", ".", 1)
    unknown = Problem(404, "unknown-model-version", f"there is no model {model_id}; GET /v1/models lists them")
    if re.fullmatch(OBJECT_PATTERN, identity):
        try:
            return model(await _version(acting, identity))
        except Problem as problem:
            if problem.status != NOT_FOUND:
                raise
            unknown = problem
    for other in await _other_names(acting):
        if model_id in (other.id, f"{other.namespace}/{other.id}", f"{other.namespace}.{other.id}"):
            return answering_model(other)
    raise unknown


@contextmanager
def _told_as_sent(request: FineTuningRequest) -> Iterator[None]:
    """Mistakes in the words of who made them."""
    try:
        yield
    except WrongRequest as error:
        detail, param = as_sent(request, str(error))
        raise Problem(422, INVALID, detail, param=param) from None
    except Problem as problem:
        if problem.kind != INVALID:
            raise
        detail, param = as_sent(request, problem.detail)
        raise Problem(problem.status, INVALID, detail, param=param) from None


async def _other_names(acting: Acting) -> tuple[AnsweringModel, ...]:
    """Those that are no version's own, of the namespaces whose versions the caller may list. None while the gateway is
    away: versions are known without it."""
    services = acting.services
    if services.gateway is None:
        return ()
    try:
        readable = await acting.listable(VERSIONS, None)
        known = await services.gateway.models()
    except Problem as problem:
        if problem.status != FORBIDDEN:
            raise
        return ()
    except GatewayAway as error:
        logger.warning("the gateway is away, and names that only it knows are missing", error=str(error))
        return ()
    return tuple(
        each
        for each in known
        if each.meaning is not Meaning.VERSION and (readable is None or each.namespace in readable)
    )


async def _version(acting: Acting, model_id: str) -> Object:
    """Raises problems."""
    if "." in model_id or len(acting.services.settings.namespaces) == 1:
        return await acting.find(VERSIONS, model_id)
    wanted = Wanted(VERSIONS.plural, model=model_id.rpartition("-v")[0])
    found: list[Object] = []
    after: str | None = None
    while True:
        page = await acting.page(VERSIONS, None, MODELS_MAX, after, wanted)
        found += (body for body in page.items if body["metadata"]["name"] == model_id)
        if not page.has_more:
            break
        after = page.next
    if not found:
        raise Problem(404, "unknown-model-version", f"there is no ModelVersion {model_id}; GET /v1/models lists them")
    if len(found) > 1:
        told = " and ".join(sorted(body["metadata"]["namespace"] for body in found))
        raise Problem(409, "ambiguous-model", f"{told} each have a {model_id}: write <namespace>.{model_id}")
    return found[0]


def _ours(fine_tuning_job_id: str) -> str:
    return fine_tuning_job_id.removeprefix(JOB_PREFIX)


async def _found(acting: Acting, fine_tuning_job_id: str) -> Object:
    return await acting.get(JOBS, acting.identified(_ours(fine_tuning_job_id)))


async def _series(services: Services, body: Object) -> list[Progress]:
    """Of exactly this job, which the caller has just been allowed to read."""
    points, _ = await progress.series(services.engine, body["metadata"]["uid"], SERIES_MAX_POINTS)
    return points
