"""What a request makes of FineTuneJobs, whichever interface it came by."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from finetune_operator.core.decimals import decimal_text
from finetune_operator.resources.finetunejob import KIND
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import JOBS, Acting
from finetune_operator.web.creation import (
    Created,
    create_once,
    digest_of,
    manifest,
    name_from_key,
    require_one_name,
)
from finetune_operator.web.job_requests import ApiVolumes, BudgetRequest, JobRequest, WrongRequest, spec_of
from finetune_operator.web.job_views import JobStatus, is_finished
from finetune_operator.web.pages import Page
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object

NAME_PREFIX = "job"


async def create_job(
    acting: Acting,
    request: JobRequest,
    key: str | None,
    *,
    interface: str,
    said: BaseModel | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> Created:
    """A FineTuneJob in the caller's name; the same key to the same interface makes none twice. Raises problems.

    `said` is the request as the client sent it, where that was another one; `extra` goes into the spec.
    """
    namespace = acting.place_to_make(request.namespace)
    require_one_name(request.name, key)
    try:
        spec = spec_of(request, namespace, api_volumes(acting))
    except WrongRequest as error:
        raise Problem(422, "invalid-request", str(error)) from None
    spec |= extra
    name = request.name or _name(acting, spec, interface, namespace, key)
    body = manifest(KIND, namespace, name, spec, digest_of(said or request) if key else None, annotations)
    return await create_once(acting, JOBS, body)


async def cancel_job(acting: Acting, job_id: str) -> Object:
    """Ask for its end; asking again changes nothing. Raises problems."""
    body = await acting.find(JOBS, job_id)
    if body["spec"].get("cancel"):
        return body
    _require_unfinished(body, "cancelled")
    return await acting.change(JOBS, body, {"cancel": True})


async def suspend_job(acting: Acting, job_id: str, *, suspend: bool) -> Object:
    """Free its resources, or have it go on from its last checkpoint. Raises problems."""
    body = await acting.find(JOBS, job_id)
    _require_unfinished(body, "suspended" if suspend else "resumed")
    if body["spec"].get("cancel"):
        raise Problem(409, "cancelled", f"FineTuneJob {body['metadata']['name']} is being cancelled: create a new one")
    if bool(body["spec"].get("suspend")) == suspend:
        return body
    return await acting.change(JOBS, body, {"suspend": suspend})


async def set_budget(acting: Acting, job_id: str, request: BudgetRequest) -> Object:
    """What it may cost from now on. Raises problems."""
    body = await acting.find(JOBS, job_id)
    _require_unfinished(body, "given a budget")
    budget = None
    if request.max_cost is not None:
        budget = {"maxCost": decimal_text(request.max_cost), "currency": request.currency}
    return await acting.change(JOBS, body, {"budget": budget})


async def jobs_page(
    acting: Acting,
    namespace: str | None,
    limit: int,
    after: str | None,
    *,
    status: JobStatus | None = None,
    model: str | None = None,
    domain: str | None = None,
) -> Page[Object]:
    """FineTuneJobs that the caller may list. Raises problems."""
    wanted = Wanted(JOBS.plural, model=model, states=(status.value,) if status else (), domain=domain)
    return await acting.page(JOBS, namespace, limit, after, wanted)


def _require_unfinished(body: Object, participle: str) -> None:
    if is_finished(body):
        detail = f"FineTuneJob {body['metadata']['name']} has ended and can't be {participle}: create a new one"
        raise Problem(409, "finished", detail)


def _name(acting: Acting, spec: dict[str, object], interface: str, namespace: str, key: str | None) -> str:
    if key is not None:
        return name_from_key(NAME_PREFIX, interface, namespace, acting.caller.name, key)
    model = spec.get("model")
    return f"{model if isinstance(model, str) and model else NAME_PREFIX}-{acting.services.suffix()}"


def api_volumes(acting: Acting) -> ApiVolumes | None:
    """What the api mounts and jobs can read; both are in the namespace that it runs in."""
    settings = acting.services.settings
    places = [(place or "").partition("/") for place in (settings.datasets_claim, settings.ratings_claim)]
    namespace = next((namespace for namespace, _, _ in places if namespace), None)
    return ApiVolumes(namespace, *(claim or None for _, _, claim in places)) if namespace else None
