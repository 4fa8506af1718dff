"""How long the api takes for each list and page with a hundred thousand trainings, a million samples and votes.

The API server is made up, all else is the product: its client, its mirror, its routes, SQLite and PostgreSQL. Pages
that are added to the product are added to `PATHS`. FINETUNE_BENCH_SCALE, such as 0.01, makes everything smaller.
"""

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import kopf
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.many_resources import NAMESPACE, ManyResources
from bench.report import Figure, NotMeasurable, Report
from finetune_operator.kube.client import KubeClient
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.store.tables import ArmSample, Base, Comparison, Vote
from finetune_operator.web.app import create_app
from finetune_operator.web.mirroring import PLURALS, Mirroring
from finetune_operator.web.services import ArmUnavailable, Services
from finetune_operator.web.settings import Settings
from tests import postgres_server

SCALE = float(os.environ.get("FINETUNE_BENCH_SCALE") or 1)
TRAININGS, VOTES, SAMPLES = (max(1000, int(count * SCALE)) for count in (100_000, 1_000_000, 1_000_000))
ROUNDS = 30
GOAL_MS = 200.0
GROWTH_GOAL_MIB = 256
SYNC_SECONDS = 900.0
INSERTED_AT_ONCE = 5000
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LOGIN = {"Authorization": "Bearer ada"}
TEST_PATH = f"/v1/fine-tuning/ab-test/{NAMESPACE}.duel"
PATHS: tuple[str, ...] = (
    "/v1/fine-tuning/jobs",
    "/v1/fine-tuning/jobs?status=failed",
    "/v1/fine-tuning/jobs?status=training",
    "/v1/fine-tuning/jobs?model=family-7&limit=20",
    f"/v1/fine-tuning/jobs?after={NAMESPACE}.training-000500",
    "/api/training/jobs?vertical=law&status=completed",
    "/v1/fine_tuning/jobs",
    "/v1/fine-tuning/models",
    "/v1/fine-tuning/models?philosopher=p3&domain=law",
    "/v1/models",
    "/v1/fine-tuning/ab-test",
    TEST_PATH,
    f"{TEST_PATH}/comparisons",
    f"{TEST_PATH}/voters",
    f"{TEST_PATH}/win-rates",
    "/v1/fine-tuning/comparisons",
)
"""The cursor's training is one of the oldest, so that its page is far down the list."""


