"""Exports in a process of their own, which ends with whatever wanted it, and leaves nothing."""

import asyncio
import http.client
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.types import Message

from finetune_operator.contract.dataset import RatingsSource
from finetune_operator.store import exported_datasets
from finetune_operator.store.dataset_worker import RatingsCounted, StatisticsOrder
from finetune_operator.store.exported_datasets import ExportedDatasets
from finetune_operator.web.app import create_app
from finetune_operator.web.worker_process import WorkerProcess
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.api_process import Process
from tests.unit.web.conftest import PUBLIC, Api
from tests.unit.web.ratings_api import EXPORT, RatingsApi, ratings_api
from tests.unit.web.test_access import is_problem
from tests.waiting import eventually

JSON = PUBLIC | {"Content-Type": "application/json"}
MODULE = b"finetune_operator.store.dataset_worker"


def workers_of(parent: int) -> list[int]:
    """The worker processes whose parent this is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MODULE in (entry / "cmdline").read_bytes():
                parent_line = next(line for line in (entry / "status").read_text().splitlines() if "PPid" in line)
                if int(parent_line.split()[1]) == parent:
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def environment(process: int) -> Path:
    return Path(f"/proc/{process}/environ")


def leftovers(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {exported_datasets.LOCK_NAME}


@pytest.fixture
def database(tmp_path: Path) -> str:
    return write_ratings(tmp_path / "ratings.db", (rating(number) for number in range(6)))


@contextmanager
def locked_database(file: Path) -> Iterator[sqlite3.Connection]:
    """A ratings database, held by somebody, so that whoever reads it waits."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield connection
    connection.close()


@pytest.fixture
def locked(tmp_path: Path, database: str) -> Iterator[sqlite3.Connection]:
    with locked_database(tmp_path / "ratings.db") as connection:
        yield connection


@pytest.fixture
async def exports(api: Api, tmp_path: Path, database: str) -> AsyncIterator[RatingsApi]:
    async with ratings_api(api, tmp_path, database, worker=WorkerProcess()) as found:
        yield found


async def test_a_process_makes_the_dataset(exports: RatingsApi) -> None:
    made = await exports.made(format="alpaca")
    assert (exports.directory / made["dataset_path"]).read_bytes().count(b"\n") == made["sample_count"] == 6
    assert not workers_of(os.getpid())
    assert is_problem(await exports.export(philosopher="kant"), 422, "dataset-empty")
    assert leftovers(exports.directory) == {made["id"]}


async def test_the_worker_gets_no_token_of_the_api(
    tmp_path: Path, locked: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_API_TOKEN", "public-token")
    monkeypatch.setenv("FINETUNE_DATABASE_URL", "postgresql://u:hunter2@h/d")
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/ratings.db")

    async def look() -> None:
        seen.extend(environment(worker).read_bytes() for worker in workers_of(os.getpid()))
        if seen and locked.in_transaction:
            locked.execute("ROLLBACK")

    seen: list[bytes] = []
    order = StatisticsOrder(url_file=tmp_path / "url", source=RatingsSource())
    counted = await WorkerProcess().outcome(order, look, 30)
    assert isinstance(counted, RatingsCounted)
    assert counted.rows == 6
    assert b"PATH=" in seen[0]
    assert not [text for text in seen if b"hunter2" in text or b"public-token" in text or b"ratings.db" in text]


async def test_a_volume_without_room_stops_the_export(api: Api, tmp_path: Path, locked: sqlite3.Connection) -> None:
    url = f"sqlite:///{tmp_path}/ratings.db"
    async with ratings_api(api, tmp_path, url, FINETUNE_DATASETS_MIN_FREE_BYTES=str(2**62)) as exports:
        response = await exports.export()
        assert is_problem(response, 507, "datasets-full")
        assert "FINETUNE_DATASETS_MIN_FREE_BYTES" in response.json()["detail"]
        assert not leftovers(exports.directory)


async def test_an_export_that_takes_too_long_is_ended(api: Api, tmp_path: Path, locked: sqlite3.Connection) -> None:
    url = f"sqlite:///{tmp_path}/ratings.db"
    async with ratings_api(api, tmp_path, url, WorkerProcess(), FINETUNE_DATASETS_TIMEOUT_SECONDS="0.5") as exports:
        response = await exports.export()
        assert is_problem(response, 504, "export-timeout")
        assert not leftovers(exports.directory)
        assert not workers_of(os.getpid())


async def test_a_worker_that_ends_by_itself_is_told(exports: RatingsApi, locked: sqlite3.Connection) -> None:
    exporting = asyncio.create_task(exports.export())
    await eventually(lambda: workers_of(os.getpid()))
    os.kill(workers_of(os.getpid())[0], signal.SIGKILL)
    assert is_problem(await exporting, 500, "worker-ended")
    assert not leftovers(exports.directory)


async def test_a_client_that_goes_ends_its_export(exports: RatingsApi, locked: sqlite3.Connection) -> None:
    """As uvicorn tells it: the body, and at some later time that the connection is closed."""
    gone = asyncio.Event()
    body: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", PUBLIC["Authorization"].encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": EXPORT, "raw_path": EXPORT.encode(), "query_string": b""}
    app: Any = create_app(exports.services)
    asking = asyncio.create_task(app(scope | {"headers": headers, "app": app}, receive, send))
    await eventually(lambda: workers_of(os.getpid()))
    gone.set()
    await asking
    assert not workers_of(os.getpid())
    assert not leftovers(exports.directory)
    assert await exports.listed() == []


