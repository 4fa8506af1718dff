"""Public: fine-tuned models, each version of which is a ModelVersion read and changed in the caller's name."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query

from finetune_operator.core.routing import active_version, rival_pins
from finetune_operator.core.version_changes import (
    PIN,
    UNPIN,
    evaluation_fields,
    may_take_over,
    previous_name,
    serving_fields,
)
from finetune_operator.resources.modelversion import ModelVersion, RequestedState, State
from finetune_operator.store import deleted_trainings, mirrored
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery, ObjectId
from finetune_operator.web.job_routes import CHANGING, READING, After
from finetune_operator.web.mirroring import is_wanted
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.pages import Pager
from finetune_operator.web.problems import FORBIDDEN, NOT_FOUND, Problem
from finetune_operator.web.required_rights import CHANGE_VERSION, LIST_VERSIONS, READ_FAMILY
from finetune_operator.web.services import Object, ServicesOf
from finetune_operator.web.version_views import (
    DeployRequest,
    EvaluateRequest,
    Origins,
    RollbackRequest,
    VersionDetail,
    VersionList,
    active_ids,
    origins_of,
    version_detail,
    version_entry,
)

MAX_SINGLE_READS = 16
Family = dict[str, Object]
"""Versions of a model by their names."""
ModelId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>` of a version")]

router = APIRouter(prefix="/v1/fine-tuning/models", tags=["models"], dependencies=[Depends(require_caller)])


@router.get("", responses=READING, openapi_extra=LIST_VERSIONS)
async def get_models(
    services: ServicesOf,
    caller: CallerOf,
    namespace: NamespaceQuery = None,
    model: str | None = None,
    state: State | None = None,
    philosopher: str | None = None,
    domain: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: After = None,
) -> VersionList:
    """Versions, the newest first. `philosopher` and `domain` are those of its FineTuneJob, which may be deleted."""
    acting = Acting(services, caller)
    wanted = Wanted(VERSIONS.plural, None, model, (state.value,) if state else (), philosopher, domain)
    if acting.is_mirrored(JOBS, VERSIONS):
        return await _mirrored_list(acting, namespace, limit, after, wanted)
    asked_by_origin = philosopher is not None or domain is not None
    origins = await _origins(acting, namespace) if asked_by_origin else {}
    chosen = partial(is_wanted, wanted, origins=origins)
    pager = Pager(limit, await acting.place(VERSIONS, after), chosen)
    bodies = await acting.every(VERSIONS, namespace)
    pager.add(bodies)
    page = pager.page()
    if not asked_by_origin:
        origins = await _origins_of_page(acting, namespace, page.items)
    shown = set(map(_model_of, page.items))
    active = active_ids(body for body in bodies if _model_of(body) in shown)
    entries = each_shown(lambda body: version_entry(body, active, origins), page.items)
    return VersionList(models=entries, total=page.total, has_more=page.has_more, next=page.next)


async def _mirrored_list(
    acting: Acting, namespace: str | None, limit: int, after: str | None, wanted: Wanted
) -> VersionList:
    """The same list of the api's own tables, whose active versions are among the few that are loaded."""
    engine = acting.services.engine
    readable: tuple[str, ...] | None = ()
    try:
        readable = await acting.listable(JOBS, namespace)
    except Problem as problem:
        if problem.status != FORBIDDEN or wanted.philosopher is not None or wanted.domain is not None:
            raise
    page = await acting.page(VERSIONS, namespace, limit, after, replace(wanted, origins_in=readable))
    active = await active_of(acting, namespace, page.items)
    trainings = [uid for body in page.items if (uid := _job_uid_of(body))]
    origins = await mirrored.origins(engine, JOBS.plural, trainings, readable)
    entries = each_shown(lambda body: version_entry(body, active, origins), page.items)
    return VersionList(models=entries, total=page.total, has_more=page.has_more, next=page.next)


async def active_of(acting: Acting, namespace: str | None, bodies: Iterable[Object]) -> frozenset[ObjectId]:
    """The active versions of the models of these, which the caller may list: of a namespace, or of all."""
    models = set(map(_model_of, bodies))
    if acting.is_mirrored(VERSIONS):
        return active_ids(await mirrored.answering(acting.services.engine, VERSIONS.plural, models))
    return active_ids(body for body in await acting.every(VERSIONS, namespace) if _model_of(body) in models)


