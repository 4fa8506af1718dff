"""Pages of datasets: what there is, an export with counts while one chooses, rows to look at, downloads."""

import json
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import Path, Query
from starlette.responses import HTMLResponse, Response

from finetune_operator.core.dataset_records import READABLE_FORMATS
from finetune_operator.store.exported_datasets import DATASET_ID, FileName
from finetune_operator.web import datasets
from finetune_operator.web.auth import require_trainer
from finetune_operator.web.dashboard.changed_yaml import dataset_yaml, export_yaml
from finetune_operator.web.dashboard.commands import dataset_commands, export_commands
from finetune_operator.web.dashboard.fine_tuning import PATH
from finetune_operator.web.dashboard.forms import described, request_of
from finetune_operator.web.dashboard.permitted import part, told
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import Visit, VisitOf
from finetune_operator.web.dataset_exports import Exporter
from finetune_operator.web.dataset_schemas import (
    FORMATS,
    DatasetEntry,
    DatasetList,
    ExportRequest,
    FormatName,
    GoldSelection,
    RatingStatistics,
)
from finetune_operator.web.marks import MarkAfter
from finetune_operator.web.training import get_stats

DATASETS_PATH = f"{PATH}/datasets"
LISTED = 50
SHOWN_ROWS = 5
DatasetId = Annotated[str, Path(pattern=DATASET_ID)]
Filter = Annotated[str, Query(max_length=256)]

FILTER_TITLES = {
    "the": "All ratings",
    "philosopher": "Judgements of",
    "domain": "Domain",
    "task_type": "Type of task",
    "min_confidence": "Least confidence",
    "gold_star_only": "Gold stars only",
    "min_rating": "Lowest rating",
}
"""By the first word of what the statistics call a filter, or the whole table."""

router = page_router(DATASETS_PATH)


class Filters(NamedTuple):
    """Which datasets are listed."""

    format: FormatName | None = None
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None

    def said(self) -> dict[str, str]:
        return {name: value for name, value in self._asdict().items() if value is not None}


NO_FILTERS = Filters()


class Left(NamedTuple):
    """How many ratings are left after a filter and those before it."""

    filter: str
    rows: int


@router.get("")
async def datasets_page(
    visit: VisitOf,
    record_format: Annotated[FormatName | Literal[""], Query(alias="format")] = "",
    philosopher: Filter = "",
    domain: Filter = "",
    task_type: Filter = "",
    after: MarkAfter = None,
) -> HTMLResponse:
    """What was exported, and a form for more."""
    filters = Filters(record_format or None, philosopher or None, domain or None, task_type or None)
    listed = await part(_listed(visit, filters, after))
    return visit.render(
        "datasets.html",
        datasets=listed.value,
        filters=filters.said(),
        query=urlencode(filters.said()),
        is_first_page=after is None,
        refusal=listed.refusal,
        missing=await _missing(visit),
        fields=described(ExportRequest),
        formats=tuple((name, _format_title(name)) for name in FORMATS),
    )


@router.post("")
async def export(visit: VisitOf) -> Response:
    """Export ratings, as the form says."""
    request = request_of(ExportRequest, await visit.form())
    caller = await require_trainer(visit.services, visit.caller)
    made = await Exporter(visit.services, visit.request, caller).export(request.config(), FORMATS[request.format])
    return visit.go(f"{DATASETS_PATH}/{made.dataset.id}")


@router.post("/count")
async def count(visit: VisitOf) -> HTMLResponse:
    """How many ratings the form's filters leave."""
    selection = request_of(GoldSelection, await visit.form())
    counted = await told(counted_ratings(visit, selection))
    return shown_counts(visit, counted.value, counted.refusal)


@router.post("/commands")
async def commands(visit: VisitOf) -> HTMLResponse:
    """The same export from a terminal."""
    request = request_of(ExportRequest, await visit.form())
    said = request.model_dump(mode="json", exclude_defaults=True)
    return visit.render("fragments/commands.html", commands=export_commands(said), yaml=export_yaml(request))


