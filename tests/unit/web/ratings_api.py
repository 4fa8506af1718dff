"""The api with a ratings database and a place for datasets."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from finetune_operator.store.dataset_worker import Order, Outcome, done
from finetune_operator.store.exported_datasets import ExportedDatasets
from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services, Worker
from finetune_operator.web.settings import Settings
from finetune_operator.web.worker_process import Watch
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import ENVIRONMENT, PUBLIC, Api

EXPORT = "/v1/fine-tuning/datasets/export"
DATASETS = "/v1/fine-tuning/datasets"


class WorkerThread:
    """Does an order in this process, which is quicker than to start one, and can't be ended."""

    async def outcome(self, order: Order, watch: Watch, timeout_seconds: float) -> Outcome:
        return await asyncio.to_thread(done, order)


class RatingsApi:
    """Asks as a person would, and looks at the volume behind."""

    def __init__(self, client: httpx2.AsyncClient, directory: Path, services: Services) -> None:
        self.client = client
        self.directory = directory
        self.services = services
        self.stored = ExportedDatasets(directory)

    async def export(self, path: str = EXPORT, /, **body: Any) -> httpx2.Response:
        return await self.client.post(path, json=body)

    async def made(self, path: str = EXPORT, /, **body: Any) -> dict[str, Any]:
        response = await self.export(path, **body)
        assert response.status_code == 201, response.text
        found: dict[str, Any] = response.json()
        return found

    async def listed(self) -> list[str]:
        response = await self.client.get(DATASETS)
        return [dataset["id"] for dataset in response.json()["datasets"]]


@asynccontextmanager
async def ratings_api(
    api: Api,
    directory: Path,
    rows: Iterable[dict[str, Any]] | str | None = None,
    worker: Worker | None = None,
    **environment: str,
) -> AsyncIterator[RatingsApi]:
    """The api of the fixture with other settings; `rows` go into an SQLite database, or are a database's URL."""
    if rows is None:
        rows = [rating(number) for number in range(12)]
    url = rows if isinstance(rows, str) else write_ratings(directory / "ratings.db", rows)
    (directory / "url").write_text(f"{url}\n")
    settings = Settings.from_environment(
        ENVIRONMENT
        | {
            "FINETUNE_RATINGS_URL_FILE": str(directory / "url"),
            "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
            "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
        }
        | environment
    )
    services = Services(
        settings, api.services.engine, api.cluster, api.arms, now=api.services.now, worker=worker or WorkerThread()
    )
    transport = httpx2.ASGITransport(create_app(services), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=PUBLIC) as client:
        yield RatingsApi(client, directory / "datasets", services)