@router.get("/{model_id}", responses=READING, openapi_extra=READ_FAMILY)
async def get_model(services: ServicesOf, caller: CallerOf, model_id: ModelId) -> VersionDetail:
    """One version."""
    acting = Acting(services, caller)
    body = await acting.find(VERSIONS, model_id)
    return await _detail(acting, body, await _family(acting, body))


@router.post("/{model_id}/deploy", responses=CHANGING, openapi_extra=CHANGE_VERSION)
async def post_deploy(
    services: ServicesOf,
    caller: CallerOf,
    model_id: ModelId,
    request: Annotated[DeployRequest, Body()] = DeployRequest(),  # noqa: B008 - frozen
) -> VersionDetail:
    """Serve it, and have the model's name stand for it as soon as it answers. Asking again changes nothing."""
    acting = Acting(services, caller)
    body = await acting.find(VERSIONS, model_id)
    return await _pinned(acting, body, await _family(acting, body), _served(request))


@router.post("/{model_id}/serve", responses=CHANGING, openapi_extra=CHANGE_VERSION)
async def post_serve(
    services: ServicesOf,
    caller: CallerOf,
    model_id: ModelId,
    request: Annotated[DeployRequest, Body()] = DeployRequest(),  # noqa: B008 - frozen
) -> VersionDetail:
    """Serve it by its own name, beside whichever version is active. Asking again changes nothing."""
    acting = Acting(services, caller)
    changed = await acting.change(VERSIONS, await acting.find(VERSIONS, model_id), _served(request))
    return await _detail(acting, changed, await _family(acting, changed))


@router.post("/{model_id}/evaluate", responses=CHANGING, openapi_extra=CHANGE_VERSION)
async def post_evaluate(
    services: ServicesOf,
    caller: CallerOf,
    model_id: ModelId,
    request: Annotated[EvaluateRequest, Body()] = EvaluateRequest(),  # noqa: B008 - frozen
) -> VersionDetail:
    """Measure it beside its base model, once it is served. Asking the same again changes nothing."""
    acting = Acting(services, caller)
    fields = evaluation_fields(request.metrics, request.max_examples, request.saturation)
    changed = await acting.change(VERSIONS, await acting.find(VERSIONS, model_id), {"evaluation": fields})
    return await _detail(acting, changed, await _family(acting, changed))


@router.post("/{model_id}/rollback", responses=CHANGING, openapi_extra=CHANGE_VERSION)
async def post_rollback(
    services: ServicesOf,
    caller: CallerOf,
    model_id: ModelId,
    request: Annotated[RollbackRequest, Body()] = RollbackRequest(),  # noqa: B008 - frozen
) -> VersionDetail:
    """Have the version answer again that did before this one, which is the active one; it is still loaded.

    Answers with the version that takes over.
    """
    acting = Acting(services, caller)
    identity = acting.identified(model_id)
    body = await acting.get(VERSIONS, identity)
    model = body["spec"]["model"]
    bodies = await _family(acting, body)
    family = each_shown(partial(parsed, ModelVersion), bodies.values())
    active = active_version(family)
    if active is None or active.metadata.name != identity.name:
        now = f"{active.metadata.name} is" if active else "none is"
        detail = f"{identity.name} is not the active version of {model} ({now}): deploy the one that you want"
        raise Problem(409, "not-active", detail)
    if request.to is not None:
        wanted = await _of_family(acting, bodies, body, request.to)
        if wanted is None:
            raise Problem(404, "unknown-model-version", f"{model} has no version {request.to}")
        return await _pinned(acting, wanted, bodies, {})
    name = previous_name(active)
    previous = await _of_family(acting, bodies, body, name) if name else None
    if previous is None or not may_take_over(ModelVersion.parse(previous)):
        detail = f"no version was active before {identity.name}, or it is gone or failed: say `to` which one"
        raise Problem(409, "no-previous-version", detail)
    return await _pinned(acting, previous, bodies, {})


def _served(request: DeployRequest) -> dict[str, Any]:
    """Fields of the spec."""
    serving = serving_fields(request.gpu_memory_utilization, request.max_model_len, request.tensor_parallel_size)
    return {"serving": serving} | ({"notes": request.notes} if request.notes is not None else {})


