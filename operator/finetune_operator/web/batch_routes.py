"""Public: batches, each of which is a BatchInference made, read and changed in the caller's name."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from finetune_operator.contract.batch_answers import TOLD_ROWS
from finetune_operator.resources.batch_inference import BatchPhase
from finetune_operator.web.acting import BATCHES, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.batch_changes import (
    BATCHES_PATH,
    answers_of,
    batches_page,
    cancel_batch,
    create_batch,
    delete_batch,
    suspend_batch,
)
from finetune_operator.web.batch_requests import BatchRequest
from finetune_operator.web.batch_views import AnsweredRows, BatchDetail, BatchList, batch_detail, batch_entry
from finetune_operator.web.creation import IdempotencyKey, answered
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery
from finetune_operator.web.job_routes import CHANGING, READING, After
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.required_rights import CHANGE_BATCH, DELETE_BATCH, LIST_BATCHES, MAKE_BATCH, READ_BATCH
from finetune_operator.web.services import ServicesOf

BatchId = Annotated[
    str, Path(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>` of a BatchInference")
]
AfterRow = Annotated[int, Query(ge=0, le=TOLD_ROWS, description="`next` of the page before")]
CREATING: dict[int | str, dict[str, Any]] = {
    200: {"model": BatchDetail, "description": "What this Idempotency-Key has made before"},
    201: {"description": "The BatchInference was made", "headers": {"Location": {"schema": {"type": "string"}}}},
    **CHANGING,
}

router = APIRouter(prefix=BATCHES_PATH, tags=["batches"], dependencies=[Depends(require_caller)])


@router.post("", status_code=201, responses=CREATING, openapi_extra=MAKE_BATCH)
async def post_batch(
    services: ServicesOf,
    caller: CallerOf,
    request: BatchRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> BatchDetail:
    """Run a dataset through one or two models. Sent again with the same `Idempotency-Key`, it is the same batch."""
    made = await create_batch(Acting(services, caller), request, idempotency_key)
    detail = batch_detail(made.body)
    answered(response, f"{BATCHES_PATH}/{detail.id}", made)
    return detail


@router.get("", responses=READING, openapi_extra=LIST_BATCHES)
async def get_batches(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    phase: BatchPhase | None = None,
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: After = None,
) -> BatchList:
    """Batches, the newest first, of all namespaces that the caller may read."""
    page = await batches_page(Acting(services, caller), namespace, limit, after, phase=phase, model=model)
    batches = each_shown(batch_entry, page.items)
    return BatchList(batches=batches, total=page.total, has_more=page.has_more, next=page.next)


@router.get("/{batch_id}", responses=READING, openapi_extra=READ_BATCH)
async def get_batch(services: ServicesOf, caller: CallerOf, batch_id: BatchId) -> BatchDetail:
    """One batch."""
    return batch_detail(await Acting(services, caller).find(BATCHES, batch_id))


@router.get("/{batch_id}/answers", responses=READING, openapi_extra=READ_BATCH)
async def get_answers(
    services: ServicesOf,
    caller: CallerOf,
    batch_id: BatchId,
    after: AfterRow = 0,
    limit: Annotated[int, Query(ge=1, le=TOLD_ROWS)] = TOLD_ROWS,
) -> AnsweredRows:
    """Its first rows with their answers, some seconds old while it runs; `results` says where the files with all are.

    A batch that ran while the api was away, or that is older than many others, has none here.
    """
    acting = Acting(services, caller)
    return await answers_of(acting, await acting.find(BATCHES, batch_id), after, limit)


@router.post("/{batch_id}/cancel", responses=CHANGING, openapi_extra=CHANGE_BATCH)
async def post_cancel(services: ServicesOf, caller: CallerOf, batch_id: BatchId) -> BatchDetail:
    """End it for good; what was answered is kept."""
    return batch_detail(await cancel_batch(Acting(services, caller), batch_id))


@router.post("/{batch_id}/suspend", responses=CHANGING, openapi_extra=CHANGE_BATCH)
async def post_suspend(services: ServicesOf, caller: CallerOf, batch_id: BatchId) -> BatchDetail:
    """Stop asking until it is resumed; what was answered is kept."""
    return batch_detail(await suspend_batch(Acting(services, caller), batch_id, suspend=True))


@router.post("/{batch_id}/resume", responses=CHANGING, openapi_extra=CHANGE_BATCH)
async def post_resume(services: ServicesOf, caller: CallerOf, batch_id: BatchId) -> BatchDetail:
    """Go on with the next row."""
    return batch_detail(await suspend_batch(Acting(services, caller), batch_id, suspend=False))


@router.delete("/{batch_id}", status_code=204, responses=CHANGING, openapi_extra=DELETE_BATCH)
async def delete(services: ServicesOf, caller: CallerOf, batch_id: BatchId) -> Response:
    """Delete the BatchInference, which ends it where it runs. The files of its answers stay on the volume."""
    await delete_batch(Acting(services, caller), batch_id)
    return Response(status_code=204)
