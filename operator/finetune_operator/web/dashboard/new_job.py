"""Page: a new training. Beside the form is what it would come to: rows, memory, time, and the object itself."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import Query
from pydantic import JsonValue, ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.contract.preflight import Preflight, TokenLengths
from finetune_operator.core.base_model_catalogue import CATALOGUE, catalogued
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.preflight import Rows, preflight, refusal
from finetune_operator.core.training_estimates import Estimate, compared, estimate_of_job
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.manifests.training import training_config
from finetune_operator.resources.finetunejob import KIND, FineTuneJob
from finetune_operator.web.creation import manifest
from finetune_operator.web.dashboard.commands import submit_command
from finetune_operator.web.dashboard.dataset_pages import counted_ratings, dataset_title, exported
from finetune_operator.web.dashboard.fine_tuning import PATH
from finetune_operator.web.dashboard.forms import described, mistakes_of, request_of
from finetune_operator.web.dashboard.job_pages import JOBS_PATH, job_path
from finetune_operator.web.dashboard.permitted import part, told
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import Visit, VisitOf
from finetune_operator.web.dataset_schemas import DatasetEntry, GoldSelection
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_changes import create_job, datasets_claim
from finetune_operator.web.job_requests import JobRequest, WrongRequest, spec_of
from finetune_operator.web.problems import Problem

CHARACTERS_A_TOKEN = 4
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


class Outlook(NamedTuple):
    """What a training would come to, as far as that can be told without its base model's files."""

    rows: int | None
    rows_note: str | None
    found: Preflight | None
    refusal: str | None
    own: Estimate | None
    compared: tuple[Estimate, ...]


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
        spec = spec_of(request, namespace, datasets_claim(visit.acting))
    except WrongRequest as error:
        raise Problem(422, "invalid-request", str(error)) from None
    return manifest(KIND, namespace, request.name or f"{spec['model']}-1", spec, None)


async def outlook(visit: Visit, request: JobRequest, job: FineTuneJob) -> Outlook:
    """Of the object that the request stands for. Raises problems."""
    rows = await told(_rows(visit, request))
    config = training_config(job, NOWHERE)
    known = catalogued(job.spec.base_model.source.hub.id) if job.spec.base_model.source.hub else None
    count = rows.value.count if rows.value else None
    if known is None:
        return Outlook(count, rows.refusal, None, None, None, ())
    found = preflight(known.shape, config, rows.value)
    impossible = refusal(found, config, None)
    return Outlook(
        rows=count,
        rows_note=rows.refusal,
        found=found,
        refusal=f"{impossible.message}: {impossible.remedy}" if impossible else None,
        own=estimate_of_job(found, job.spec.resources, job.spec.scheduling, visit.services.settings.prices),
        compared=compared(found, visit.services.settings.prices) if found.work else (),
    )


async def _rows(visit: Visit, request: JobRequest) -> Rows | None:
    """Of an exported dataset, or of the ratings that the filters leave; lengths follow from characters."""
    if request.dataset_path is not None:
        dataset = next((each for each in await exported(visit) if request.dataset_path.startswith(f"{each.id}/")), None)
        return _rows_of(dataset, request) if dataset else None
    selection = GoldSelection(**request.model_dump(include=set(FILTERS), exclude_unset=True))
    counted = await counted_ratings(visit, selection)
    count = min(counted.rows, request.limit or counted.rows)
    characters = counted.average_prompt_characters + counted.average_response_characters
    return _equally_long(round(count * (1 - float(request.test_fraction))), characters, request)


def _rows_of(dataset: DatasetEntry, request: JobRequest) -> Rows:
    train = next(file for file in dataset.files if file.name == "train.jsonl")
    share = 1 - float(request.test_fraction)
    return _equally_long(round(train.rows * share), train.bytes / max(1, train.rows), request)


def _equally_long(rows: int, characters: float, request: JobRequest) -> Rows:
    """As if all had the average length, which says how much work they are, and not which of them would be cut."""
    if not rows:
        return Rows(0)
    tokens = max(1, round(characters / CHARACTERS_A_TOKEN))
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
