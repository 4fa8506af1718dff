"""Public: datasets of ratings, to make, list, look at, download and delete."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic_core import from_json

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.logs import get_logger
from finetune_operator.resources.common import ShortText
from finetune_operator.store.exported_datasets import (
    DATASET_ID,
    FileName,
    StoredDataset,
    UnknownDataset,
    WrongCursor,
)
from finetune_operator.store.keyset import Mark
from finetune_operator.web.auth import TrainerOf
from finetune_operator.web.dataset_exports import Exporter, datasets_of
from finetune_operator.web.dataset_schemas import (
    DATASETS_PATH,
    FORMATS,
    DatasetEntry,
    DatasetList,
    DatasetRow,
    DatasetRows,
    ExportedDataset,
    ExportRequest,
    FormatName,
    GoldSelection,
    RatingStatistics,
)
from finetune_operator.web.held_files import HeldFileResponse
from finetune_operator.web.marks import MarkAfter, mark_of, marked
from finetune_operator.web.pages import Time
from finetune_operator.web.problems import Problem, documented
from finetune_operator.web.required_rights import USE_RATINGS
from finetune_operator.web.services import Services, ServicesOf

JSON_LINES = "application/jsonl"
EXPORT_PROBLEMS = documented(400, 401, 403, 409, 422, 429, 500, 503, 504, 507)
EXPORT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ExportedDataset, "description": "The same dataset was there already"},
    201: {"description": "A dataset was made", "headers": {"Location": {"schema": {"type": "string"}}}},
    **EXPORT_PROBLEMS,
}
PROBLEMS = documented(401, 403, 404, 409, 422, 503)

DatasetId = Annotated[str, Path(pattern=DATASET_ID)]
Exported = Annotated[ShortText | None, Query()]

logger = get_logger(__name__)
router = APIRouter(prefix=DATASETS_PATH, tags=["datasets"])


@router.post("/export", status_code=201, responses=EXPORT_ANSWERS, openapi_extra=USE_RATINGS)
async def export(
    services: ServicesOf, caller: TrainerOf, request: Request, response: Response, body: ExportRequest
) -> ExportedDataset:
    """Export ratings as a dataset, gold stars by default. The same rows in the same format are the same dataset."""
    made = await Exporter(services, request, caller).export(body.config(), FORMATS[body.format])
    return answer(made.dataset, response, created=made.created)


def answer(dataset: StoredDataset, response: Response, *, created: bool) -> ExportedDataset:
    """201 with where it is, or 200."""
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{DATASETS_PATH}/{dataset.id}"
    return ExportedDataset.answer(dataset, created=created)


@router.get("", responses=documented(401, 403, 409, 422, 503), openapi_extra=USE_RATINGS)
def get_datasets(
    services: ServicesOf,
    _: TrainerOf,
    format: FormatName | None = None,  # noqa: A002
    philosopher: Exported = None,
    domain: Exported = None,
    task_type: Exported = None,
    before: Time | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: MarkAfter = None,
) -> DatasetList:
    """Exported datasets, the newest first: all, or those that were exported with these filters.

    `after` is the `next` of the page before.
    """
    mark = mark_of(after)
    asked = {"philosopher": philosopher, "domain": domain, "task_type": task_type}
    wanted = {name: value for name, value in asked.items() if value is not None}
    kept = [
        dataset
        for dataset in datasets_of(services).newest_first()
        if (format is None or dataset.format == FORMATS[format]) and _has_read(dataset.config.source, wanted)
    ]
    rest = [
        dataset
        for dataset in kept
        if (before is None or dataset.created_at < before) and (mark is None or _place(dataset) < mark)
    ]
    page = marked(rest, limit, _place)
    return DatasetList(
        datasets=tuple(map(DatasetEntry.of, page.rows)),
        total=len(kept),
        bytes=sum(dataset.bytes for dataset in kept),
        has_more=page.has_more,
        next=page.next,
    )


def _place(dataset: StoredDataset) -> Mark:
    return Mark(dataset.created_at, dataset.id)


def _has_read(source: object, wanted: Mapping[str, str]) -> bool:
    return not wanted or (
        isinstance(source, RatingsSource) and all(getattr(source, name) == value for name, value in wanted.items())
    )


@router.post("/statistics", responses=EXPORT_PROBLEMS, openapi_extra=USE_RATINGS)
async def count_ratings(
    services: ServicesOf, caller: TrainerOf, request: Request, body: GoldSelection
) -> RatingStatistics:
    """What the ratings are like that an export with the same filters would read; `limit` is not applied."""
    counted = await Exporter(services, request, caller).statistics(body.source())
    return RatingStatistics.of(counted)


@router.get("/{dataset_id}", responses=PROBLEMS, openapi_extra=USE_RATINGS)
def get_dataset(services: ServicesOf, _: TrainerOf, dataset_id: DatasetId) -> DatasetEntry:
    """One exported dataset."""
    return DatasetEntry.of(_find(services, dataset_id))


@router.delete("/{dataset_id}", status_code=204, responses=PROBLEMS, openapi_extra=USE_RATINGS)
def delete_dataset(services: ServicesOf, caller: TrainerOf, dataset_id: DatasetId) -> Response:
    """Delete a dataset and its files. What was trained on it stays."""
    try:
        datasets_of(services).delete(dataset_id)
    except UnknownDataset:
        raise _unknown(dataset_id) from None
    logger.info("dataset deleted", dataset=dataset_id, by=caller.name)
    return Response(status_code=204)


@router.get("/{dataset_id}/rows", responses=PROBLEMS, openapi_extra=USE_RATINGS)
def get_rows(
    services: ServicesOf,
    _: TrainerOf,
    dataset_id: DatasetId,
    file: FileName = "train.jsonl",
    cursor: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> DatasetRows:
    """Rows to look at, at most about a megabyte at a time; a longer row than 64 KiB has no `record`."""
    try:
        found = datasets_of(services).rows(dataset_id, file, cursor, limit)
    except UnknownDataset:
        raise _unknown(dataset_id) from None
    except WrongCursor:
        detail = f"no row of {file} begins at {cursor}; take the next_cursor of the page before"
        raise Problem(422, "wrong-cursor", detail) from None
    rows = tuple(
        DatasetRow(bytes=row.size_bytes, record=from_json(row.line) if row.line else None) for row in found.rows
    )
    return DatasetRows(rows=rows, next_cursor=found.next_cursor)


@router.get(
    "/{dataset_id}/files/{file}",
    response_class=FileResponse,
    responses={
        200: {"content": {JSON_LINES: {}}, "description": "The file; its ETag is its SHA-256"},
        206: {"content": {JSON_LINES: {}}, "description": "The part that Range asked for"},
        304: {"description": "The file is what If-None-Match says"},
        416: {"description": "The file ends before what Range asked for"},
        **PROBLEMS,
    },
    openapi_extra=USE_RATINGS,
)
def download(
    services: ServicesOf,
    caller: TrainerOf,
    dataset_id: DatasetId,
    file: FileName,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A part of the dataset as it is on the volume."""
    dataset = _find(services, dataset_id)
    try:
        content = datasets_of(services).opened(dataset_id, file)
    except UnknownDataset:
        raise _unknown(dataset_id) from None
    tag = f'"{dataset.file(file).sha256}"'
    if if_none_match is not None and tag in [known.strip().removeprefix("W/") for known in if_none_match.split(",")]:
        content.close()
        return Response(status_code=304, headers={"ETag": tag})
    logger.info("dataset downloaded", dataset=dataset_id, file=file, by=caller.name)
    return HeldFileResponse(content, media_type=JSON_LINES, filename=f"{dataset_id}.{file}", headers={"ETag": tag})


def _find(services: Services, dataset_id: str) -> StoredDataset:
    try:
        return datasets_of(services).find(dataset_id)
    except UnknownDataset:
        raise _unknown(dataset_id) from None


def _unknown(dataset_id: str) -> Problem:
    return Problem(404, "unknown-dataset", f"there is no dataset {dataset_id}; GET {DATASETS_PATH} lists what there is")
