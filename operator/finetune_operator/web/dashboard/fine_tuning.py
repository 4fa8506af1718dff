"""Page: from ratings to trained models, at a glance."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from starlette.responses import HTMLResponse

from finetune_operator.resources.modelversion import State
from finetune_operator.store import mirrored_sums
from finetune_operator.store.mirrored import Wanted
from finetune_operator.store.mirrored_sums import Mean
from finetune_operator.web import versions
from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import require_trainer
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import NavEntry, VisitOf
from finetune_operator.web.dataset_exports import Exporter
from finetune_operator.web.dataset_schemas import GoldSelection
from finetune_operator.web.ids import NamespaceQuery
from finetune_operator.web.job_routes import After
from finetune_operator.web.job_views import FINISHED, JobEntry, JobStatus, entry_of
from finetune_operator.web.mirroring import facts_of
from finetune_operator.web.odd_resources import each_shown
from finetune_operator.web.pages import Page as ListPage
from finetune_operator.web.services import Object
from finetune_operator.web.version_views import VersionEntry, version_entry

PATH = "/fine-tuning"
LISTED = 20
SHOWN_ACTIVE = 12
SHOWN_DEPLOYED = 20
GOING_ON = tuple(status for status in JobStatus if status not in FINISHED)
ANY_RATING = 1

router = page_router(PATH)


class Jobs(NamedTuple):
    """Trainings as the page shows them: counts of all, those that go on, and a page of the chosen ones."""

    counts: Mapping[JobStatus, int]
    active: tuple[JobEntry, ...]
    active_count: int
    listed: tuple[JobEntry, ...]
    page: ListPage[Object]


class Models(NamedTuple):
    """Versions as the page shows them."""

    deployed: tuple[VersionEntry, ...]
    """The newest of them."""
    deployed_count: int
    total: int
    average_win_rate: float | None
    rated: int
    """How many versions have a win rate."""


@router.get("")
async def fine_tuning_page(
    visit: VisitOf, namespace: NamespaceQuery = None, status: JobStatus | None = None, after: After = None
) -> HTMLResponse:
    """What there is, and what goes on."""
    jobs, models = await asyncio.gather(
        part(jobs_of(visit.acting, namespace, status, after)), part(models_of(visit.acting, namespace))
    )
    return visit.render(
        "fine_tuning.html",
        jobs=jobs.value,
        jobs_refusal=jobs.refusal,
        models=models.value,
        models_refusal=models.refusal,
        statuses=tuple(JobStatus),
        status=status,
        namespace=namespace,
        is_first_page=after is None,
    )


@router.get("/gold-stars")
async def gold_stars(visit: VisitOf) -> HTMLResponse:
    """How many ratings a training takes by default; counted on its own, since that reads the ratings database."""
    counted = await part(_gold_stars(visit))
    return visit.render("fragments/gold_stars.html", count=counted.value, refusal=counted.refusal)


async def jobs_of(acting: Acting, namespace: str | None, status: JobStatus | None, after: str | None) -> Jobs:
    """Raises problems."""
    chosen = FINISHED if status is None else (status,)
    counts = await acting.states(JOBS, namespace)
    going_on = await acting.page(JOBS, namespace, SHOWN_ACTIVE, None, Wanted(JOBS.plural, states=GOING_ON))
    page = await acting.page(JOBS, namespace, LISTED, after, Wanted(JOBS.plural, states=tuple(chosen)))
    return Jobs(
        counts={status: counts.get(status.value, 0) for status in JobStatus},
        active=each_shown(entry_of, going_on.items),
        active_count=going_on.total,
        listed=each_shown(entry_of, page.items),
        page=page,
    )


async def models_of(acting: Acting, namespace: str | None) -> Models:
    """Raises problems."""
    counts = await acting.states(VERSIONS, namespace)
    rates = await _win_rates(acting, namespace)
    wanted = Wanted(VERSIONS.plural, states=(State.DEPLOYED.value,))
    page = await acting.page(VERSIONS, namespace, SHOWN_DEPLOYED, None, wanted)
    active = await versions.active_of(acting, namespace, page.items)
    return Models(
        deployed=each_shown(lambda body: version_entry(body, active, {}), page.items),
        deployed_count=page.total,
        total=sum(counts.values()),
        average_win_rate=rates.value,
        rated=rates.count,
    )


async def _win_rates(acting: Acting, namespace: str | None) -> Mean:
    if acting.is_mirrored(VERSIONS):
        listable = await acting.listable(VERSIONS, namespace)
        return await mirrored_sums.win_rates(acting.services.engine, VERSIONS.plural, listable)
    found = (facts_of(VERSIONS.plural, body).win_rate for body in await acting.every(VERSIONS, namespace))
    rates = [rate for rate in found if rate is not None]
    return Mean(sum(rates) / len(rates) if rates else None, len(rates))


async def _gold_stars(visit: VisitOf) -> int:
    caller = await require_trainer(visit.services, visit.caller)
    source = GoldSelection(min_rating=ANY_RATING, gold_star_only=True).source()

    async def counted() -> int:
        return (await Exporter(visit.services, None, caller).statistics(source)).rows

    return await visit.services.remembered.answer("gold stars", None, counted)


PAGE = Page(router, NavEntry("Fine-tuning", PATH, 10))
