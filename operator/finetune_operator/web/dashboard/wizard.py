"""Pages: five steps from ratings to a better model, for somebody who has never seen a terminal.

Choices are in the address (wizard_choices.py); from the training on, the resources themselves say how far it is.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple
from urllib.parse import urlencode

from fastapi import Depends, Path
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.job_texts import family_of
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.finetunejob import KIND, FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web import versions
from finetune_operator.web.acting import JOBS, VERSIONS
from finetune_operator.web.creation import manifest
from finetune_operator.web.dashboard.ab_test_pages import NewTest, context_of_test, created_test
from finetune_operator.web.dashboard.changed_yaml import deployed_yaml, evaluation_yaml
from finetune_operator.web.dashboard.commands import (
    count_commands,
    measuring_command,
    submit_command,
    version_commands,
)
from finetune_operator.web.dashboard.dataset_pages import counted_ratings, exported, shown_counts
from finetune_operator.web.dashboard.forms import described, mistakes_of, request_of
from finetune_operator.web.dashboard.gpu_types import offered
from finetune_operator.web.dashboard.new_job import outlook
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import id_of, newest_tests, newest_versions
from finetune_operator.web.dashboard.visits import NavEntry, Visit, VisitOf
from finetune_operator.web.dashboard.wizard_choices import (
    Choices,
    Spec,
    WrongChoice,
    choices_of,
    prefilled,
    request_of_choices,
    spec_of_choices,
)
from finetune_operator.web.dataset_schemas import GoldSelection
from finetune_operator.web.ids import ID_PATTERN, ObjectId
from finetune_operator.web.job_changes import api_volumes, create_job
from finetune_operator.web.job_requests import JobRequest
from finetune_operator.web.job_views import JobStatus, detail_of, is_finished
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.problems import Problem

PATH = "/wizard"
LISTED_TRAININGS = 20
Id = Annotated[str, Path(max_length=317, pattern=ID_PATTERN)]

router = page_router(PATH)


class Step(NamedTuple):
    """One of the five; `path` is None where it can't be gone to yet."""

    number: int
    title: str
    path: str | None


TITLES = ("Choose a model", "Choose data", "Train", "Compare", "Deploy")


@router.get("")
async def choose_model(visit: VisitOf) -> HTMLResponse:
    """Step 1: a base model to begin with, or an earlier training to repeat with changes."""
    choices = choices_of(visit.request.query_params)
    trainings = await part(_trainings(visit))
    return _step(
        visit,
        1,
        choices,
        "wizard_model.html",
        catalogue=CATALOGUE,
        trainings=trainings.value or (),
        refusal=trainings.refusal,
        fields=described(JobRequest),
    )


@router.get("/data")
async def choose_data(visit: VisitOf) -> HTMLResponse:
    """Step 2: ratings by filters, with live counts, or a dataset that was exported."""
    choices = choices_of(visit.request.query_params)
    like = await _like(visit, choices)
    _require_model(choices)
    datasets = await part(exported(visit))
    return _step(
        visit,
        2,
        choices,
        "wizard_data.html",
        values=prefilled(like) | dict(choices.said),
        fields=described(JobRequest),
        datasets=[(f"{each.id}/train.jsonl", f"{each.format}, {each.rows} rows") for each in datasets.value or ()],
    )


@router.post("/data/count")
async def count(visit: VisitOf) -> HTMLResponse:
    """How many ratings the filters leave; a database that is away stops nobody, since the training asks it again."""
    try:
        counted = await counted_ratings(visit, request_of(GoldSelection, await visit.form()))
    except Problem as problem:
        return shown_counts(visit, None, problem.detail)
    return shown_counts(visit, counted, None)


@router.post("/data/commands")
async def commands(visit: VisitOf) -> HTMLResponse:
    """The same count from a terminal."""
    said = request_of(GoldSelection, await visit.form()).model_dump(mode="json", exclude_defaults=True)
    return visit.render("fragments/commands.html", commands=count_commands(said))


@router.get("/train")
async def choose_settings(visit: VisitOf) -> HTMLResponse:
    """Step 3: settings with their defaults explained, and what they come to."""
    choices = choices_of(visit.request.query_params)
    like = await _like(visit, choices)
    _require_model(choices)
    key = choices.get("key") or visit.services.suffix()
    return _step(
        visit,
        3,
        Choices({**choices.said, "key": key}),
        "wizard_train.html",
        values=prefilled(like) | dict(choices.said),
        gpu_types=offered(visit.services.settings.prices),
        fields=described(JobRequest),
    )


