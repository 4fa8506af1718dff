"""Page of one training: where it stands, its curve and log, what came out, and what can be done with it."""

from typing import Annotated

from fastapi import Form, Path
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.job_changes import repeated_spec
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.web.acting import JOBS
from finetune_operator.web.dashboard.charts import Curve, Line
from finetune_operator.web.dashboard.commands import job_commands
from finetune_operator.web.dashboard.fine_tuning import PATH
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import Visit, VisitOf
from finetune_operator.web.ids import NAME_PATTERN, NAMESPACE_PATTERN, ObjectId
from finetune_operator.web.job_changes import cancel_job, create_job, suspend_job
from finetune_operator.web.job_events import events_of
from finetune_operator.web.job_logs import kept_logs, log_tail
from finetune_operator.web.job_requests import JobRequest
from finetune_operator.web.job_views import detail_of, entry_of, is_finished
from finetune_operator.web.jobs import ProgressSeries, get_series
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.training_jobs import get_training_metrics
from finetune_operator.web.training_views import artifacts_of

JOBS_PATH = f"{PATH}/jobs"
CURVE_MAX_POINTS = 600

Namespace = Annotated[str, Path(pattern=f"^{NAMESPACE_PATTERN}$")]
Name = Annotated[str, Path(max_length=253, pattern=f"^{NAME_PATTERN}$")]

router = page_router(JOBS_PATH)


def job_path(found: ObjectId) -> str:
    return f"{JOBS_PATH}/{found.namespace}/{found.name}"


@router.get("/{namespace}/{name}")
async def job_page(visit: VisitOf, namespace: Namespace, name: Name) -> HTMLResponse:
    """All that is known of it."""
    found = ObjectId(namespace, name)
    body = await visit.acting.find(JOBS, str(found))
    detail, job = detail_of(body), parsed(FineTuneJob, body)
    finished = is_finished(body)
    return visit.render(
        "job.html",
        job=detail,
        path_of_job=job_path(found),
        status=job.status,
        conditions=job.status.conditions,
        events=tuple(reversed(events_of(body))),
        metrics=await get_training_metrics(visit.services, visit.caller, str(found)),
        artifacts=artifacts_of(body),
        is_finished=finished,
        yaml=yaml_text(detail.manifest),
        commands=job_commands(found, is_finished=finished, is_suspended=detail.suspended),
        retry_key=visit.services.suffix(),
    )


@router.get("/{namespace}/{name}/card")
async def job_card(visit: VisitOf, namespace: Namespace, name: Name) -> HTMLResponse:
    """Where it stands, for the list of those that go on."""
    body = await visit.acting.find(JOBS, str(ObjectId(namespace, name)))
    return visit.render("fragments/job_card.html", job=entry_of(body))


@router.get("/{namespace}/{name}/curve")
async def job_curve(visit: VisitOf, namespace: Namespace, name: Name) -> Curve:
    """Its losses by steps."""
    found = str(ObjectId(namespace, name))
    return curve_of(await get_series(visit.services, visit.caller, found, CURVE_MAX_POINTS))


@router.get("/{namespace}/{name}/log")
async def job_log(visit: VisitOf, namespace: Namespace, name: Name) -> HTMLResponse:
    """The end of its log."""
    body = await visit.acting.find(JOBS, str(ObjectId(namespace, name)))
    told = await part(log_tail(visit.acting, body))
    is_read = told.value is not None and told.value.text is not None
    kept = () if is_read else await kept_logs(visit.services, body)
    return visit.render(
        "fragments/log.html", log=told.value, kept=kept, refusal=told.refusal, is_finished=is_finished(body)
    )


@router.post("/{namespace}/{name}/cancel")
async def cancel(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    await cancel_job(visit.acting, str(ObjectId(namespace, name)))
    return visit.go(job_path(ObjectId(namespace, name)))


@router.post("/{namespace}/{name}/suspend")
async def suspend(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    return await _suspended(visit, ObjectId(namespace, name), suspend=True)


@router.post("/{namespace}/{name}/resume")
async def resume(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    return await _suspended(visit, ObjectId(namespace, name), suspend=False)


@router.post("/{namespace}/{name}/retry")
async def retry(
    visit: VisitOf, namespace: Namespace, name: Name, key: Annotated[str, Form(pattern=r"^[!-~]{1,64}$")]
) -> Response:
    """A new training of the same spec; the form's key makes it once, however often the form is sent."""
    body = await visit.acting.find(JOBS, str(ObjectId(namespace, name)))
    request = JobRequest(namespace=namespace, spec=repeated_spec(body["spec"]))
    made = await create_job(visit.acting, request, f"{name}/{key}", interface=JOBS_PATH)
    return visit.go(job_path(ObjectId(namespace, made.body["metadata"]["name"])))


async def _suspended(visit: Visit, found: ObjectId, *, suspend: bool) -> Response:
    await suspend_job(visit.acting, str(found), suspend=suspend)
    return visit.go(job_path(found))


def curve_of(series: ProgressSeries) -> Curve:
    """Training loss, and the loss on held-out rows where that was measured; a later attempt goes over an earlier."""
    points = {point.step: point for point in series.points}
    chosen = [points[step] for step in sorted(points)]
    lines = [Line(label="training loss", y=tuple(point.loss for point in chosen), smooth=True)]
    if any(point.eval_loss is not None for point in chosen):
        lines.append(Line(label="held-out loss", y=tuple(point.eval_loss for point in chosen)))
    return Curve(x_label="step", x=tuple(float(point.step) for point in chosen), series=tuple(lines))


PAGE = Page(router)
