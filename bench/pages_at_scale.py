"""How long the api takes for each list and page with a hundred thousand trainings, a million samples and votes.

The API server is made up, all else is the product: its client, its mirror, its routes, SQLite and PostgreSQL. What is
measured is in `measured_paths`. FINETUNE_BENCH_SCALE, such as 0.01, makes everything smaller. FINETUNE_BENCH_PATHS, as
`/batches,/api-keys`, measures what begins so alone, and FINETUNE_BENCH_DATABASE one of the two databases.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import httpx2
import kopf
from sqlalchemy.ext.asyncio import AsyncEngine

from bench import many_things, many_votes
from bench.many_resources import NAMESPACE, ManyResources
from bench.measured_paths import ASKED_BY_US, PATHS, TRAINING
from bench.report import Figure, NotMeasurable, Report
from finetune_operator.kube.client import KubeClient
from finetune_operator.logs import configure_logging
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.app import create_app, settle
from finetune_operator.web.mirroring import PLURALS, Mirroring
from finetune_operator.web.services import ArmUnavailable, Services
from finetune_operator.web.settings import Settings
from tests import postgres_server

SCALE = float(os.environ.get("FINETUNE_BENCH_SCALE") or 1)
TRAININGS, VOTES, SAMPLES, RATINGS = (
    max(1000, int(count * SCALE)) for count in (100_000, 1_000_000, 1_000_000, 1_000_000)
)
CHOSEN = tuple(filter(None, os.environ.get("FINETUNE_BENCH_PATHS", "").split(",")))
ONLY_DATABASE = os.environ.get("FINETUNE_BENCH_DATABASE")
ROUNDS = 20
SLOW_ROUNDS, SLOW_MS = 5, 5000.0
TICK_SECONDS = 0.002
GOAL_MS = 200.0
GROWTH_GOAL_MIB = 256
SYNC_SECONDS = 900.0
LOGIN = {"Authorization": "Bearer ada"}
INTERNAL = {"Authorization": "Bearer internal-token"}


def measure() -> Report:
    """On both databases; raises NotMeasurable where the mirror does not come about."""
    configure_logging("WARNING")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        if ONLY_DATABASE != "PostgreSQL":
            figures += asyncio.run(_measured("SQLite", f"sqlite:///{directory}/api.db", Path(directory)))
        if ONLY_DATABASE != "SQLite":
            with postgres_server.running() as server:
                figures += asyncio.run(_measured("PostgreSQL", server.database(), Path(directory)))
    return Report(
        tuple(figures),
        (
            f"{TRAININGS} FineTuneJobs and as many ModelVersions, {VOTES} votes and {SAMPLES} samples of one ABTest",
            f"{many_things.KEYS} API keys, {many_things.POINTS} points of a curve, {many_things.DATASETS} exported "
            f"datasets, {RATINGS} ratings in SQLite, a BatchInference for every tenth training",
            "at the server: the whole application without the network; the first answer is apart, since it finds "
            "nothing in any cache",
            "the API server is made up in the same process, so that its work is in the figures",
        ),
    )


async def _measured(name: str, url: str, directory: Path) -> list[Figure]:
    async with AsyncExitStack() as stack:
        address = parse_url(url)
        engine = async_engine(address)
        stack.push_async_callback(engine.dispose)
        await many_votes.fill(engine, address, VOTES, SAMPLES)
        begun = time.monotonic()
        await migrate(engine)
        migrated = time.monotonic() - begun
        await many_votes.fill_usage(engine, address)
        await many_things.fill(engine, TRAINING)
        if not (directory / "datasets").exists():
            many_things.fill_datasets(directory / "datasets")
        ratings = many_things.fill_ratings_database(directory, RATINGS)
        cluster = await stack.enter_async_context(ManyResources(TRAININGS).running())
        before = _begin_peak()
        begun = time.monotonic()
        async with _Held() as held:
            client = await stack.enter_async_context(_api(engine, cluster, directory, ratings))
        synced = time.monotonic() - begun
        grown = _peak_mib() - before
        figures = [
            Figure(f"{name}: migrations of an older schema", f"{migrated:.1f} s", "with all votes in it"),
            Figure(
                f"{name}: until the mirror stands",
                f"{synced:.1f} s",
                f"all lists read and kept; the event loop held for {held.longest_ms:.0f} ms at most",
            ),
            Figure(
                f"{name}: memory for it",
                f"{grown:.0f} MiB",
                "growth of the process's peak",
                f"<= {GROWTH_GOAL_MIB} MiB",
                grown <= GROWTH_GOAL_MIB,
            ),
        ]
        cluster.lists = 0
        before = _begin_peak()
        for figure in figures:
            _tell(figure)
        for path, login in (*((path, LOGIN) for path in PATHS), *((path, INTERNAL) for path in ASKED_BY_US)):
            if CHOSEN and not path.startswith(CHOSEN):
                continue
            figures.append(await _timed(name, client, path, login))
            _tell(figures[-1])
        grown = _peak_mib() - before
        figures.append(Figure(f"{name}: lists read from the API server", str(cluster.lists), "by all of these", "0"))
        figures.append(Figure(f"{name}: memory for all of these", f"{grown:.0f} MiB", "growth of the process's peak"))
        return figures


def _tell(figure: Figure) -> None:
    """As it is measured, so that a run that is ended early was not for nothing."""
    print(f"{figure.name}: {figure.value}; {figure.how}", file=sys.stderr, flush=True)


async def _timed(name: str, client: httpx2.AsyncClient, path: str, login: dict[str, str]) -> Figure:
    """Beside a clock in the same event loop, which says how long all other requests waited for this one."""
    first = await _milliseconds(client, path, login)
    cpu = time.process_time()
    async with _Held() as held:
        rounds = ROUNDS if first < SLOW_MS else SLOW_ROUNDS
        rest = [await _milliseconds(client, path, login) for _ in range(rounds)]
    p95 = statistics.quantiles(rest, n=20)[-1]
    cpu_ms = (time.process_time() - cpu) / rounds * 1000
    median = statistics.median(rest)
    how = f"p95 of {rounds}, median {median:.0f} ms, first {first:.0f} ms; the process's CPU {cpu_ms:.0f} ms, "
    how += f"its event loop held for {held.longest_ms:.0f} ms at most"
    goal = "" if path in ASKED_BY_US else f"<= {GOAL_MS:.0f} ms"
    return Figure(f"{name}: {path}", f"{p95:.0f} ms", how, goal, p95 <= GOAL_MS if goal else None)


class _Held:
    """How long the event loop did nothing else, at most."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def __aenter__(self) -> "_Held":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - begun - TICK_SECONDS) * 1000)