@router.post("/train/outlook")
async def outlook_of_choices(visit: VisitOf) -> HTMLResponse:
    """The object that would be made and what it would take; nothing is made."""
    choices = choices_of(await visit.form())
    try:
        like = await _like(visit, choices)
        body = manifest(KIND, _namespace(visit, choices), *_name_and_spec(visit, choices, like), None)
        job = FineTuneJob.parse(body | {"metadata": body["metadata"] | {"uid": "none"}})
        found = await outlook(visit, request_of_choices(choices, like), job)
    except (Problem, WrongChoice) as mistake:
        return visit.render("fragments/outlook.html", mistake=str(mistake))
    except ValidationError as error:
        return visit.render("fragments/outlook.html", mistake=mistakes_of(error))
    return visit.render(
        "fragments/outlook.html",
        mistake=None,
        outlook=found,
        yaml=yaml_text(body),
        command=submit_command("job.yaml"),
    )


@router.post("/train")
async def train(visit: VisitOf) -> Response:
    """Make the training; the key that is in the address of the form makes it once."""
    choices = choices_of(await visit.form())
    like = await _like(visit, choices)
    namespace = visit.acting.place_to_make(_namespace(visit, choices))
    try:
        _, spec = _name_and_spec(visit, choices, like)
    except WrongChoice as error:
        raise Problem(422, "invalid-request", str(error)) from None
    request = JobRequest(namespace=namespace, spec=spec)
    made = await create_job(visit.acting, request, choices.get("key") or None, interface=PATH)
    return visit.go(f"{PATH}/training/{ObjectId(namespace, made.body['metadata']['name'])}")


@router.get("/training/{job_id}")
async def training(visit: VisitOf, job_id: Id) -> HTMLResponse:
    """Step 3 goes on: how the training goes, live."""
    found = visit.acting.identified(job_id)
    body = await visit.acting.get(JOBS, found)
    job = detail_of(body)
    return _step(
        visit,
        3,
        Choices({}),
        "wizard_training.html",
        job=job,
        here=f"{PATH}/training/{found}",
        status=parsed(FineTuneJob, body).status,
        is_done=job.status == JobStatus.COMPLETED,
        has_failed=is_finished(body) and job.status != JobStatus.COMPLETED,
        again=f"{PATH}/train?{urlencode({'like': found, 'namespace': found.namespace})}",
        yaml=yaml_text(job.manifest),
        next_path=f"{PATH}/compare/{job.model_version}" if job.model_version else None,
    )


@router.get("/compare/{version_id}")
async def compare(visit: VisitOf, version_id: Id) -> HTMLResponse:
    """Step 4: let people judge; the test that there is for this version, or a form for one."""
    found = visit.acting.identified(version_id)
    body = await visit.acting.get(VERSIONS, found)
    version = parsed(ModelVersion, body)
    model = version.spec.model
    family = await newest_versions(visit.acting, found.namespace, model=model)
    test = await _test_of(visit, version)
    opponents = [("base", f"the base model, {version.spec.base_model.name}")]
    opponents += [(str(id_of(each)), each.metadata.name) for each in family if each.metadata.name != found.name]
    deployed = await newest_versions(visit.acting, found.namespace, model=model, states=[State.DEPLOYED])
    active = next(iter(deployed), None)
    return _step(
        visit,
        4,
        Choices({}),
        "wizard_compare.html",
        found=found,
        version=await versions.get_model(visit.services, visit.caller, str(found)),
        version_here=f"{PATH}/compare/{found}",
        measuring=measuring_command(found),
        measured_yaml=evaluation_yaml(found),
        opponents=opponents,
        opponent=str(id_of(active)) if active and active.metadata.name != found.name else "base",
        test_context=await context_of_test(visit, test) if test else None,
        next_path=f"{PATH}/deploy/{found}",
    )


@router.post("/compare/{version_id}")
async def start_test(visit: VisitOf, version_id: Id, form: Annotated[NewTest, Depends()]) -> Response:
    """Make the test; sent again it is the same one."""
    found = visit.acting.identified(version_id)
    await created_test(visit, form)
    return visit.go(f"{PATH}/compare/{found}")


