"""Pages of batch runs: a whole dataset through one version or two, the answers as files, and their blind comparison."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.batch_inference import BatchInference, BatchPhase
from finetune_operator.resources.modelversion import State
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import BATCHES, JOBS, TESTS, Acting
from finetune_operator.web.creation import create_once
from finetune_operator.web.dashboard.batch_forms import BatchForm, BatchObjects, objects_of
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import newest_versions, options_of
from finetune_operator.web.dashboard.visits import NavEntry, Visit, VisitOf
from finetune_operator.web.ids import ID_PATTERN, ObjectId
from finetune_operator.web.job_routes import After
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Object
from finetune_operator.web.shown import shown_manifest

PATH = "/batches"
LISTED = 50
BatchId = Annotated[str, Path(max_length=317, pattern=ID_PATTERN)]
TONES = {
    BatchPhase.PENDING: "wait",
    BatchPhase.RUNNING: "busy",
    BatchPhase.SUSPENDED: "quiet",
    BatchPhase.SUCCEEDED: "good",
    BatchPhase.FAILED: "bad",
}

NOT_SERVED = (State.FAILED, State.ARCHIVED)

router = page_router(PATH)


@router.get("")
async def batches_page(visit: VisitOf, after: After = None) -> HTMLResponse:
    """The newest first."""
    page = await visit.acting.page(BATCHES, None, LISTED, after, Wanted(BATCHES.plural))
    batches = each_shown(lambda body: (parsed(BatchInference, body), ObjectId(*_place(body))), page.items)
    return visit.render("batches.html", batches=batches, page=page, tones=TONES)


@router.get("/new")
async def new_batch_page(visit: VisitOf, version: Annotated[str | None, Query(max_length=317)] = None) -> HTMLResponse:
    """The form."""
    known = await newest_versions(visit.acting)
    served = [each for each in known if each.spec.serving is not None and each.status.state not in NOT_SERVED]
    claim = await part(_ratings_claim(visit.acting))
    return visit.render(
        "new_batch.html",
        options=options_of(served, version),
        opponents=[(each.metadata.name, each.metadata.name) for each in served],
        version=version or "",
        name=f"answers-{visit.services.suffix()}",
        claim=claim.value or "",
        defaults={name: field.default for name, field in BatchForm.model_fields.items()},
    )


@router.post("/preview")
async def preview(visit: VisitOf) -> HTMLResponse:
    """What the form would make, or what is wrong with it."""
    try:
        made = _objects(visit, await visit.form())
    except Problem as problem:
        return visit.render("fragments/manifest.html", mistake=problem.detail)
    documents = [yaml_text(shown_manifest(body["kind"], body)) for body in made if body is not None]
    return visit.render("fragments/manifest.html", mistake=None, yaml="---\n".join(documents), file="batch.yaml")


@router.post("")
async def create_batch(visit: VisitOf) -> Response:
    """Make it, and the test that gets its answers; sent again it is the same one."""
    made = _objects(visit, await visit.form())
    if made.test is not None:
        await create_once(visit.acting, TESTS, made.test)
    batch = await create_once(visit.acting, BATCHES, made.batch)
    return visit.go(f"{PATH}/{ObjectId(*_place(batch.body))}")


@router.get("/{batch_id}")
async def batch_page(visit: VisitOf, batch_id: BatchId) -> HTMLResponse:
    """How far it is, where the answers are, and where people judge them."""
    found = visit.acting.identified(batch_id)
    body = await visit.acting.get(BATCHES, found)
    batch = parsed(BatchInference, body)
    test = ObjectId(found.namespace, batch.spec.ab_test.name) if batch.spec.ab_test else None
    return visit.render(
        "batch.html",
        found=found,
        here=f"{PATH}/{found}",
        batch=batch,
        status=batch.status,
        tones=TONES,
        test=test,
        yaml=yaml_text(shown_manifest(BATCHES.kind, body)),
    )


def _objects(visit: Visit, sent: Mapping[str, Any]) -> BatchObjects:
    """Raises 422 with what to change."""
    said = {name: text.strip() for name, text in sent.items() if isinstance(text, str) and text.strip()}
    said = {name: text for name, text in said.items() if name in BatchForm.model_fields}
    found = visit.acting.identified(said.get("model_version", ""))
    said |= {"namespace": found.namespace, "model_version": found.name, "judged": said.get("judged", "false")}
    try:
        return objects_of(BatchForm.model_validate_strings(said))
    except ValidationError as error:
        raise Problem(422, "invalid-request", mistakes_of(error)) from None


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
