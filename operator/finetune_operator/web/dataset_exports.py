"""Exports for a request: in their turn, within the quota, published when they are complete."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fastapi import Request

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import Failure
from finetune_operator.core.dataset_records import Format
from finetune_operator.logs import get_logger
from finetune_operator.store.dataset_worker import (
    ExportEmpty,
    ExportMade,
    ExportOrder,
    Order,
    Outcome,
    RatingsCounted,
    StatisticsOrder,
)
from finetune_operator.store.exported_datasets import (
    ExportedDatasets,
    StoredDataset,
    UnknownDataset,
    dataset_id,
    directory_bytes,
)
from finetune_operator.web.auth import Caller
from finetune_operator.web.dataset_problems import empty, full, refused
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Services
from finetune_operator.web.worker_process import POLL_SECONDS

# A dataset is spooled, sorted and written before it is counted exactly.
WORK_FACTOR = 3

logger = get_logger(__name__)


class Exported(NamedTuple):
    """What an export came to."""

    dataset: StoredDataset
    created: bool


@dataclass(frozen=True)
class Exporter:
    """Exports for one request, which end when the client is gone; without one for whoever asks meanwhile."""

    services: Services
    request: Request | None
    caller: Caller

    async def export(self, config: DatasetConfig, record_format: Format) -> Exported:
        """Make a dataset, or find the same one. Raises problems."""
        datasets = datasets_of(self.services)
        url_file = await ratings_url_file(self.services)
        async with self.services.turns.turn(), self._lock(datasets):
            with datasets.work_directory() as work:
                bounded = config.model_copy(update={"max_bytes": self.services.settings.datasets_max_bytes})
                order = ExportOrder(url_file=url_file, config=bounded, format=record_format, directory=work)
                match await self._done(order, work):
                    case ExportMade() as made:
                        pass
                    case other:
                        raise problem_of(other)
                dataset = StoredDataset(
                    id=dataset_id(record_format, made.report.digest),
                    format=record_format,
                    config=config,
                    report=made.report,
                    files=made.files,
                    created_at=self.services.now(),
                    created_by=self.caller.name,
                )
                return await asyncio.to_thread(self._publish, datasets, work, dataset)

    async def statistics(self, source: RatingsSource) -> RatingsCounted:
        """Count ratings. Raises problems."""
        url_file = await ratings_url_file(self.services)
        async with self.services.turns.turn():
            match await self._done(StatisticsOrder(url_file=url_file, source=source)):
                case RatingsCounted() as counted:
                    return counted
                case other:
                    raise problem_of(other)

    @asynccontextmanager
    async def _lock(self, datasets: ExportedDatasets) -> AsyncIterator[None]:
        """Exports of other pods on the same volume count, too."""
        try:
            while (handle := await asyncio.to_thread(datasets.try_lock)) is None:
                await self._require_client()
                await asyncio.sleep(POLL_SECONDS)
        except OSError as error:
            logger.error("the datasets' directory can't be used", directory=str(datasets.directory), error=str(error))
            detail = f"{datasets.directory} can't be written ({error.strerror}); check the volume for datasets"
            raise Problem(503, "datasets-unavailable", detail) from None
        try:
            yield
        finally:
            os.close(handle)

    async def _done(self, order: Order, work: Path | None = None) -> Outcome:
        async def watch() -> None:
            await self._require_client()
            if work:
                await asyncio.to_thread(self._require_space, work)

        await watch()
        return await self.services.worker.outcome(order, watch, self.services.settings.datasets_timeout_seconds)

    async def _require_client(self) -> None:
        if self.request is not None and await self.request.is_disconnected():
            raise Problem(400, "client-gone", "the client closed the connection before the answer")

    def _require_space(self, work: Path) -> None:
        settings = self.services.settings
        if directory_bytes(work) > WORK_FACTOR * settings.datasets_max_bytes:
            raise full(f"the dataset is larger than the {settings.datasets_max_bytes} bytes that all may have together")
        free = shutil.disk_usage(work).free
        if free < settings.datasets_min_free_bytes:
            raise full(
                f"the volume has {free} bytes left, and FINETUNE_DATASETS_MIN_FREE_BYTES keeps "
                f"{settings.datasets_min_free_bytes} free"
            )

    def _publish(self, datasets: ExportedDatasets, work: Path, dataset: StoredDataset) -> Exported:
        """What is there already needs no room."""
        try:
            return Exported(datasets.find(dataset.id), created=False)
        except UnknownDataset:
            pass
        settings = self.services.settings
        kept = datasets.newest_first()
        if len(kept) >= settings.datasets_max_count:
            raise full(f"{len(kept)} datasets are kept, and no more may be (FINETUNE_DATASETS_MAX_COUNT)")
        left = settings.datasets_max_bytes - sum(other.bytes for other in kept)
        if dataset.bytes > left:
            raise full(f"the dataset has {dataset.bytes} bytes, {max(0, left)} are left of FINETUNE_DATASETS_MAX_BYTES")
        published = datasets.publish(work, dataset)
        rows = dataset.report.rows + dataset.report.test_rows
        logger.info("dataset exported", dataset=dataset.id, by=dataset.created_by, rows=rows, bytes=dataset.bytes)
        return Exported(published, created=True)


def datasets_of(services: Services) -> ExportedDatasets:
    """Raises a problem where no place is set."""
    directory = services.settings.datasets_directory
    if directory is None:
        detail = (
            "this api has no place for datasets: set the chart's value api.datasets.claimName to a volume, or "
            "FINETUNE_DATASETS_DIRECTORY"
        )
        raise Problem(409, "datasets-not-configured", detail)
    return ExportedDatasets(directory)


async def ratings_url_file(services: Services) -> Path:
    """Raises a problem where there is no ratings database."""
    file = services.settings.ratings_url_file
    if not await asyncio.to_thread(file.is_file):
        detail = (
            f"this api knows no ratings database: there is no file {file}. Put the database's URL into the Secret that "
            "the chart's value api.ratings.existingSecret names (`ratings-db` by default, key `url`), in the api's "
            "namespace; a minute later it is there"
        )
        raise Problem(409, "ratings-not-configured", detail)
    return file


def problem_of(outcome: Outcome) -> Problem:
    match outcome:
        case ExportEmpty():
            return empty(outcome)
        case Failure():
            return refused(outcome)
    return Problem(500, "internal", f"the worker answered with {outcome.kind}; see the api's log")