@router.get("/{dataset_id}")
async def dataset_page(
    visit: VisitOf,
    dataset_id: DatasetId,
    file: FileName = "train.jsonl",
    cursor: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> HTMLResponse:
    """One dataset, and some of its rows."""
    caller = await require_trainer(visit.services, visit.caller)
    dataset = datasets.get_dataset(visit.services, caller, dataset_id)
    rows = datasets.get_rows(visit.services, caller, dataset_id, file, cursor, SHOWN_ROWS)
    return visit.render(
        "dataset.html",
        dataset=dataset,
        commands=dataset_commands(dataset.id, [each.name for each in dataset.files]),
        yaml=dataset_yaml(dataset),
        request_said=dataset.request.model_dump(exclude_defaults=True),
        file=file,
        cursor=cursor,
        rows=[(row, json.dumps(row.record, indent=2, ensure_ascii=False)) for row in rows.rows],
        next_cursor=rows.next_cursor,
        is_readable=FORMATS[dataset.format] in READABLE_FORMATS,
    )


@router.get("/{dataset_id}/files/{file}")
async def download(visit: VisitOf, dataset_id: DatasetId, file: FileName) -> Response:
    """A part of it, as it is on the volume."""
    caller = await require_trainer(visit.services, visit.caller)
    return datasets.download(visit.services, caller, dataset_id, file)


@router.post("/{dataset_id}/delete")
async def delete(visit: VisitOf, dataset_id: DatasetId) -> Response:
    """It and its files; what was trained on it stays."""
    caller = await require_trainer(visit.services, visit.caller)
    datasets.delete_dataset(visit.services, caller, dataset_id)
    return visit.go(DATASETS_PATH)


async def counted_ratings(visit: Visit, selection: GoldSelection) -> RatingStatistics:
    """Raises problems."""
    caller = await require_trainer(visit.services, visit.caller)
    return await datasets.count_ratings(visit.services, caller, visit.request, selection)


def shown_counts(visit: Visit, counted: RatingStatistics | None, refusal: str | None) -> HTMLResponse:
    """How many are left after each filter, what they are like, and the first of them; or why nobody knows."""
    left = tuple(Left(_filter_title(each.filter), each.rows) for each in counted.by_filter) if counted else ()
    emptied = next((each.filter for each in left if not each.rows), None)
    return visit.render("fragments/counts.html", counted=counted, left=left, emptied_by=emptied, refusal=refusal)


def _filter_title(name: str) -> str:
    """As the form's field is called, with its value."""
    field, _, value = name.partition("=")
    return f"{FILTER_TITLES[field.partition(' ')[0]]} {value}".strip()


def dataset_title(dataset: DatasetEntry) -> str:
    """As one may choose it."""
    chosen = ", ".join(filter(None, (dataset.request.philosopher, dataset.request.domain)))
    made = f"{dataset.created_at:%d %b %Y, %H:%M}"
    return f"{dataset.format}, {dataset.rows} rows{f', {chosen}' if chosen else ''} ({made})"


async def exported(visit: Visit) -> tuple[DatasetEntry, ...]:
    """Those that there are. Raises problems."""
    return (await _listed(visit)).datasets


def _format_title(name: FormatName) -> str:
    return name if FORMATS[name] in READABLE_FORMATS else f"{name} (no training reads it)"


async def _listed(visit: Visit, filters: Filters = NO_FILTERS, after: str | None = None) -> DatasetList:
    caller = await require_trainer(visit.services, visit.caller)
    return datasets.get_datasets(visit.services, caller, *filters, limit=LISTED, after=after)


async def _missing(visit: Visit) -> tuple[str, ...]:
    """What is not set up for exports, and what to set."""
    caller = await part(require_trainer(visit.services, visit.caller))
    return (await get_stats(visit.services, caller.value)).missing if caller.value else ()


PAGE = Page(router)