def measure() -> Report:
    """On both databases; raises NotMeasurable where the mirror does not come about."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory, postgres_server.running() as server:
        for name, url in (("SQLite", f"sqlite:///{directory}/api.db"), ("PostgreSQL", server.database())):
            figures += asyncio.run(_measured(name, url, Path(directory)))
    return Report(
        tuple(figures),
        (
            f"{TRAININGS} FineTuneJobs and as many ModelVersions, {VOTES} votes and {SAMPLES} samples of one ABTest",
            "at the server: the whole application without the network; the first answer is apart, since votes are "
            "looked at once by each process",
        ),
    )


async def _measured(name: str, url: str, directory: Path) -> list[Figure]:
    async with AsyncExitStack() as stack:
        engine = async_engine(parse_url(url))
        stack.push_async_callback(engine.dispose)
        await migrate(engine)
        await _fill(engine)
        cluster = await stack.enter_async_context(ManyResources(TRAININGS).running())
        before = _peak_mib()
        begun = time.monotonic()
        client = await stack.enter_async_context(_api(engine, cluster, directory))
        synced = time.monotonic() - begun
        grown = _peak_mib() - before
        figures = [
            Figure(f"{name}: until the mirror stands", f"{synced:.1f} s", "all lists read and kept"),
            Figure(
                f"{name}: memory for it",
                f"{grown:.0f} MiB",
                "growth of the process's peak",
                f"<= {GROWTH_GOAL_MIB} MiB",
                grown <= GROWTH_GOAL_MIB,
            ),
        ]
        cluster.lists = 0
        figures += [await _timed(name, client, path) for path in PATHS]
        figures.append(Figure(f"{name}: lists read from the API server", str(cluster.lists), "by all of these", "0"))
        return figures


async def _timed(name: str, client: httpx2.AsyncClient, path: str) -> Figure:
    first = await _milliseconds(client, path)
    cpu = time.process_time()
    rest = [await _milliseconds(client, path) for _ in range(ROUNDS)]
    p95 = statistics.quantiles(rest, n=20)[-1]
    cpu_ms = (time.process_time() - cpu) / ROUNDS * 1000
    how = (
        f"p95 of {ROUNDS}, median {statistics.median(rest):.0f} ms, first {first:.0f} ms; the api's CPU {cpu_ms:.0f} ms"
    )
    return Figure(f"{name}: {path}", f"{p95:.0f} ms", how, f"<= {GOAL_MS:.0f} ms", p95 <= GOAL_MS)


async def _milliseconds(client: httpx2.AsyncClient, path: str) -> float:
    begun = time.perf_counter()
    response = await client.get(path, headers=LOGIN)
    took = (time.perf_counter() - begun) * 1000
    if response.status_code != 200:
        raise NotMeasurable(f"{path} answered {response.status_code}: {response.text[:300]}")
    return took


@asynccontextmanager
async def _api(engine: AsyncEngine, cluster: ManyResources, directory: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Once its mirror stands."""
    login = kopf.ConnectionInfo(server=cluster.url, token="own")  # noqa: S106 - of nobody
    environment = {
        "FINETUNE_API_TOKEN": "api-token",
        "FINETUNE_INTERNAL_TOKEN": "internal-token",
        "FINETUNE_NAMESPACES": NAMESPACE,
        "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
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
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
                yield client
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


class _NoArms:
    async def ask(self, served_name: str, prompt: str) -> str:
        raise ArmUnavailable("nothing here is compared anew")


async def _fill(engine: AsyncEngine) -> None:
    for table, row, count in ((Comparison, _comparison, VOTES), (Vote, _vote, VOTES), (ArmSample, _sample, SAMPLES)):
        await _insert(engine, table, map(row, range(count)))
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await autocommit.exec_driver_sql("VACUUM ANALYZE")
    async with engine.connect() as connection:
        kept = (await connection.execute(select(func.count()).select_from(Vote))).scalar_one()
    if kept != VOTES:
        raise NotMeasurable(f"{kept} votes were kept of {VOTES}")


async def _insert(engine: AsyncEngine, table: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    """In many transactions, as they come: each changes the counts of its test."""
    for some in _chunks(rows, INSERTED_AT_ONCE):
        async with engine.begin() as connection:
            await connection.execute(insert(table), some)


def _chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while some := list(islice(remaining, size)):
        yield some


def _comparison(number: int) -> dict[str, Any]:
    evaluator = number % 1000
    return {
        "id": f"{number:08}",
        "abtest_uid": "test-uid",
        "namespace": NAMESPACE,
        "name": "duel",
        "evaluator": f"voter-{evaluator}",
        "number": number // 1000,
        "prompt": f"What is the use of question {number % 200}?",
        "baseline_served_name": "tiny-llama",
        "candidate_served_name": "family-0-v1",
        "baseline_answer": "It is of no use at all.",
        "candidate_answer": "It is of use to those who think about it.",
        "candidate_side": "a",
        "created_at": NOON + timedelta(seconds=number),
    }


def _vote(number: int) -> dict[str, Any]:
    return {
        "comparison_id": f"{number:08}",
        "evaluator": f"voter-{number % 1000}",
        "abtest_uid": "test-uid",
        "choice": ("fine_tuned", "base", "fine_tuned", "tie", "both_bad")[number * 7 % 5],
        "late": False,
        "created_at": NOON + timedelta(seconds=number + 1),
    }


def _sample(number: int) -> dict[str, Any]:
    return {
        "abtest_uid": "test-uid",
        "request_id": f"request-{number:08}",
        "arm": "candidate" if number % 2 else "baseline",
        "served_name": "family-0-v1",
        "status": 200,
        "latency_ms": 100 + number % 50,
        "time": NOON + timedelta(seconds=number),
        "shadow": False,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
