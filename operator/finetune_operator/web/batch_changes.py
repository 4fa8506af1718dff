"""What a request makes of BatchInferences, and what it reads of them, whichever interface it came by."""

import asyncio

from finetune_operator.resources.batch_inference import BatchPhase
from finetune_operator.store import batch_answers
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import BATCHES, TESTS, Acting
from finetune_operator.web.batch_requests import BatchObjects, BatchRequest, batch_objects
from finetune_operator.web.batch_views import AnsweredRows, answered_rows, is_finished
from finetune_operator.web.creation import Created, create_once, digest_of, name_from_key, require_one_name
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_changes import api_volumes
from finetune_operator.web.job_requests import WrongRequest
from finetune_operator.web.pages import Page
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object
from finetune_operator.web.stored_files import stored_file

BATCHES_PATH = "/v1/fine-tuning/batches"
NAME_PREFIX = "batch"


async def create_batch(acting: Acting, request: BatchRequest, key: str | None, digest: str | None = None) -> Created:
    """A BatchInference in the caller's name, and the ABTest that gets its answers where people vote. Raises problems.

    The same key makes them once; so does the same `name` with the same `digest`, of a form that is sent again.
    """
    namespace = acting.place_to_make(request.namespace)
    require_one_name(request.name, key)
    name = request.name or f"{NAME_PREFIX}-{acting.services.suffix()}"
    if key is not None:
        name = name_from_key(NAME_PREFIX, BATCHES_PATH, namespace, acting.caller.name, key)
        digest = digest_of(request)
    made = objects_of(acting, request, namespace, name, digest)
    if request.spec is None:
        await _require_kept(acting, namespace, made.batch["spec"]["dataset"])
    if made.test is not None:
        await create_once(acting, TESTS, made.test)
    return await create_once(acting, BATCHES, made.batch)


def objects_of(
    acting: Acting, request: BatchRequest, namespace: str, name: str, digest: str | None = None
) -> BatchObjects:
    """What would be made. Raises problems."""
    try:
        return batch_objects(request, namespace, name, digest, api_volumes(acting))
    except WrongRequest as error:
        raise Problem(422, "invalid-request", str(error)) from None


async def _require_kept(acting: Acting, namespace: str, dataset: Object) -> None:
    """What the api would not give to the batch's pod is told at once. Raises problems."""
    if "stored" in dataset:
        identity, _, file = dataset["stored"]["path"].partition("/")
        found = await asyncio.to_thread(stored_file, acting.services, namespace, identity, file)
        found.content.close()


async def cancel_batch(acting: Acting, batch_id: str) -> Object:
    """Ask for its end; asking again changes nothing. Raises problems."""
    body = await acting.find(BATCHES, batch_id)
    if body["spec"].get("cancel"):
        return body
    _require_unfinished(body, "cancelled")
    return await acting.change(BATCHES, body, {"cancel": True})


async def suspend_batch(acting: Acting, batch_id: str, *, suspend: bool) -> Object:
    """Stop asking, or go on with the next row. Raises problems."""
    body = await acting.find(BATCHES, batch_id)
    _require_unfinished(body, "suspended" if suspend else "resumed")
    if body["spec"].get("cancel"):
        detail = f"BatchInference {body['metadata']['name']} is being cancelled: create a new one"
        raise Problem(409, "cancelled", detail)
    if bool(body["spec"].get("suspend")) == suspend:
        return body
    return await acting.change(BATCHES, body, {"suspend": suspend})


async def delete_batch(acting: Acting, batch_id: str) -> None:
    """It, which ends it where it runs, and what the api keeps of its answers; the files stay. Raises problems."""
    body = await acting.find(BATCHES, batch_id)
    await acting.delete(BATCHES, ObjectId(body["metadata"]["namespace"], body["metadata"]["name"]))
    await batch_answers.forget(acting.services.engine, body["metadata"]["uid"])


async def batches_page(
    acting: Acting,
    namespace: str | None,
    limit: int,
    after: str | None,
    *,
    phase: BatchPhase | None = None,
    model: str | None = None,
) -> Page[Object]:
    """BatchInferences that the caller may list. Raises problems."""
    wanted = Wanted(BATCHES.plural, model=model, states=(phase.value,) if phase else ())
    return await acting.page(BATCHES, namespace, limit, after, wanted)


def _require_unfinished(body: Object, participle: str) -> None:
    if is_finished(body):
        detail = f"BatchInference {body['metadata']['name']} has ended and can't be {participle}: create a new one"
        raise Problem(409, "finished", detail)


async def answers_of(acting: Acting, body: Object, after: int, limit: int) -> AnsweredRows:
    """The first answers of a batch that the caller has read."""
    engine, uid = acting.services.engine, body["metadata"]["uid"]
    found = await batch_answers.rows(engine, uid, after, limit + 1)
    return answered_rows(body, found, await batch_answers.count(engine, uid), limit)
