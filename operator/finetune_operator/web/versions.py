"""Public: fine-tuned models, each version of which is a ModelVersion read and changed in the caller's name."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query

from finetune_operator.core.routing import active_version, rival_pins
from finetune_operator.core.version_changes import PIN, UNPIN, previous_version, serving_fields
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import CallerOf, require_caller
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery, ObjectId
from finetune_operator.web.job_routes import CHANGING, READING, After
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object, ServicesOf
from finetune_operator.web.version_views import (
    DeployRequest,
    Origins,
    RollbackRequest,
    VersionDetail,
    VersionList,
    active_ids,
    origin_of,
    origins_of,
    version_detail,
    version_entry,
)

FORBIDDEN, GONE = 403, 404
ModelId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN, description="`<namespace>.<name>` of a version")]

router = APIRouter(prefix="/v1/fine-tuning/models", tags=["models"], dependencies=[Depends(require_caller)])


@router.get("", responses=READING)
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
    """Versions, the newest first. `philosopher` and `domain` are known as long as the FineTuneJob is there."""
    acting = Acting(services, caller)
    origins = await _origins(acting, namespace, needed=philosopher is not None or domain is not None)

    def chosen(body: Object) -> bool:
        whose, what = origin_of(body, origins)
        return (
            (model is None or body["spec"]["model"] == model)
            and (state is None or body.get("status", {}).get("state") == state)
            and (philosopher is None or whose == philosopher)
            and (domain is None or what == domain)
        )

    bodies = await acting.every(VERSIONS, namespace)
    page = acting.page_of(bodies, limit, after, chosen)
    shown = {(body["metadata"]["namespace"], body["spec"]["model"]) for body in page.items}
    active = active_ids(body for body in bodies if (body["metadata"]["namespace"], body["spec"]["model"]) in shown)
    entries = tuple(version_entry(body, active, origins) for body in page.items)
    return VersionList(models=entries, total=page.total, has_more=page.has_more)


@router.get("/{model_id}", responses=READING)
async def get_model(services: ServicesOf, caller: CallerOf, model_id: ModelId) -> VersionDetail:
    """One version."""
    acting = Acting(services, caller)
    return await _detail(acting, await acting.get(VERSIONS, acting.identified(model_id)))


@router.post("/{model_id}/deploy", responses=CHANGING)
async def post_deploy(
    services: ServicesOf,
    caller: CallerOf,
    model_id: ModelId,
    request: Annotated[DeployRequest, Body()] = DeployRequest(),  # noqa: B008 - frozen
) -> VersionDetail:
    """Serve it, and have the model's name stand for it as soon as it answers. Asking again changes nothing."""
    acting = Acting(services, caller)
    body = await acting.get(VERSIONS, acting.identified(model_id))
    serving = serving_fields(request.gpu_memory_utilization, request.max_model_len, request.tensor_parallel_size)
    notes = {"notes": request.notes} if request.notes is not None else {}
    return await _detail(acting, await _pin(acting, body, {"serving": serving, **notes}))


@router.post("/{model_id}/rollback", responses=CHANGING)
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
    bodies = {each["metadata"]["name"]: each for each in await _family(acting, identity.namespace, model)}
    family = [ModelVersion.parse(each) for each in bodies.values()]
    active = active_version(family)
    if active is None or active.metadata.name != identity.name:
        now = f"{active.metadata.name} is" if active else "none is"
        detail = f"{identity.name} is not the active version of {model} ({now}): deploy the one that you want"
        raise Problem(409, "not-active", detail)
    if request.to is not None:
        if request.to not in bodies:
            raise Problem(404, "unknown-model-version", f"{model} has no version {request.to}")
        return await _detail(acting, await _pin(acting, bodies[request.to], {}))
    previous = previous_version(active, family)
    if previous is None:
        detail = f"no version was active before {identity.name}, or it is gone or failed: say `to` which one"
        raise Problem(409, "no-previous-version", detail)
    return await _detail(acting, await _pin(acting, bodies[previous.metadata.name], {}))


async def _pin(acting: Acting, body: Object, spec: dict[str, Any]) -> Object:
    """The new pin comes first, so that the model's name never falls back meanwhile; then pins that could win go."""
    bodies = await _family(acting, body["metadata"]["namespace"], body["spec"]["model"])
    changed = await acting.change(VERSIONS, body, PIN | spec)
    pinned = ModelVersion.parse(changed)
    rivals = {rival.metadata.name for rival in rival_pins(pinned, map(ModelVersion.parse, bodies))}
    for rival in (each for each in bodies if each["metadata"]["name"] in rivals):
        try:
            await acting.change(VERSIONS, rival, UNPIN)
        except Problem as problem:
            if problem.status != GONE:
                raise
    return changed


async def _family(acting: Acting, namespace: str, model: str) -> list[Object]:
    return [body for body in await acting.every(VERSIONS, namespace) if body["spec"]["model"] == model]


async def _origins(acting: Acting, namespace: str | None, *, needed: bool) -> Origins:
    """Who may not list FineTuneJobs is not told whose judgements they were, and may not ask by them."""
    try:
        return origins_of(await acting.every(JOBS, namespace))
    except Problem as problem:
        if needed or problem.status != FORBIDDEN:
            raise
        return {}


async def _detail(acting: Acting, body: Object) -> VersionDetail:
    namespace = body["metadata"]["namespace"]
    active = active_ids(await _family(acting, namespace, body["spec"]["model"]))
    return version_detail(body, active, await _origin(acting, body, namespace))


async def _origin(acting: Acting, body: Object, namespace: str) -> Origins:
    """Of its FineTuneJob, unless that is gone or another one of its name."""
    name = body["spec"].get("lineage", {}).get("fineTuneJob")
    if not name:
        return {}
    try:
        return origins_of([await acting.get(JOBS, ObjectId(namespace, name))])
    except Problem as problem:
        if problem.status not in (FORBIDDEN, GONE):
            raise
        return {}
