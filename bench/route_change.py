"""From the write of a ModelVersion to the first answer by the new route, while others go on asking.

A real API server, the gateway as a process of its own, and an engine that costs nothing. No operator runs: the gateway
routes by what the API server has. Each change is one write of `spec.state`, as a user's rollback is. After it, on the
same core and asked in the same way: nginx, whose change is a file with another engine's address and `nginx -s reload`.
"""

import asyncio
import os
import statistics
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from bench.gateway.engine import Engine
from bench.gateway.measure import HOST, MESSAGES, Gateway, ours, running
from bench.gateway.peers import nginx
from bench.report import Figure, NotMeasurable, Report
from finetune_operator.gateway.exchange import VERSION_HEADER
from finetune_operator.kube.client import KubeClient
from finetune_operator.resources.common import API_VERSION
from local_cluster.console import Refused
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


Change = Callable[[str], Awaitable[object]]
"""Writes that this version is to answer."""


@dataclass
class Run:
    """What the changes took, and what others got meanwhile."""

    delays: list[float] = field(default_factory=list)
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the gateway's processes, within that time."""

    @contextmanager
    def timed(self, gateway: Gateway) -> Iterator[None]:
        """The changes and what is asked meanwhile."""
        began, used = time.perf_counter(), gateway.cpu_seconds()
        yield
        self.wall_seconds, self.cpu_seconds = time.perf_counter() - began, gateway.cpu_seconds() - used

    @property
    def cpu_figure(self) -> tuple[str, str]:
        """The time, and how it is to be read."""
        how = f"of the gateway's processes, for {len(self.delays)} changes and {self.answers} answers"
        return f"{self.cpu_seconds:.2f} s of {self.wall_seconds:.1f} s", how


def measure() -> Report:
    """All changes of one run; raises NotMeasurable where no API server can be started."""
    try:
        with tempfile.TemporaryDirectory() as directory:
            ours_run, nginx_run = asyncio.run(_measure(Path(directory)))
    except (CommandFailed, OSError, RuntimeError) as error:
        raise NotMeasurable(f"{error}; `make cluster` compiles what is needed") from error
    notes = [f"gateway: {failure}" for failure in ours_run.failures[:3]]
    if isinstance(nginx_run, Run):
        theirs = list(_nginx_figures(ours_run, nginx_run))
        notes += [f"nginx: {failure}" for failure in nginx_run.failures[:3]]
    else:
        theirs = []
        notes.append(f"nginx: not measurable: {nginx_run}")
    return Report((*_figures(ours_run), *theirs), tuple(notes))


def _figures(run: Run) -> Iterator[Figure]:
    how = f"{len(run.delays)} changes, from sending the write to the first answer of the other version"
    goal, (median, p99) = f"<= {GOAL_MILLISECONDS:g} ms", _percentiles(run.delays)
    yield Figure("written -> routed, p50", f"{median:.1f} ms", how, goal, median <= GOAL_MILLISECONDS)
    yield Figure("written -> routed, p99", f"{p99:.1f} ms", how, goal, p99 <= GOAL_MILLISECONDS)
    failures = len(run.failures)
    yield Figure("failed requests", str(failures), f"of {run.answers} of all clients", "0", not failures)
    yield Figure("CPU time", *run.cpu_figure)


def _nginx_figures(ours_run: Run, run: Run) -> Iterator[Figure]:
    how = f"{len(run.delays)} changes, from writing the file to the first answer of the other engine"
    (median, p99), (our_median, _) = _percentiles(run.delays), _percentiles(ours_run.delays)
    yield Figure("nginx reload: written -> routed, p50", f"{median:.1f} ms", how)
    yield Figure("nginx reload: written -> routed, p99", f"{p99:.1f} ms", how)
    yield Figure("nginx reload: failed requests", str(len(run.failures)), f"of {run.answers} of all clients")
    yield Figure("nginx reload: CPU time", *run.cpu_figure)
    yield Figure("written -> routed, ours / nginx reload", f"{our_median / median:.2f}", "medians of one run")


def _percentiles(delays: list[float]) -> tuple[float, float]:
    """The 50th and the 99th."""
    return statistics.median(delays), statistics.quantiles(delays, n=100)[98]


async def _measure(directory: Path) -> tuple[Run, Run | str]:
    """Ours, and nginx's or why there is none."""
    ours_run = await _ours(directory)
    try:
        return ours_run, await _nginx(directory)
    except Refused as error:
        return ours_run, str(error)


