"""Pages of batch runs: a whole dataset through one version or two, the answers as files, and their blind comparison."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from fastapi import Query
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.contract.batch_answers import TOLD_ROWS
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.manifests.volume_copies import copy_script
from finetune_operator.resources.batch_inference import BatchPhase
from finetune_operator.resources.modelversion import State
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import BATCHES, JOBS, Acting
from finetune_operator.web.batch_changes import (
    answers_of,
    batches_page,
    cancel_batch,
    create_batch,
    delete_batch,
    objects_of,
    suspend_batch,
)
from finetune_operator.web.batch_requests import BatchRequest
from finetune_operator.web.batch_routes import AfterRow, BatchId
from finetune_operator.web.batch_views import batch_detail, batch_entry, is_finished
from finetune_operator.web.dashboard.batch_forms import BatchForm
from finetune_operator.web.dashboard.commands import batch_commands
from finetune_operator.web.dashboard.dataset_pages import dataset_title, exported
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import newest_versions, options_of
from finetune_operator.web.dashboard.visits import NavEntry, Visit, VisitOf
from finetune_operator.web.dataset_schemas import DatasetEntry
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_routes import After
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object

PATH = "/batches"
LISTED = 50
SHOWN_ROWS = 10
TONES = {
    BatchPhase.PENDING: "wait",
    BatchPhase.RUNNING: "busy",
    BatchPhase.SUSPENDED: "quiet",
    BatchPhase.SUCCEEDED: "good",
    BatchPhase.FAILED: "bad",
    BatchPhase.CANCELLED: "quiet",
}

NOT_SERVED = (State.FAILED, State.ARCHIVED)

router = page_router(PATH)


@router.get("")
async def list_page(visit: VisitOf, after: After = None, phase: BatchPhase | None = None) -> HTMLResponse:
    """The newest first, all or those in one phase."""
    page = await part(batches_page(visit.acting, None, LISTED, after, phase=phase))
    return visit.render(
        "batches.html",
        batches=each_shown(batch_entry, page.value.items) if page.value else (),
        page=page.value,
        refusal=page.refusal,
        phase=phase,
        phases=tuple(BatchPhase),
        tones=TONES,
    )


@router.get("/new")
async def new_batch_page(
    visit: VisitOf,
    version: Annotated[str | None, Query(max_length=317)] = None,
    dataset_path: Annotated[str | None, Query(max_length=64)] = None,
) -> HTMLResponse:
    """The form; a version or a dataset may be chosen already."""
    known, claim, datasets = await asyncio.gather(
        newest_versions(visit.acting), part(_ratings_claim(visit.acting)), part(exported(visit))
    )
    served = [each for each in known if each.spec.serving is not None and each.status.state not in NOT_SERVED]
    parts = [each for dataset in datasets.value or () for each in _parts(dataset)]
    return visit.render(
        "new_batch.html",
        options=options_of(served, version),
        opponents=[(each.metadata.name, each.metadata.name) for each in served],
        version=version or "",
        name=f"answers-{visit.services.suffix()}",
        claim=claim.value or "",
        parts=parts,
        source=dataset_path if dataset_path in dict(parts) else None,
        defaults={name: field.default for name, field in BatchForm.model_fields.items()},
    )


@router.post("/preview")
async def preview(visit: VisitOf) -> HTMLResponse:
    """What the form would make, or what is wrong with it."""
    try:
        form, request = _form(visit, await visit.form())
        made = objects_of(visit.acting, request, form.namespace, form.name)
    except Problem as problem:
        return visit.render("fragments/manifest.html", mistake=problem.detail)
    documents = [yaml_text(body) for body in made if body is not None]
    return visit.render("fragments/manifest.html", mistake=None, yaml="---\n".join(documents), file="batch.yaml")


@router.post("")
async def create(visit: VisitOf) -> Response:
    """Make it, and the test that gets its answers; sent again it is the same one."""
    form, request = _form(visit, await visit.form())
    made = await create_batch(visit.acting, request, None, form.digest)
    return visit.go(f"{PATH}/{ObjectId(*_place(made.body))}")


@router.get("/{batch_id}")
async def batch_page(visit: VisitOf, batch_id: BatchId, after: AfterRow = 0, named: bool = False) -> HTMLResponse:
    """How far it is, what was answered, how to get the files, and where people judge.

    Answers that people are to judge blind are shown with names to who asks for it by `named`.
    """
    body = await visit.acting.find(BATCHES, batch_id)
    batch = batch_detail(body)
    found = ObjectId(batch.namespace, batch.name)
    finished = is_finished(body)
    is_shown = named or batch.ab_test is None
    directory = batch.directory or (batch.results.uri if batch.results else None)
    return visit.render(
        "batch.html",
        batch=batch,
        here=f"{PATH}/{found}",
        tones=TONES,
        is_finished=finished,
        answers=await answers_of(visit.acting, body, after, SHOWN_ROWS) if is_shown else None,
        after=after,
        named=named,
        script=copy_script(f"BatchInference {found.name}", found.name, found.namespace, directory) if directory else "",
        yaml=yaml_text(batch.manifest),
        commands=batch_commands(found, is_finished=finished, is_suspended=batch.suspended),
    )


@router.get("/{batch_id}/answers.jsonl")
async def download(visit: VisitOf, batch_id: BatchId) -> Response:
    """What the api keeps of the answers, a line a row."""
    body = await visit.acting.find(BATCHES, batch_id)
    told = await answers_of(visit.acting, body, 0, TOLD_ROWS)
    lines = "".join(f"{row.model_dump_json()}\n" for row in told.rows)
    named = f'attachment; filename="{body["metadata"]["name"]}.answers.jsonl"'
    return Response(lines, media_type="application/jsonl", headers={"Content-Disposition": named})


@router.post("/{batch_id}/cancel")
async def cancel(visit: VisitOf, batch_id: BatchId) -> Response:
    body = await cancel_batch(visit.acting, batch_id)
    return visit.go(f"{PATH}/{ObjectId(*_place(body))}")


@router.post("/{batch_id}/suspend")
async def suspend(visit: VisitOf, batch_id: BatchId) -> Response:
    return await _suspended(visit, batch_id, suspend=True)


@router.post("/{batch_id}/resume")
async def resume(visit: VisitOf, batch_id: BatchId) -> Response:
    return await _suspended(visit, batch_id, suspend=False)


@router.post("/{batch_id}/delete")
async def delete(visit: VisitOf, batch_id: BatchId) -> Response:
    """It ends where it runs; the files of its answers stay."""
    await delete_batch(visit.acting, batch_id)
    return visit.go(PATH)


async def _suspended(visit: Visit, batch_id: str, *, suspend: bool) -> Response:
    body = await suspend_batch(visit.acting, batch_id, suspend=suspend)
    return visit.go(f"{PATH}/{ObjectId(*_place(body))}")


def _form(visit: Visit, sent: Mapping[str, Any]) -> tuple[BatchForm, BatchRequest]:
    """Raises 422 with what to change."""
    said = {name: text.strip() for name, text in sent.items() if isinstance(text, str) and text.strip()}
    said = {name: text for name, text in said.items() if name in BatchForm.model_fields}
    found = visit.acting.identified(said.get("model_version", ""))
    said |= {"namespace": found.namespace, "model_version": found.name, "judged": said.get("judged", "false")}
    try:
        form = BatchForm.model_validate_strings(said)
        return form, form.request()
    except ValidationError as error:
        raise Problem(422, "invalid-request", mistakes_of(error)) from None


def _parts(dataset: DatasetEntry) -> Iterator[tuple[str, str]]:
    """Its files that have rows, as one may choose them."""
    for file in dataset.files:
        if file.rows:
            rest = ", held-out rows" if file.name == "test.jsonl" else ""
            yield f"{dataset.id}/{file.name}", f"{dataset_title(dataset)}{rest}"


async def _ratings_claim(acting: Acting) -> str | None:
    """The volume of the ratings that the newest of the latest trainings on one has read."""
    page = await acting.page(JOBS, None, LISTED, None, Wanted(JOBS.plural))
    return next((claim for body in page.items if (claim := _claim(body)) is not None), None)


def _claim(job: Object) -> str | None:
    claim: str | None = (job["spec"].get("dataset", {}).get("ratings") or {}).get("claimName")
    return claim


def _place(body: Object) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


PAGE = Page(router, NavEntry("Batches", PATH, 30))
