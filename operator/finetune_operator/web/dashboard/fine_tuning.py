"""Page: from ratings to trained models, at a glance."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from typing import NamedTuple

from starlette.responses import HTMLResponse

from finetune_operator.resources.modelversion import ModelVersion, State
from finetune_operator.web.acting import JOBS, VERSIONS, Acting
from finetune_operator.web.auth import require_trainer
from finetune_operator.web.dashboard.permitted import part
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import NavEntry, VisitOf
from finetune_operator.web.dataset_exports import Exporter
from finetune_operator.web.dataset_schemas import GoldSelection
from finetune_operator.web.ids import NamespaceQuery
from finetune_operator.web.job_routes import After
from finetune_operator.web.job_views import FINISHED, JobEntry, JobStatus, entry_of, number, status_of
from finetune_operator.web.odd_resources import each_shown, parsed
from finetune_operator.web.pages import Page as ListPage
from finetune_operator.web.pages import Pager
from finetune_operator.web.services import Object
from finetune_operator.web.version_views import VersionEntry, active_ids, version_entry

PATH = "/fine-tuning"
LISTED = 20
SHOWN_ACTIVE = 12
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
    """In one pass over all trainings that the caller may see. Raises problems."""
    counts: Counter[JobStatus] = Counter()
    place = await acting.place(JOBS, after)
    active = Pager(SHOWN_ACTIVE, None, lambda body: status_of(body) not in FINISHED)
    listed = Pager(
        LISTED, place, lambda body: status_of(body) in FINISHED if status is None else status_of(body) == status
    )
    async with aclosing(acting.chunks(JOBS, namespace)) as chunks:
        async for chunk in chunks:
            counts.update(map(status_of, chunk))
            active.add(chunk)
            listed.add(chunk)
    going_on, page = active.page(), listed.page()
    return Jobs(
        counts=counts,
        active=each_shown(entry_of, going_on.items),
        active_count=going_on.total,
        listed=each_shown(entry_of, page.items),
        page=page,
    )


async def models_of(acting: Acting, namespace: str | None) -> Models:
    """Raises problems."""
    bodies = await acting.every(VERSIONS, namespace)
    active = active_ids(bodies)
    deployed = [body for body in bodies if body.get("status", {}).get("state") == State.DEPLOYED]
    rates = [rate for rate in each_shown(_win_rate, bodies) if rate is not None]
    return Models(
        deployed=each_shown(lambda body: version_entry(body, active, {}), deployed),
        total=len(bodies),
        average_win_rate=sum(rates) / len(rates) if rates else None,
        rated=len(rates),
    )


def _win_rate(body: Object) -> float | None:
    metrics = parsed(ModelVersion, body).status.metrics
    return number(metrics.win_rate) if metrics else None


async def _gold_stars(visit: VisitOf) -> int:
    caller = await require_trainer(visit.services, visit.caller)
    source = GoldSelection(min_rating=ANY_RATING, gold_star_only=True).source()
    return (await Exporter(visit.services, visit.request, caller).statistics(source)).rows


PAGE = Page(router, NavEntry("Fine-tuning", PATH, 10))
