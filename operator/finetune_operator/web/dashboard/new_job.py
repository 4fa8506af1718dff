"""Page: a new training. Beside the form is what it would come to: rows, memory, time, cost, and the object itself."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from fastapi import Query
from pydantic import JsonValue, ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.contract.preflight import Preflight, TokenLengths
from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import GPU
from finetune_operator.core.preflight import Rows, preflight, refusal, remote_preflight
from finetune_operator.core.remote_training import CHARACTERS_PER_TOKEN
from finetune_operator.core.training_estimates import (
    UNKNOWN_LENGTHS,
    UNKNOWN_REMOTE_TIME,
    Estimate,
    Spread,
    compared,
    estimate_at_provider,
    estimate_of_job,
    on_any_gpu,
)
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.manifests.training import training_config
from finetune_operator.resources.finetunejob import KIND, FineTuneJob
from finetune_operator.web.creation import manifest
from finetune_operator.web.dashboard.base_model_size import size_of
from finetune_operator.web.dashboard.commands import submit_command
from finetune_operator.web.dashboard.dataset_pages import counted_ratings, dataset_title, exported
from finetune_operator.web.dashboard.fine_tuning import PATH
from finetune_operator.web.dashboard.forms import described, mistakes_of, request_of
from finetune_operator.web.dashboard.gpu_types import offered
from finetune_operator.web.dashboard.job_pages import JOBS_PATH, job_path
from finetune_operator.web.dashboard.permitted import part, told
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import Visit, VisitOf
from finetune_operator.web.dataset_schemas import GoldSelection
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_changes import api_volumes, create_job
from finetune_operator.web.job_requests import JobRequest, WrongRequest, spec_of
from finetune_operator.web.problems import Problem

NO_GPU_PRICE = f'no price for {GPU}: set prices.perHour."{GPU}" or prices.gpuTypes in the chart\'s values'
UNKNOWN_REMOTE_MEMORY = "a provider trains on its own machines, and none of this cluster's GPUs is taken"
FILTERS = frozenset({"philosopher", "domain", "task_type", "min_rating", "gold_star_only", "limit"})
# Those of spec.openai, but for the Secret, which has two parts.
PROVIDER_FIELDS: Mapping[str, str | None] = {
    "openai_secret": None,
    "openai_base_url": "baseUrl",
    "openai_suffix": "suffix",
    "openai_multiplier": "learningRateMultiplier",
}
NOWHERE = OperatorConfig(operator_image="", trainer_image="", server_image="")

router = page_router(PATH)


class Unknown(NamedTuple):
    """Which figures are not known, why, and what would make them known."""

    figures: tuple[str, ...]
    why: str


class Counted(NamedTuple):
    """Training rows, and the characters of one on average."""

    rows: int
    characters: float


class Outlook(NamedTuple):
    """What a training would come to, as far as that can be told without its base model's files.

    For each figure that is not known one of `unknown` has its name.
    """

    rows: int | None
    found: Preflight
    own: Estimate
    is_remote: bool
    unknown: tuple[Unknown, ...]
    refusal: str | None = None
    compared: tuple[Estimate, ...] = ()
    spread: Spread | None = None
    """Over the types of GPUs, of a training that takes any."""


@router.get("/new")
async def new_job_page(
    visit: VisitOf,
    base_model: Annotated[str | None, Query(max_length=1024)] = None,
    dataset_path: Annotated[str | None, Query(max_length=1024)] = None,
) -> HTMLResponse:
    """The form; a base model or a dataset may be chosen already."""
    datasets = await part(exported(visit))
    return visit.render(
        "new_job.html",
        fields=described(JobRequest),
        catalogue=CATALOGUE,
        gpu_types=offered(visit.services.settings.prices),
        chosen_datasets=[(f"{each.id}/train.jsonl", dataset_title(each)) for each in datasets.value or ()],
        namespace_options=[(each, each) for each in visit.services.settings.namespaces],
        base_model=base_model or "",
        dataset_path=dataset_path or "",
        key=visit.services.suffix(),
    )


@router.post("/new/outlook")
async def outlook_of_form(visit: VisitOf) -> HTMLResponse:
    """The object that would be made, and what it would take; mistakes are told and nothing is made."""
    form = await visit.form()
    try:
        request = job_request(form)
        body = _manifest(visit, request)
        job = FineTuneJob.parse(body | {"metadata": body["metadata"] | {"uid": "none"}})
    except Problem as problem:
        return visit.render("fragments/outlook.html", mistake=problem.detail)
    except ValidationError as error:
        return visit.render("fragments/outlook.html", mistake=mistakes_of(error))
    return visit.render(
        "fragments/outlook.html",
        mistake=None,
        outlook=await outlook(visit, request, job),
        yaml=yaml_text(body),
        command=submit_command("job.yaml"),
    )


@router.post("/new")
async def create(visit: VisitOf) -> Response:
    """Train. The form's key makes it once, however often the form is sent; a name of one's own is enough for that."""
    form = await visit.form()
    request = job_request(form)
    key = str(form.get("key", "")) or None
    made = await create_job(visit.acting, request, None if request.name else key, interface=JOBS_PATH)
    return visit.go(job_path(ObjectId(made.body["metadata"]["namespace"], made.body["metadata"]["name"])))


def job_request(form: Mapping[str, Any]) -> JobRequest:
    """What the form says; of a provider it has fields of its own. Raises problems."""
    request = request_of(JobRequest, form)
    texts = {name: str(form.get(name, "")).strip() for name in PROVIDER_FIELDS}
    said = {name: text for name, text in texts.items() if text}
    if request.backend != "openai":
        if said:
            remedy = "choose the back end of a provider, or leave them empty"
            raise Problem(422, "invalid-request", f"{', '.join(said)}: of a provider; {remedy}")
        return request
    name, slash, key = said.get("openai_secret", "").partition("/")
    if not (name and slash and key):
        raise Problem(422, "invalid-request", "openai_secret: write <name>/<key> of the Secret with the API key")
    openai: dict[str, JsonValue] = {"secretRef": {"name": name, "key": key}}
    openai |= {member: said[field] for field, member in PROVIDER_FIELDS.items() if member and field in said}
    return request.model_copy(update={"openai": openai})


def _manifest(visit: Visit, request: JobRequest) -> dict[str, Any]:
    """As `create_job` would send it, but for a name that is made up there. Raises problems."""
    namespace = visit.acting.namespace_or_only(request.namespace)
    try:
        spec = spec_of(request, namespace, api_volumes(visit.acting))
    except WrongRequest as error:
        raise Problem(422, "invalid-request", str(error)) from None
    return manifest(KIND, namespace, request.name or f"{spec['model']}-1", spec, None)


async def outlook(visit: Visit, request: JobRequest, job: FineTuneJob) -> Outlook:
    """Of the object that the request stands for."""
    counted = await told(_counted(visit, request))
    rows = counted.value.rows if counted.value else None
    unknown = [Unknown(("Rows",), counted.refusal or _uncounted(request))] if rows is None else []
    config = training_config(job, NOWHERE)
    prices = visit.services.settings.prices
    if remote := job.spec.base_model.source.openai:
        characters = round(counted.value.rows * counted.value.characters) if counted.value else 0
        found = remote_preflight(config, rows, characters) if rows else Preflight()
        own = estimate_at_provider(remote.model, found.remote.tokens if found.remote else None, prices)
        unknown.append(Unknown(("GPU memory",), UNKNOWN_REMOTE_MEMORY))
        unknown.append(Unknown(("Time",), UNKNOWN_REMOTE_TIME))
        return Outlook(rows, found, own, True, (*unknown, *_lacking(found, own)))
    size = await size_of(visit, job)
    found = preflight(size.shape, config, _equally_long(counted.value, request) if counted.value else None)
    own = estimate_of_job(found, job.spec.resources, job.spec.scheduling, prices)
    spread = on_any_gpu(found, prices) if config.gpu_type is None and _takes_gpu(job) else None
    if spread:
        lacking = None if spread.cost else NO_GPU_PRICE
        own = replace(own, seconds=spread.seconds, cost=spread.cost, currency=spread.currency, unknown=lacking)
    if size.unknown:
        own = replace(own, unknown=None)
        unknown.append(Unknown(("Parameters", "GPU memory", "Steps", "Time", "Cost"), size.unknown))
    else:
        unknown += _lacking(found, own)
    impossible = refusal(found, config, None)
    return Outlook(
        rows=rows,
        found=found,
        own=own,
        is_remote=False,
        unknown=tuple(unknown),
        refusal=f"{impossible.message}: {impossible.remedy}" if impossible else None,
        compared=compared(found, prices) if found.work else (),
        spread=spread,
    )


def _takes_gpu(job: FineTuneJob) -> bool:
    return any(GPU in amounts for amounts in (job.spec.resources.limits, job.spec.resources.requests))


def _lacking(found: Preflight, own: Estimate) -> Iterator[Unknown]:
    """Of what follows from a size that is known, or from a provider's price."""
    if found.work is None and found.remote is None:
        yield Unknown(("Steps",), UNKNOWN_LENGTHS)
    lacking = {"Time": own.seconds is None and found.remote is None, "Cost": own.cost is None}
    if own.unknown and (figures := tuple(name for name, is_lacking in lacking.items() if is_lacking)):
        yield Unknown(figures, own.unknown)


