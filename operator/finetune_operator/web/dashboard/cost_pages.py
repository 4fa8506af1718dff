"""Pages of cost: what trainings and answers cost, and a calculator of whether a version pays."""

from collections.abc import Awaitable
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query
from pydantic import ValidationError
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.roi import RoiInputs, return_on_investment
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web import costs
from finetune_operator.web.acting import VERSIONS
from finetune_operator.web.cost_views import RoiInput, RoiReport, TrainingCostList, VersionCostList
from finetune_operator.web.dashboard.charts import Curve, Line
from finetune_operator.web.dashboard.commands import roi_commands
from finetune_operator.web.dashboard.forms import mistakes_of
from finetune_operator.web.dashboard.model_pages import Name, Namespace
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.roi_form import FIELDS, RoiForm, given, shown
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.version_choices import CHOICES, newest_tests
from finetune_operator.web.dashboard.visits import NavEntry, Visit, VisitOf
from finetune_operator.web.ids import ID_PATTERN, NamespaceQuery, ObjectId
from finetune_operator.web.job_changes import set_budget
from finetune_operator.web.job_requests import BudgetRequest
from finetune_operator.web.job_routes import After
from finetune_operator.web.pages import id_of
from finetune_operator.web.problems import Problem

PATH = "/cost"
SHOWN = 8
LISTED = 50
CURVE_POINTS = 60
Text = Annotated[str | None, Query(max_length=256)]
Id = Annotated[str | None, Query(max_length=317, pattern=f"^$|{ID_PATTERN}")]

router = page_router(PATH)


@router.get("")
async def cost_page(visit: VisitOf, namespace: NamespaceQuery = None) -> HTMLResponse:
    """Totals, and the newest of what they are made of."""
    found = await part(costs.overview(visit.acting, namespace, SHOWN))
    return visit.render("cost.html", found=found.value, refusal=found.refusal, namespace=namespace)


@router.get("/trainings")
async def trainings_page(
    visit: VisitOf,
    namespace: NamespaceQuery = None,
    model: Text = None,
    after: After = None,
    *,
    deleted: bool = False,
) -> HTMLResponse:
    """What each training costs; deleted ones have a list of their own."""
    listing = costs.gone_trainings if deleted else costs.trainings
    found = listing(visit.acting, namespace, model or None, LISTED, after)
    return await _listed(visit, "cost_trainings.html", found, namespace=namespace, model=model, deleted=deleted)


@router.post("/trainings/{namespace}/{name}/budget")
async def change_budget(visit: VisitOf, namespace: Namespace, name: Name) -> Response:
    """What it may cost from now on; an empty field is no budget."""
    form = await visit.form()
    said = {"max_cost": str(form.get("max_cost", "")).strip() or None, "currency": form.get("currency", "USD")}
    try:
        request = BudgetRequest.model_validate(said)
    except ValidationError as error:
        raise Problem(422, "invalid-request", mistakes_of(error)) from None
    await set_budget(visit.acting, str(ObjectId(namespace, name)), request)
    return visit.go(f"{PATH}/trainings")


@router.get("/models")
async def models_page(
    visit: VisitOf,
    namespace: NamespaceQuery = None,
    model: Text = None,
    after: After = None,
    *,
    deleted: bool = False,
) -> HTMLResponse:
    """What the answers of each version have cost; deleted ones have a list of their own."""
    listing = costs.gone_versions if deleted else costs.versions
    found = listing(visit.acting, namespace, model or None, LISTED, after)
    return await _listed(visit, "cost_models.html", found, namespace=namespace, model=model, deleted=deleted)


async def _listed(
    visit: Visit, template: str, found: Awaitable[TrainingCostList | VersionCostList], **chosen: object
) -> HTMLResponse:
    listed = await part(found)
    return visit.render(template, listed=listed.value, refusal=listed.refusal, **chosen)


@router.get("/roi")
async def roi_page(visit: VisitOf, version: Id = None, test: Id = None) -> HTMLResponse:
    """The calculator of one version; of none, a choice."""
    versions = await part(visit.acting.page(VERSIONS, None, CHOICES, None, Wanted(VERSIONS.plural)))
    known = tuple(str(id_of(body)) for body in versions.value.items) if versions.value else ()
    chosen = version or (known[0] if known else None)
    report = await costs.roi(visit.acting, chosen, test or None, {}) if chosen else None
    return visit.render(
        "roi.html",
        refusal=versions.refusal,
        versions=known,
        chosen=chosen,
        tests=await _tests_of(visit, chosen) if chosen else (),
        test=test or "",
        report=report,
        fields=FIELDS,
        values=shown(report.inputs) if report else {},
        namespace=None,
    )


@router.get("/roi/result")
async def roi_result(visit: VisitOf, form: Annotated[RoiForm, Query()]) -> HTMLResponse:
    """What it comes to, as one types."""
    report = await _reckoned(visit, form)
    query = urlencode({name: value for name, value in form.model_dump().items() if value})
    said = {name: each.value for name, each in report.inputs.items() if each.origin == "given"}
    commands = roi_commands(visit.acting.identified(form.version), form.test, said)
    return visit.render("fragments/roi_result.html", report=report, query=query, commands=commands)


@router.get("/roi/curve")
async def roi_curve(visit: VisitOf, form: Annotated[RoiForm, Query()]) -> Curve:
    """The net value by days, from minus what the training cost."""
    return curve_of(await _reckoned(visit, form))


def curve_of(report: RoiReport) -> Curve:
    """Empty where it is not known."""
    days = report.inputs["days"].value
    training, per_call = report.inputs["training_cost"].value, report.net_value_per_call
    per_day = report.inputs["calls_per_day"].value
    if not days or training is None or per_call is None or per_day is None:
        return Curve(x_label="day", x=(), series=())
    inputs = {name: _decimal(each) for name, each in report.inputs.items()}
    x = tuple(days * point / CURVE_POINTS for point in range(CURVE_POINTS + 1))
    values = (return_on_investment(RoiInputs(**inputs | {"days": Decimal(str(day))})).net_value for day in x)
    y = tuple(None if value is None else round(float(value), 2) for value in values)
    return Curve(x_label="day", x=x, series=(Line(label=f"net value, {report.currency or 'amount'}", y=y),))


def _decimal(known: RoiInput) -> Decimal | None:
    return None if known.value is None else Decimal(str(known.value))


async def _reckoned(visit: Visit, form: RoiForm) -> RoiReport:
    """What is as it was shown counts as measured."""
    measured = await costs.roi(visit.acting, form.version, form.test or None, {})
    said = given(form, measured.inputs)
    return await costs.roi(visit.acting, form.version, form.test or None, said) if said else measured


async def _tests_of(visit: Visit, version_id: str) -> tuple[str, ...]:
    """Those in which it is the candidate, as far as the caller may see them."""
    found = visit.acting.identified(version_id)
    tests = await part(newest_tests(visit.acting, found.namespace, found.name.rpartition("-v")[0]))
    return tuple(
        str(ObjectId(found.namespace, test.metadata.name))
        for test in tests.value or ()
        if test.spec.candidate.model_version == found.name
    )


PAGE = Page(router, NavEntry("Cost", PATH, 40))