async def test_more_than_a_few_at_a_time_are_told_to_come_later(
    api: Api, tmp_path: Path, locked: sqlite3.Connection
) -> None:
    async with ratings_api(api, tmp_path, f"sqlite:///{tmp_path}/ratings.db") as exports:
        waiting = [asyncio.create_task(exports.export(limit=limit)) for limit in (1, 2, 3, 4, 5)]
        await eventually(lambda: exports.services.turns.waiting == 4)
        response = await exports.export()
        assert is_problem(response, 429, "ratings-busy")
        assert int(response.headers["retry-after"]) > 0
        assert await exports.listed() == []
        locked.execute("ROLLBACK")
        assert [done.status_code for done in await asyncio.gather(*waiting)] == [201] * 5


class StuckExport(NamedTuple):
    """A dataset that can't be made yet, asked for, and the process that tries."""

    connection: http.client.HTTPConnection
    worker: int

    async def is_ended(self) -> None:
        await eventually(lambda: not environment(self.worker).exists())


async def stuck_export(api: Process) -> StuckExport:
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    connection.request("POST", EXPORT, body=b'{"format": "alpaca"}', headers=JSON)
    (worker,) = await eventually(lambda: workers_of(api.process.pid))
    return StuckExport(connection, worker)


async def test_a_dataset_comes_over_the_network_and_an_export_ends_with_the_api(tmp_path: Path, database: str) -> None:
    (tmp_path / "url").write_text(database)
    variables = {
        "FINETUNE_RATINGS_URL_FILE": str(tmp_path / "url"),
        "FINETUNE_DATASETS_DIRECTORY": str(tmp_path / "datasets"),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
        "FINETUNE_API_DRAIN_TIMEOUT_SECONDS": "1",
    }
    api = Process(tmp_path, **variables)
    try:
        await asyncio.to_thread(api.wait_until_ready)
        made = json.loads(await asyncio.to_thread(fetch, api, "POST", EXPORT, b"{}"))
        content = await asyncio.to_thread(fetch, api, "GET", made["files"][0]["download_path"])
        assert content == (tmp_path / "datasets" / made["dataset_path"]).read_bytes()

        with locked_database(tmp_path / "ratings.db"):
            export = await stuck_export(api)
            export.connection.close()
            await export.is_ended()

            export = await stuck_export(api)
            api.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(api.wait) == 0
            await export.is_ended()
            assert leftovers(tmp_path / "datasets") == {made["id"]}

            api = Process(tmp_path, **variables)
            await asyncio.to_thread(api.wait_until_ready)
            export = await stuck_export(api)
            api.process.send_signal(signal.SIGKILL)
            assert await asyncio.to_thread(api.wait) == -signal.SIGKILL
            await export.is_ended()
        listed = ExportedDatasets(tmp_path / "datasets")
        assert [dataset.id for dataset in listed.newest_first()] == [made["id"]]
        handle = listed.try_lock()
        assert handle is not None
        os.close(handle)
    finally:
        if api.process.poll() is None:
            api.process.kill()
            await asyncio.to_thread(api.wait)


def fetch(api: Process, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", api.port)
    connection.request(method, path, body=body, headers=JSON)
    return connection.getresponse().read()
