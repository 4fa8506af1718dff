"""What the gateway costs: python -m bench.gateway.measure

The gateway runs on one core, the load and a next-to-free engine on another. Each figure is taken with and without the
gateway in alternating rounds of one run, since the machine's speed changes from run to run; only ratios and CPU
seconds compare with another machine's.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

from bench.cpu_time import process_seconds
from bench.gateway.engine import Engine
from bench.gateway.peers import Command, litellm, nginx, portkey
from local_cluster.console import Refused
from tests.unit.gateway.servers import ApiServer, free_port
from tests.unit.kubeconfig import kubeconfig
from tests.unit.resource_builders import version_object

HOST = "127.0.0.1"
MESSAGES = [{"role": "user", "content": "What is justice? " * 20}]
START_DEADLINE_SECONDS = 60.0
OPEN_LOOP_CONNECTIONS = 16
STREAMS = 200
ABORT_PATIENCE_SECONDS = 5.0
"""An abort that the engine has not seen by then counts as never seen."""
OURS = "finetune"
PEERS: Mapping[str, Callable[[Path, int, int], Command]] = {"nginx": nginx, "Portkey": portkey, "LiteLLM": litellm}


@dataclass(frozen=True)
class Door:
    """Where requests go, and what each carries there."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, **members: object) -> bytes:
        body = json.dumps({"model": "plato", "messages": MESSAGES} | members).encode()
        own = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n{own}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection:
    """One kept-open client connection."""

    def __init__(self, door: Door) -> None:
        self._port = door.port

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(HOST, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def whole(self, request: bytes) -> float:
        """Seconds until the last byte."""
        started = time.perf_counter()
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        _, told, rest = head.lower().partition(b"content-length: ")
        if told:
            await self.reader.readexactly(int(rest.partition(b"\r\n")[0]))
        else:
            await self.rest()
        return time.perf_counter() - started

    async def first_token(self, request: bytes) -> float:
        """Seconds until the first event has come."""
        started = time.perf_counter()
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await self.reader.readuntil(b"}\n\n")
        return time.perf_counter() - started

    async def rest(self) -> None:
        await self.reader.readuntil(b"0\r\n\r\n")


async def closed_loop(door: Door, connections: int, seconds: float) -> int:
    """Requests answered while each connection asks again at once."""
    request, end, count = door.request(), time.perf_counter() + seconds, 0

    async def ask() -> None:
        nonlocal count
        async with Connection(door) as connection:
            while time.perf_counter() < end:
                await connection.whole(request)
                count += 1

    await asyncio.gather(*(ask() for _ in range(connections)))
    return count


async def open_loop(door: Door, per_second: int, seconds: float) -> list[float]:
    """Latencies at a fixed rate, counted from when a request was due and not from when it was sent."""
    request, latencies = door.request(), []
    begin = time.perf_counter() + 0.1
    due: asyncio.Queue[float | None] = asyncio.Queue()

    async def ask() -> None:
        async with Connection(door) as connection:
            while (moment := await due.get()) is not None:
                await connection.whole(request)
                latencies.append(time.perf_counter() - moment)

    async with asyncio.TaskGroup() as askers:
        for _ in range(OPEN_LOOP_CONNECTIONS):
            askers.create_task(ask())
        for number in range(int(per_second * seconds)):
            moment = begin + number / per_second
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            due.put_nowait(moment)
        for _ in range(OPEN_LOOP_CONNECTIONS):
            due.put_nowait(None)
    return latencies


async def streams(door: Door, count: int, begin_within_seconds: float = 0.0) -> list[float]:
    """Times to the first token of streams that all begin at once, or evenly within some time; read to their ends."""

    async def ask(number: int) -> float:
        await asyncio.sleep(number * begin_within_seconds / count)
        async with Connection(door) as connection:
            seconds = await connection.first_token(door.request(stream=True))
            await connection.rest()
            return seconds

    return await asyncio.gather(*(ask(number) for number in range(count)))


async def abort_seconds(door: Door, engine: Engine) -> float:
    """From a client's departure in the middle of a stream until the engine notices."""
    engine.aborted = asyncio.get_running_loop().create_future()
    async with Connection(door) as connection:
        await connection.first_token(door.request(stream=True))
        left = time.perf_counter()
    try:
        return await asyncio.wait_for(engine.aborted, ABORT_PATIENCE_SECONDS) - left
    except TimeoutError:
        return math.inf


@dataclass(frozen=True)
class Gateway:
    """A process under measurement."""

    pid: int
    door: Door
    cold_start_seconds: float
    idle_mib: float

    def cpu_seconds(self) -> float:
        return process_seconds(self.pid)

    def memory_mib(self, name: str) -> float:
        line = next(line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024


def ours(access: Path, port: int, namespace: str = "finetune", log_level: str = "INFO") -> Command:
    """The gateway by this kubeconfig, before engines whose names are ports."""
    environment = {
        "KUBECONFIG": str(access),
        "FINETUNE_NAMESPACES": namespace,
        "FINETUNE_GATEWAY_HOST": HOST,
        "FINETUNE_GATEWAY_PORT": str(port),
        "FINETUNE_ENGINE_URL_TEMPLATE": f"http://{HOST}:{{engine}}",
        "FINETUNE_LOG_LEVEL": log_level,
    }
    return Command((sys.executable, "-m", "finetune_operator", "gateway"), environment)


@asynccontextmanager
async def running(command: Command, directory: Path, port: int, cpu: int) -> AsyncIterator[Gateway]:
    """Pinned to one core; ready once it has answered."""
    started, door = time.perf_counter(), Door(port, command.headers)
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            env=os.environ | command.environment,
            stdout=log,
            stderr=log,
            # All of its threads, hence before it has any.
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
    try:
        while not await answers(door):
            if process.returncode is not None or time.perf_counter() - started > START_DEADLINE_SECONDS:
                raise RuntimeError(f"{command.arguments[0]} did not start: {(directory / 'log').read_text()[-2000:]}")
            await asyncio.sleep(0.02)
        gateway = Gateway(process.pid, door, time.perf_counter() - started, 0.0)
        yield replace(gateway, idle_mib=gateway.memory_mib("VmRSS"))
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def answers(door: Door) -> bool:
    try:
        async with Connection(door) as connection:
            await connection.whole(door.request())
    except (OSError, AssertionError, asyncio.IncompleteReadError):
        return False
    return True


def milliseconds(values: Iterable[float], percentile: int) -> float:
    return statistics.quantiles(values, n=100)[percentile - 1] * 1000


class Figures(TypedDict):
    """What a run found, as it is written."""

    measured: dict[str, dict[str, float]]
    """By gateway and figure."""
    not_measurable: dict[str, str]
    """Peers that could not be had, and why."""


async def measure(options: argparse.Namespace) -> Figures:
    """All figures of each gateway by its name; medians over the rounds, in which the gateways take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[0]})
    engine, kubernetes = Engine(chunks=40, interval_seconds=0.05), ApiServer()
    await engine.start()
    kubernetes.put(version_object("plato-v1", engine=str(engine.port), promoted=1))
    gateways: dict[str, Gateway] = {}
    missing: dict[str, str] = {}
    rounds: dict[str, list[dict[str, float]]] = {}
    async with kubernetes.running(), AsyncExitStack() as stack:
        for name in options.gateways:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = free_port()
            access = directory / "kubeconfig"
            access.write_text(kubeconfig(kubernetes.url))
            try:
                command = (
                    ours(access, port, log_level=options.log_level)
                    if name == OURS
                    else PEERS[name](directory, engine.port, port)
                )
                gateways[name] = await stack.enter_async_context(running(command, directory, port, cpus[-1]))
            except (Refused, RuntimeError, OSError, subprocess.CalledProcessError) as error:
                if name == OURS:
                    raise
                missing[name] = str(error)
                continue
            await closed_loop(gateways[name].door, 16, 1.0)
        for _ in range(options.rounds):
            for name, gateway in tuple(gateways.items()):
                try:
                    rounds.setdefault(name, []).append(await one_round(gateway, engine, options.seconds))
                except (OSError, AssertionError, asyncio.IncompleteReadError) as error:
                    if name == OURS:
                        raise
                    missing[name] = f"it failed under load: {error}"
                    del gateways[name]
        peaks = {name: gateway.memory_mib("VmHWM") for name, gateway in gateways.items()}
    measured = {
        name: {figure: statistics.median(entry[figure] for entry in rounds[name]) for figure in rounds[name][0]}
        | {"idle MiB": gateway.idle_mib, "peak MiB": peaks[name], "cold start s": gateway.cold_start_seconds}
        for name, gateway in gateways.items()
    }
    return {"measured": measured, "not_measurable": missing}


async def one_round(gateway: Gateway, engine: Engine, seconds: float) -> dict[str, float]:
    direct_door = Door(engine.port)
    direct = await open_loop(direct_door, 100, seconds)
    through = await open_loop(gateway.door, 100, seconds)
    cpu, begin = gateway.cpu_seconds(), time.perf_counter()
    count = await closed_loop(gateway.door, 16, seconds)
    wall, used = time.perf_counter() - begin, gateway.cpu_seconds() - cpu
    direct_tokens = await streams(direct_door, STREAMS)
    cpu = gateway.cpu_seconds()
    tokens = await streams(gateway.door, STREAMS)
    stream_cpu = gateway.cpu_seconds() - cpu
    # They last as long as it takes until all have begun, so that then as many are open as before.
    lasting = engine.chunks * engine.interval_seconds
    direct_flow = (await streams(direct_door, 2 * STREAMS, 2 * lasting))[STREAMS:]
    flow = (await streams(gateway.door, 2 * STREAMS, 2 * lasting))[STREAMS:]
    return {
        "requests/s, one core": count / wall,
        "CPU s per 1000 requests": used / count * 1000,
        "added p50 ms at 100/s": milliseconds(through, 50) - milliseconds(direct, 50),
        "added p99 ms at 100/s": milliseconds(through, 99) - milliseconds(direct, 99),
        "first token beside 200 streams, added p50 ms": milliseconds(flow, 50) - milliseconds(direct_flow, 50),
        "first token of 200 streams at once, added p50 ms": milliseconds(tokens, 50) - milliseconds(direct_tokens, 50),
        "CPU s per 1000 chunks": stream_cpu / (STREAMS * engine.chunks) * 1000,
        "abort reaches the engine, ms": await abort_seconds(gateway.door, engine) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "gateways", nargs="*", default=[OURS, *PEERS], metavar="gateway", help=", ".join([OURS, *PEERS])
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each part of a round")
    parser.add_argument("--log-level", default="INFO", help="INFO logs each request")
    parser.add_argument("--output", type=Path, required=True, help="the figures as JSON")
    options = parser.parse_args()
    options.output.write_text(json.dumps(asyncio.run(measure(options)), indent=2) + "\n")


if __name__ == "__main__":
    main()