def _uncounted(request: JobRequest) -> str:
    """Why nobody has counted the rows of `dataset_path`, or of a spec's own source."""
    where = request.dataset_path or "the dataset"
    return f"{where} is read by the job alone, whose preparation counts its rows: export or upload it here to see them"


async def _counted(visit: Visit, request: JobRequest) -> Counted | None:
    """Of an exported dataset, or of the ratings that the filters leave."""
    share = 1 - float(request.test_fraction)
    if request.dataset_path is not None:
        dataset = next((each for each in await exported(visit) if request.dataset_path.startswith(f"{each.id}/")), None)
        if dataset is None:
            return None
        train = next(file for file in dataset.files if file.name == "train.jsonl")
        return Counted(round(train.rows * share), train.bytes / max(1, train.rows))
    selection = GoldSelection(**request.model_dump(include=set(FILTERS), exclude_unset=True))
    ratings = await counted_ratings(visit, selection)
    characters = ratings.average_prompt_characters + ratings.average_response_characters
    return Counted(round(min(ratings.rows, request.limit or ratings.rows) * share), characters)


def _equally_long(counted: Counted, request: JobRequest) -> Rows:
    """As if all had the average length, which says how much work they are, and not which of them would be cut."""
    rows = counted.rows
    if not rows:
        return Rows(0)
    tokens = max(1, round(counted.characters / CHARACTERS_PER_TOKEN))
    kept = min(tokens, request.max_seq_length) * (2 if request.method == "dpo" else 1)
    lengths = TokenLengths(
        method="Characters",
        sampled_rows=rows,
        p50=tokens,
        p95=tokens,
        max=tokens,
        over_length=0,
        unlearnable=0,
        mean=kept,
        padded_mean=kept,
    )
    return Rows(rows, lengths)


PAGE = Page(router)