async def _ours(directory: Path) -> Run:
    engine, port = Engine(chunks=1, interval_seconds=0), free_port()
    await engine.start()
    async with running_control_plane(directory) as plane:
        await plane.kubectl("create", "namespace", NAMESPACE)
        await plane.apply(*plane.rights_in(NAMESPACE))
        # The first was promoted last, and answers unless the second is pinned.
        for name, promoted in ((FIRST, 2), (SECOND, 1)):
            body = version_object(name, namespace=NAMESPACE, engine=str(engine.port), promoted=promoted)
            await _create(plane.client, body)
        access = await plane.account_kubeconfig(RELEASE_NAMESPACE, f"{RELEASE_NAME}-gateway")
        async with running(ours(access, port, NAMESPACE), directory, port, max(os.sched_getaffinity(0))) as gateway:
            versions = [SECOND, FIRST] * (CHANGES // 2)
            return await _changed_under_load(gateway, partial(_pin, plane.client), versions, told_in_header=True)


async def _pin(client: KubeClient, version: str) -> None:
    state = "Deployed" if version == SECOND else None
    await client.merge_patch("modelversions", NAMESPACE, SECOND, {"spec": {"state": state}})


async def _nginx(directory: Path) -> Run:
    """Each change is to an engine of its own: a worker of the configuration before the last may still answer."""
    engines = [Engine(chunks=1, interval_seconds=0, answers_as=f"plato-{number}") for number in range(CHANGES + 1)]
    for engine in engines:
        await engine.start()
    ports, port = {engine.answers_as: engine.port for engine in engines}, free_port()
    command = nginx(directory, engines[0].port, port, reloads=True)

    async def reload(version: str) -> None:
        nginx(directory, ports[version], port, reloads=True)
        process = await asyncio.create_subprocess_exec(*command.arguments, "-s", "reload", stderr=PIPE)
        _, errors = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"`nginx -s reload` failed: {errors.decode()}")

    async with running(command, directory, port, max(os.sched_getaffinity(0))) as gateway:
        versions = [engine.answers_as or "" for engine in engines]
        return await _changed_under_load(gateway, reload, versions[1:], told_in_header=False)


async def _changed_under_load(
    gateway: Gateway, change: Change, versions: Sequence[str], *, told_in_header: bool
) -> Run:
    """To each of these in turn, while other clients go on asking."""
    run, url = Run(), f"http://{HOST}:{gateway.door.port}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        ask = partial(_version, session, url, told_in_header=told_in_header)
        clients = [group.create_task(_client(ask, run)) for _ in range(CLIENTS)]
        with run.timed(gateway):
            for version in versions:
                run.delays.append(await _change(change, ask, run, version))
        for client in clients:
            client.cancel()
    return run


async def _create(client: KubeClient, body: Manifest) -> None:
    made = {"apiVersion": API_VERSION, "kind": body["kind"], "spec": body["spec"]}
    name = body["metadata"]["name"]
    await client.create("modelversions", NAMESPACE, made | {"metadata": {"name": name, "namespace": NAMESPACE}})
    await client.merge_patch("modelversions", NAMESPACE, name, {"status": body["status"]}, "status")


async def _change(change: Change, ask: Callable[[], Awaitable[str]], run: Run, version: str) -> float:
    """Milliseconds until the alias answers from this version, asked all the time."""
    begun = time.perf_counter()
    writing = asyncio.ensure_future(change(version))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await _asked(ask, run) != version:
            pass
    delay = (time.perf_counter() - begun) * 1000
    await writing
    return delay


async def _client(ask: Callable[[], Awaitable[str]], run: Run) -> None:
    while True:
        await _asked(ask, run)
        await asyncio.sleep(PAUSE_SECONDS)


async def _asked(ask: Callable[[], Awaitable[str]], run: Run) -> str | None:
    """Who answered; a failure is counted."""
    try:
        version = await ask()
    except (aiohttp.ClientError, AssertionError) as error:
        run.failures.append(repr(error))
        return None
    run.answers += 1
    return version


async def _version(session: aiohttp.ClientSession, url: str, *, told_in_header: bool) -> str:
    """Who answered: the body tells, and the header agrees where there is one."""
    async with session.post(url, json={"model": ALIAS, "messages": MESSAGES}) as response:
        body = await response.json()
        assert response.status == 200, body
        if told_in_header:
            assert response.headers[VERSION_HEADER] == body["model"], body
        return str(body["model"])
