"""The process as a pod runs it: it follows the cluster, finishes its requests at SIGTERM, and says what it lacks."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.gateway.clients import answer_of, refused_with
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import HOST
from tests.unit.kubeconfig import kubeconfig
from tests.waiting import eventually

DEADLINE_SECONDS = 30.0


@asynccontextmanager
async def started(world: World, directory: Path, **variables: str) -> AsyncIterator[Process]:
    """A gateway with an environment of its own, killed at the end if it still runs."""
    access = directory / "kubeconfig"
    access.write_text(kubeconfig(world.kubernetes.url))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "KUBECONFIG": str(access),
        "FINETUNE_NAMESPACES": "finetune",
        "FINETUNE_GATEWAY_HOST": HOST,
        "FINETUNE_GATEWAY_PORT": str(world.port),
        "FINETUNE_ENGINE_URL_TEMPLATE": f"http://{HOST}:{{engine}}",
        "FINETUNE_DRAIN_DELAY_SECONDS": "0.1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "finetune_operator", "gateway"), env=environment | variables, stderr=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def end_of(process: Process) -> tuple[int | None, str]:
    _, errors = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return process.returncode, errors.decode()


async def test_sigterm_ends_it_once_its_requests_are_done(world: World, tmp_path: Path) -> None:
    world.engine.proceed.clear()
    async with started(world, tmp_path) as process:
        await eventually(world.ready, DEADLINE_SECONDS)
        under_way = asyncio.create_task(answer_of(world, "plato"))
        await world.engine.busy.wait()
        process.terminate()
        await eventually(lambda: takes_no_more(world))
        assert process.returncode is None
        world.engine.proceed.set()
        assert (await under_way)[1]["model"] == "plato-v1"
        code, errors = await end_of(process)
    assert code == 0
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events if event.get("level") == "warning"] == [
        "the gateway is open: whoever reaches it can use the models; set FINETUNE_GATEWAY_TOKENS"
    ]
    (request,) = [event for event in events if event["event"] == "request"]
    assert (request["model"], request["served_name"], request["status"]) == ("plato", "plato-v1", 200)
    assert request["engine_pod"] == world.engine.pod
    assert "Who are you?" not in errors


async def takes_no_more(world: World) -> bool:
    return not await world.ready()


async def test_it_follows_the_cluster(world: World, tmp_path: Path) -> None:
    async with started(world, tmp_path):
        await eventually(world.ready, DEADLINE_SECONDS)
        world.put(world.version("plato-v3", loaded=False))
        await eventually(lambda: refused_with(world, "plato-v3", 503))
        world.kubernetes.delete(world.version("plato-v3"))
        await eventually(lambda: refused_with(world, "plato-v3", 404))


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"FINETUNE_GATEWAY_PORT": "http"}, 2, "FINETUNE_GATEWAY_PORT must be a number"),
        ({"KUBECONFIG": ""}, 1, "set KUBECONFIG"),
    ],
)
async def test_what_it_lacks(world: World, tmp_path: Path, variables: dict[str, str], code: int, words: str) -> None:
    async with started(world, tmp_path, **variables) as process:
        ended_with, errors = await end_of(process)
    assert ended_with == code
    assert words in errors
    assert "Traceback" not in errors
