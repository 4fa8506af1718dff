"""The api behind a real port, in a thread of its own, on a played API server: for clients that know no event loop.

Everything that a request can name is there, by `furnishing`.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
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
from tests.unit.store.ratings_database import rating, write_ratings
from tests.unit.web.conftest import ENVIRONMENT, Clock, FakeArms, FakeGateway
from tests.unit.web.contract.furnishing import KNOWN_VALUES, NAMESPACE, ROBOT, furnish, furnished
from tests.unit.web.ratings_api import WorkerThread
from tests.unit.web.rest.played_api_server import OWN_TOKEN, PlayedApiServer
from tests.waiting import eventually

START_SECONDS = 30.0


@dataclass(frozen=True)
class RunningApi:
    """Where it listens, and what stands behind it."""

    url: str
    cluster: PlayedApiServer
    services: Services
    log: list[str]
    """What the api's threads have logged."""
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is there, by the parameter that names it."""


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


def environment(directory: Path) -> dict[str, str]:
    """With ratings, and a place for datasets."""
    url = write_ratings(directory / "ratings.db", [rating(number) for number in range(12)])
    (directory / "url").write_text(f"{url}\n")
    return ENVIRONMENT | {
        "FINETUNE_NAMESPACES": NAMESPACE,
        "FINETUNE_API_KEY_ACCOUNTS": ROBOT,
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
        yield Services(settings, engine, kube, FakeArms(), gateway=FakeGateway(), now=Clock(), worker=WorkerThread())
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
            running = ready.get(timeout=START_SECONDS)
            yield replace(running, known={**KNOWN_VALUES, **furnished(running.url)})
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(START_SECONDS)
            assert not thread.is_alive()
            loop.close()
