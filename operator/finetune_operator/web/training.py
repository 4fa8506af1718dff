"""Public: the exporters by their purpose, the formats with their schemas, and what lies on the datasets' volume."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.core.dataset_records import EXPECTED, PAIR_FORMATS, READABLE_FORMATS
from finetune_operator.core.written_records import WRITTEN
from finetune_operator.store.exported_datasets import FileName
from finetune_operator.web.auth import TrainerOf, require_caller
from finetune_operator.web.dataset_exports import Exporter, datasets_of, ratings_url_file
from finetune_operator.web.dataset_schemas import (
    FORMATS,
    NAMES,
    DpoExportRequest,
    ExportedDataset,
    FormatName,
    GauntletExportRequest,
    SftExportRequest,
)
from finetune_operator.web.datasets import EXPORT_ANSWERS, answer
from finetune_operator.web.problems import Problem, documented
from finetune_operator.web.required_rights import ANYBODY_KNOWN, USE_RATINGS
from finetune_operator.web.services import ServicesOf

ExporterName = Literal["sft", "dpo", "gauntlet"]

router = APIRouter(prefix="/api/training", tags=["training"])


class FormatDescription(BaseModel):
    """A format of datasets."""

    model_config = ConfigDict(frozen=True)

    example: str
    record_schema: dict[str, Any]
    """JSON Schema of a line."""
    readable: bool
    """Whether a FineTuneJob can read it."""
    pairs: bool
    """Whether a line is a better and a worse answer."""


class FormatList(BaseModel):
    """All formats by the names that an export takes."""

    model_config = ConfigDict(frozen=True)

    formats: dict[FormatName, FormatDescription]


class ExporterDescription(BaseModel):
    """One way to export."""

    model_config = ConfigDict(frozen=True)

    format: FormatName
    path: str


class KeptFile(BaseModel):
    """A file of an exported dataset."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    name: FileName
    bytes: int
    created_at: datetime


class TrainingStats(BaseModel):
    """What can be exported here, and what was."""

    model_config = ConfigDict(frozen=True)

    exporters: dict[ExporterName, ExporterDescription]
    exporters_ready: bool
    """Whether there are a ratings database and a place for datasets."""
    missing: tuple[str, ...]
    """What is not set up, and what to set."""
    directory: str | None
    """Where datasets are, in the api's pod."""
    datasets: int
    max_datasets: int
    bytes: int
    max_bytes: int
    files: tuple[KeptFile, ...]
    """The newest first."""


EXPORTERS: dict[ExporterName, FormatName] = {"sft": "instruction", "dpo": "preference", "gauntlet": "gauntlet"}


@router.post("/export/sft", status_code=201, responses=EXPORT_ANSWERS, openapi_extra=USE_RATINGS)
async def export_sft(
    services: ServicesOf,
    caller: TrainerOf,
    request: Request,
    response: Response,
    body: Annotated[SftExportRequest, Body()] = SftExportRequest(),  # noqa: B008 - frozen
) -> ExportedDataset:
    """Answers to learn: `{instruction, input, output, metadata}`."""
    return await _exported("sft", body.config(), Exporter(services, request, caller), response)


@router.post("/export/dpo", status_code=201, responses=EXPORT_ANSWERS, openapi_extra=USE_RATINGS)
async def export_dpo(
    services: ServicesOf,
    caller: TrainerOf,
    request: Request,
    response: Response,
    body: Annotated[DpoExportRequest, Body()] = DpoExportRequest(),  # noqa: B008 - frozen
) -> ExportedDataset:
    """Preferences: `{prompt, chosen, rejected, metadata}`."""
    return await _exported("dpo", body.config(), Exporter(services, request, caller), response)


@router.post("/export/gauntlet", status_code=201, responses=EXPORT_ANSWERS, openapi_extra=USE_RATINGS)
async def export_gauntlet(
    services: ServicesOf,
    caller: TrainerOf,
    request: Request,
    response: Response,
    body: Annotated[GauntletExportRequest, Body()] = GauntletExportRequest(),  # noqa: B008 - frozen
) -> ExportedDataset:
    """Attempts to get a bad answer: `{prompt, response, attack_type, success, findings}`."""
    return await _exported("gauntlet", body.config(), Exporter(services, request, caller), response)


async def _exported(
    name: ExporterName, config: DatasetConfig, exporter: Exporter, response: Response
) -> ExportedDataset:
    made = await exporter.export(config, FORMATS[EXPORTERS[name]])
    return answer(made.dataset, response, created=made.created)


@router.get(
    "/formats", dependencies=[Depends(require_caller)], responses=documented(401, 422, 503), openapi_extra=ANYBODY_KNOWN
)
def get_formats() -> FormatList:
    """The formats, each with an example and the JSON Schema of a line."""
    return FormatList(
        formats={
            NAMES[record_format]: FormatDescription(
                example=EXPECTED[record_format],
                record_schema=model.model_json_schema(),
                readable=record_format in READABLE_FORMATS,
                pairs=record_format in PAIR_FORMATS,
            )
            for record_format, model in WRITTEN.items()
        }
    )


@router.get("/stats", responses=documented(401, 403, 422, 503), openapi_extra=USE_RATINGS)
async def get_stats(services: ServicesOf, _: TrainerOf) -> TrainingStats:
    """Exporters, directory, and files with their sizes and dates."""
    settings = services.settings
    missing = []
    try:
        await ratings_url_file(services)
    except Problem as problem:
        missing.append(problem.detail)
    try:
        kept = await asyncio.to_thread(datasets_of(services).newest_first)
    except Problem as problem:
        missing.append(problem.detail)
        kept = []
    return TrainingStats(
        exporters={
            name: ExporterDescription(format=record_format, path=f"/api/training/export/{name}")
            for name, record_format in EXPORTERS.items()
        },
        exporters_ready=not missing,
        missing=tuple(missing),
        directory=str(settings.datasets_directory) if settings.datasets_directory else None,
        datasets=len(kept),
        max_datasets=settings.datasets_max_count,
        bytes=sum(dataset.bytes for dataset in kept),
        max_bytes=settings.datasets_max_bytes,
        files=tuple(
            KeptFile(dataset=dataset.id, name=file.name, bytes=file.bytes, created_at=dataset.created_at)
            for dataset in kept
            for file in dataset.files
        ),
    )
