"""From the write of a ModelVersion to the first answer by the new route, while others go on asking.

A real API server, the gateway as a process of its own, and an engine that costs nothing. No operator runs: the gateway
routes by what the API server has. Each change is one write of `spec.state`, as a user's rollback is.
"""

import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.gateway.engine import Engine
from bench.gateway.measure import HOST, MESSAGES, ours, running
from bench.report import Figure, NotMeasurable, Report
from finetune_operator.gateway.exchange import VERSION_HEADER
from finetune_operator.kube.client import KubeClient
from finetune_operator.resources.common import API_VERSION
from tests.cluster.control_plane import RELEASE_NAME, RELEASE_NAMESPACE, CommandFailed, running_control_plane
from tests.cluster.samples import Manifest
from tests.unit.gateway.servers import free_port
from tests.unit.resource_builders import version_object

NAMESPACE, ALIAS = "routes", "plato"
FIRST, SECOND = "plato-v1", "plato-v2"
CHANGES = 100
CLIENTS, PAUSE_SECONDS = 8, 0.05
GOAL_MILLISECONDS = 100.0
DEADLINE_SECONDS = 10.0


@dataclass
class Traffic:
    """What others got meanwhile."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)


def measure() -> Report:
    """All changes of one run; raises NotMeasurable where no API server can be started."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            delays, traffic = asyncio.run(_measure(Path(directory)))
    except (CommandFailed, OSError, RuntimeError) as error:
        raise NotMeasurable(f"{error}; `make cluster` compiles what is needed") from error
    median, p99 = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    how = f"{len(delays)} changes, from sending the write to the first answer of the other version"
    goal, failures = f"<= {GOAL_MILLISECONDS:g} ms", len(traffic.failures)
    return Report(
        (
            Figure("written -> routed, p50", f"{median:.1f} ms", how, goal, median <= GOAL_MILLISECONDS),
            Figure("written -> routed, p99", f"{p99:.1f} ms", how, goal, p99 <= GOAL_MILLISECONDS),
            Figure("failed requests", str(failures), f"of {traffic.answers} of other clients", "0", not failures),
        ),
        tuple(traffic.failures[:3]),
    )


async def _measure(directory: Path) -> tuple[list[float], Traffic]:
    engine, port, traffic = Engine(chunks=1, interval_seconds=0), free_port(), Traffic()
    await engine.start()
    async with running_control_plane(directory) as plane, aiohttp.ClientSession() as session:
        await plane.kubectl("create", "namespace", NAMESPACE)
        await plane.apply(*plane.rights_in(NAMESPACE))
        # The first was promoted last, and answers unless the second is pinned.
        for name, promoted in ((FIRST, 2), (SECOND, 1)):
            body = version_object(name, namespace=NAMESPACE, engine=str(engine.port), promoted=promoted)
            await _create(plane.client, body)
        access = await plane.account_kubeconfig(RELEASE_NAMESPACE, f"{RELEASE_NAME}-gateway")
        async with running(ours(access, port, NAMESPACE), directory, port, max(os.sched_getaffinity(0))):
            url = f"http://{HOST}:{port}/v1/chat/completions"
            async with asyncio.TaskGroup() as group:
                clients = [group.create_task(_client(session, url, traffic)) for _ in range(CLIENTS)]
                delays = [await _change(plane.client, session, url, number) for number in range(CHANGES)]
                for client in clients:
                    client.cancel()
    return delays, traffic


async def _create(client: KubeClient, body: Manifest) -> None:
    made = {"apiVersion": API_VERSION, "kind": body["kind"], "spec": body["spec"]}
    name = body["metadata"]["name"]
    await client.create("modelversions", NAMESPACE, made | {"metadata": {"name": name, "namespace": NAMESPACE}})
    await client.merge_patch("modelversions", NAMESPACE, name, {"status": body["status"]}, "status")


async def _change(client: KubeClient, session: aiohttp.ClientSession, url: str, number: int) -> float:
    """Milliseconds until the alias answers from the other version, asked all the time."""
    state, expected = ("Deployed", SECOND) if number % 2 == 0 else (None, FIRST)
    begun = time.perf_counter()
    writing = asyncio.create_task(client.merge_patch("modelversions", NAMESPACE, SECOND, {"spec": {"state": state}}))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await _version(session, url) != expected:
            pass
    delay = (time.perf_counter() - begun) * 1000
    await writing
    return delay


async def _client(session: aiohttp.ClientSession, url: str, traffic: Traffic) -> None:
    while True:
        try:
            version = await _version(session, url)
        except (aiohttp.ClientError, AssertionError) as error:
            traffic.failures.append(repr(error))
        else:
            traffic.answers += 1
            if version not in (FIRST, SECOND):
                traffic.failures.append(f"answered by {version}")
        await asyncio.sleep(PAUSE_SECONDS)


async def _version(session: aiohttp.ClientSession, url: str) -> str:
    """Who answered, as the header and the body agree."""
    async with session.post(url, json={"model": ALIAS, "messages": MESSAGES}) as response:
        body = await response.json()
        assert response.status == 200, body
        assert response.headers[VERSION_HEADER] == body["model"], body
        return str(body["model"])
