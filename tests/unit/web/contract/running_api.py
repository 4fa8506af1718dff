"""The api behind a real port, in a thread of its own, on a played API server: for clients that know no event loop.

Everything that a request can name is there: trainings, versions, a test with an open comparison, a dataset.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import structlog
import uvicorn

from finetune_operator.kube.client import KubeClient
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services
from finetune_operator.web.settings import Settings
from tests.builders import batch_object, job_object, version_object
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import ENVIRONMENT, Clock, FakeArms, ab_test
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.played_api_server import EDIT, OWN_TOKEN, PlayedApiServer, User
from tests.waiting import eventually

START_SECONDS = 30.0
NAMESPACE, OTHER_NAMESPACE = "finetune", "other"
NARROW = {("get", "finetunejobs"), ("list", "finetunejobs"), ("create", "abtests/votes")}
HISTORY = [{"time": "2026-11-22T12:00:00Z", "state": "Deployed", "why": "test", "previous": "plato-v1"}]
LOADED = {"type": "Loaded", "status": "True", "reason": "Test", "lastTransitionTime": "2026-11-22T12:00:00Z"}
ACTIVE = {"engine": "e", "promotedAt": "2026-11-22T12:00:00Z", "history": HISTORY, "conditions": [LOADED]}
ENDED = {"phase": "Succeeded", "modelVersion": "plato-v2", "progress": {"percent": 100, "step": 9, "totalSteps": 9}}
ROLES: dict[str, dict[str, str]] = {
    "anonymous": {},
    "narrow": {"Authorization": "Bearer narrow"},
    "token-holder": {"Authorization": "Bearer public-token"},
    "admin": {"Authorization": "Bearer admin"},
}


@dataclass(frozen=True)
class RunningApi:
    """Where it listens, and what stands behind it."""

    url: str
    cluster: PlayedApiServer
    services: Services
    log: list[str]
    """What the api's threads have logged."""


CLIENT = "httpx2"
"""Whoever attacks logs, too."""


@contextmanager
def collected_log() -> Iterator[list[str]]:
    """All that is logged meanwhile, instead of its being printed: a thread knows no capture of a test's."""
    lines: list[str] = []

    def collect(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lines.append(f"{method} {event}")
        raise structlog.DropEvent

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != CLIENT:
                lines.append(f"{record.name} {record.getMessage()} {record.exc_info}")

    # In place, as structlog's own `capture_logs`: loggers that were used before keep their list.
    processors, handler = structlog.get_config()["processors"], Handler()
    before = list(processors)
    processors[:] = [collect]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        processors[:] = before


def furnish(cluster: PlayedApiServer) -> None:
    """One of each kind, in every state that a request is told apart by."""
    cluster.users["narrow"] = User("system:serviceaccount:finetune:narrow", set(NARROW), {NAMESPACE})
    cluster.users["admin"] = User("admin", set(EDIT))
    cluster.put("finetunejobs", job_object(name="plato-1", status={"phase": "Training"}))
    cluster.put("finetunejobs", job_object({"suspend": True}, name="plato-2"))
    cluster.put("finetunejobs", job_object(name="plato-3", status=ENDED))
    cluster.put("modelversions", version_object(1))
    cluster.put("modelversions", version_object(2, status=ACTIVE))
    cluster.put("abtests", ab_test())
    cluster.put("batchinferences", batch_object(name="sums"))


def environment(directory: Path) -> dict[str, str]:
    """With ratings, and a place for datasets."""
    url = write_ratings(directory / "ratings.db", [rating(number) for number in range(12)])
    (directory / "url").write_text(f"{url}\n")
    return ENVIRONMENT | {
        "FINETUNE_NAMESPACES": NAMESPACE,
        "FINETUNE_RATINGS_URL_FILE": str(directory / "url"),
        "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
        "FINETUNE_API_BODY_TIMEOUT_SECONDS": "1",
    }


@asynccontextmanager
async def _services(directory: Path, database: str, cluster: PlayedApiServer) -> AsyncIterator[Services]:
    engine = async_engine(parse_url(database))
    await migrate(engine)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        login = kopf.ConnectionInfo(server=cluster.url, token=OWN_TOKEN)
        kube = KubeClient(session, login, renewed=lambda: login)
        settings = Settings.from_environment(environment(directory))
        yield Services(settings, engine, kube, FakeArms(), now=Clock(), worker=WorkerThread())
    await engine.dispose()


@contextmanager
def running_api(directory: Path, database: str | None = None) -> Iterator[RunningApi]:
    """Until the block ends; the database is an SQLite file unless said otherwise."""
    loop, ready = asyncio.new_event_loop(), queue.Queue[RunningApi]()
    stop = asyncio.Event()

    async def serve() -> None:
        cluster = PlayedApiServer()
        furnish(cluster)
        url = database or f"sqlite:///{directory}/api.db"
        async with cluster.running(), _services(directory, url, cluster) as services:
            config = uvicorn.Config(create_app(services), host="127.0.0.1", port=0, log_config=None, access_log=False)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())
            await eventually(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            ready.put(RunningApi(f"http://127.0.0.1:{port}", cluster, services, lines))
            await stop.wait()
            services.streams.stop()
            server.should_exit = True
            await serving

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="running-api", daemon=True)
    with collected_log() as lines:
        thread.start()
        try:
            yield ready.get(timeout=START_SECONDS)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(START_SECONDS)
            assert not thread.is_alive()
            loop.close()