@router.get("/deploy/{version_id}")
async def deploy(visit: VisitOf, version_id: Id) -> HTMLResponse:
    """Step 5: make it answer everybody, and how to go back."""
    found = visit.acting.identified(version_id)
    version = await versions.get_model(visit.services, visit.caller, str(found))
    test = await _test_of(visit, parsed(ModelVersion, await visit.acting.get(VERSIONS, found)))
    return _step(
        visit,
        5,
        Choices({}),
        "wizard_deploy.html",
        found=found,
        version=version,
        here=f"{PATH}/deploy/{found}",
        test=await context_of_test(visit, test) if test else None,
        commands=version_commands(found),
        yaml=deployed_yaml(version),
        back=f"{PATH}/compare/{found}",
    )


def _step(visit: Visit, number: int, choices: Choices, template: str, **context: object) -> HTMLResponse:
    return visit.render(template, steps=_steps(number, choices, context), number=number, choices=choices, **context)


def _steps(number: int, choices: Choices, context: Mapping[str, object]) -> tuple[Step, ...]:
    """Links back to what was chosen, and on to what there is already."""
    query = f"?{urlencode(choices.said)}" if choices.said else ""
    paths: dict[int, str | None] = {1: f"{PATH}{query}"}
    if choices.said:
        paths |= {2: f"{PATH}/data{query}", 3: f"{PATH}/train{query}"}
    found = context.get("found")
    if found is not None:
        paths |= {4: f"{PATH}/compare/{found}", 5: f"{PATH}/deploy/{found}"}
    following = context.get("next_path")
    if isinstance(following, str):
        paths[number + 1] = following
    reachable = max([number, *(place for place, path in paths.items() if path and place == number + 1)])
    return tuple(
        Step(place, title, paths.get(place) if place <= reachable and place != number else None)
        for place, title in enumerate(TITLES, 1)
    )


async def _trainings(visit: Visit) -> tuple[tuple[str, str], ...]:
    """Ids and names of the newest, whose settings can be taken over."""
    page = await visit.acting.page(JOBS, None, LISTED_TRAININGS, None, Wanted(JOBS.plural))
    return tuple(
        (
            str(ObjectId(body["metadata"]["namespace"], body["metadata"]["name"])),
            f"{body['metadata']['name']}: {body['spec']['model']} from {body['spec']['baseModel']['name']}",
        )
        for body in page.items
        if "openai" not in body["spec"]
    )


async def _like(visit: Visit, choices: Choices) -> Spec | None:
    """The spec of the training to repeat. Raises problems."""
    if not (named := choices.get("like")):
        return None
    spec: Spec = (await visit.acting.find(JOBS, named))["spec"]
    return spec


def _require_model(choices: Choices) -> None:
    if not choices.get("base_model") and not choices.get("like"):
        raise Problem(422, "no-base-model", "choose a model first: that is step 1 of the wizard, at /wizard")


def _namespace(visit: Visit, choices: Choices) -> str:
    like = choices.get("like")
    told = choices.get("namespace") or (visit.acting.identified(like).namespace if like else None)
    return visit.acting.namespace_or_only(told)


def _name_and_spec(visit: Visit, choices: Choices, like: Spec | None) -> tuple[str, Spec]:
    """The name is only shown: `create_job` makes one up from the key. Raises `WrongChoice`."""
    named = choices.get("model") or (like or {}).get("model", "") or family_of(choices.get("base_model"))
    chosen = Choices({**choices.said, "model": named} if named else choices.said)
    spec = spec_of_choices(chosen, like, _namespace(visit, choices), api_volumes(visit.acting))
    return f"{spec['model']}-1", spec


async def _test_of(visit: Visit, version: ModelVersion) -> ObjectId | None:
    """The newest one with this version as candidate that was not ended early."""
    tests = await newest_tests(visit.acting, version.metadata.namespace, version.spec.model)
    found = (
        test.metadata
        for test in tests
        if test.spec.candidate.model_version == version.metadata.name and not test.spec.cancel
    )
    newest = next(found, None)
    return ObjectId(newest.namespace, newest.name) if newest else None


PAGE = Page(router, NavEntry("Wizard", PATH, 5))