async def _pinned(acting: Acting, body: Object, family: Family, spec: dict[str, Any]) -> VersionDetail:
    """The new pin comes first, so that the model's name never falls back meanwhile; then pins that could win go."""
    name = body["metadata"]["name"]
    changed = await acting.change(VERSIONS, body, PIN | spec)
    now = family | {name: changed}
    pinned = ModelVersion.parse(changed)
    versions = each_shown(partial(parsed, ModelVersion), family.values())
    rivals = {rival.metadata.name for rival in rival_pins(pinned, versions)}
    for rival in rivals:
        try:
            now[rival] = await acting.change(VERSIONS, family[rival], UNPIN)
        except Problem as problem:
            if problem.status != NOT_FOUND:
                raise
            del now[rival]
    return await _detail(acting, changed, now)


async def _family(acting: Acting, body: Object) -> Family:
    """The versions of its model that may answer for it, and this one as it was read."""
    found = await answering(acting, *_model_of(body))
    return {each["metadata"]["name"]: each for each in found} | {body["metadata"]["name"]: body}


async def answering(acting: Acting, namespace: str, model: str) -> list[Object]:
    """The versions of a model that may answer for it, loaded or pinned: few, however many there are. Raises problems.

    Where there are no tables to find them in, these are all versions of the model.
    """
    if not acting.is_mirrored(VERSIONS):
        return [each for each in await acting.every(VERSIONS, namespace) if each["spec"]["model"] == model]
    await acting.listable(VERSIONS, namespace)
    pinned = RequestedState.DEPLOYED.value
    return await mirrored.answering(acting.services.engine, VERSIONS.plural, {(namespace, model)}, pinned)


async def _of_family(acting: Acting, family: Family, body: Object, name: str) -> Object | None:
    """The version of this name, of those that may answer or of all others of the model."""
    if name in family:
        return family[name]
    try:
        found = await acting.get(VERSIONS, ObjectId(body["metadata"]["namespace"], name))
    except Problem as problem:
        if problem.status != NOT_FOUND:
            raise
        return None
    return found if found["spec"]["model"] == body["spec"]["model"] else None


async def _origins(acting: Acting, namespace: str | None) -> Origins:
    """Of all FineTuneJobs, deleted or not; who may not list them may not ask by whose judgements they are."""
    found: dict[str, tuple[str | None, str | None]] = {}
    async with aclosing(acting.chunks(JOBS, namespace)) as chunks:
        async for chunk in chunks:
            found |= origins_of(chunk)
    return await deleted_trainings.origins(acting.services.engine, await acting.listable(JOBS, namespace)) | found


async def _origins_of_page(acting: Acting, namespace: str | None, bodies: Iterable[Object]) -> Origins:
    """Who may not read FineTuneJobs is not told whose judgements they were."""
    named = {(_job_of(body), _job_uid_of(body)): body for body in bodies if _job_of(body)}
    if len(named) > MAX_SINGLE_READS:
        try:
            return await _origins(acting, namespace)
        except Problem as problem:
            if problem.status != FORBIDDEN:
                raise
            return {}
    found: dict[str, tuple[str | None, str | None]] = {}
    for origin in await asyncio.gather(*(_origin(acting, body) for body in named.values())):
        found |= origin
    return found


def _model_of(body: Object) -> tuple[str, str]:
    """With its namespace."""
    return body["metadata"]["namespace"], body["spec"]["model"]


def _job_of(body: Object) -> ObjectId | None:
    name = body["spec"].get("lineage", {}).get("fineTuneJob")
    return ObjectId(body["metadata"]["namespace"], name) if name else None


def _job_uid_of(body: Object) -> str | None:
    uid: str | None = body["spec"].get("lineage", {}).get("jobUid")
    return uid


async def _detail(acting: Acting, body: Object, family: Family) -> VersionDetail:
    return version_detail(body, active_ids(family.values()), await _origin(acting, body))


async def _origin(acting: Acting, body: Object) -> Origins:
    """Of its FineTuneJob, deleted or not."""
    job, uid = _job_of(body), _job_uid_of(body)
    if job is None or uid is None:
        return {}
    try:
        found = origins_of([await acting.get(JOBS, job)])
        if uid in found:
            return found
    except Problem as problem:
        if problem.status == FORBIDDEN:
            return {}
        if problem.status != NOT_FOUND:
            raise
    return await mirrored.origins(acting.services.engine, JOBS.plural, [uid], (job.namespace,))