async def _milliseconds(client: httpx2.AsyncClient, path: str, login: dict[str, str]) -> float:
    begun = time.perf_counter()
    response = await client.get(path, headers=login)
    took = (time.perf_counter() - begun) * 1000
    if response.status_code != 200:
        raise NotMeasurable(f"{path} answered {response.status_code}: {response.text[:300]}")
    return took


@asynccontextmanager
async def _api(
    engine: AsyncEngine, cluster: ManyResources, directory: Path, ratings: Path
) -> AsyncIterator[httpx2.AsyncClient]:
    """Once its mirror stands."""
    login = kopf.ConnectionInfo(server=cluster.url, token="own")  # noqa: S106 - of nobody
    environment = {
        "FINETUNE_API_TOKEN": "api-token",
        "FINETUNE_INTERNAL_TOKEN": "internal-token",
        "FINETUNE_NAMESPACES": NAMESPACE,
        "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
        "FINETUNE_RATINGS_URL_FILE": str(ratings),
        "FINETUNE_API_KEY_ACCOUNTS": many_things.ACCOUNT,
    }
    settings = Settings.from_environment(environment)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        kube = KubeClient(session, login, renewed=lambda: login)
        mirroring = Mirroring(engine, kube, settings.namespaces)
        following = asyncio.create_task(mirroring.run())
        try:
            deadline = time.monotonic() + SYNC_SECONDS
            while not mirroring.is_current(*PLURALS):
                if time.monotonic() > deadline:
                    raise NotMeasurable(f"the mirror did not stand within {SYNC_SECONDS:g} s")
                await asyncio.sleep(0.1)
            app = create_app(Services(settings, engine, kube, _NoArms(), mirroring=mirroring))
            settle()
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
                yield client
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


class _NoArms:
    async def ask(self, served_name: str, prompt: str) -> str:
        raise ArmUnavailable("nothing here is compared anew")


def _begin_peak() -> float:
    """Forget the peak of before; what there is now, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_mib()


def _peak_mib() -> float:
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(found.split()[1]) / 1024
