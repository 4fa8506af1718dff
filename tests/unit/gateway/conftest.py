"""A whole gateway between a real engine and a real API server, all in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import kopf
import openai
import pytest

from finetune_operator.gateway.app import serve
from finetune_operator.gateway.settings import GatewaySettings
from finetune_operator.kube.client import KubeClient
from tests.unit.gateway.servers import HOST, ApiServer, Engine, SampleIntake, free_port
from tests.unit.resource_builders import version_object
from tests.waiting import eventually


class World:
    """What a test can turn: the engine, the API server and the gateway in front of them."""

    def __init__(self, engine: Engine, kubernetes: ApiServer, session: aiohttp.ClientSession) -> None:
        self.engine = engine
        self.kubernetes = kubernetes
        self.session = session
        self.intake = SampleIntake()
        self.port = free_port()
        self.stop = asyncio.Event()
        self.process: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def version(self, name: str, **options: Any) -> dict[str, Any]:
        """A version in the engine; the engine's port stands for the name of its Service."""
        return version_object(name, **({"engine": str(self.engine.port)} | options))

    def put(self, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            self.kubernetes.put(body)

    def client(self, **options: Any) -> openai.AsyncOpenAI:
        settings = {"base_url": f"{self.url}/v1", "api_key": "anything", "max_retries": 0}
        return openai.AsyncOpenAI(**(settings | options))

    def post(self, path: str = "/v1/chat/completions", **options: Any) -> Any:
        return self.session.post(self.url + path, **options)

    async def models(self) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/v1/models") as response:
            return {model["id"]: model for model in (await response.json())["data"]}

    async def ready(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def metric(self, name: str) -> float:
        """Sum over all labels."""
        async with self.session.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    @asynccontextmanager
    async def gateway(self, *, wait: bool = True, **options: Any) -> AsyncIterator["World"]:
        """The gateway from its start to a stop that drains it."""
        defaults: dict[str, Any] = {
            "namespaces": ("finetune",),
            "host": HOST,
            "port": self.port,
            "engine_url_template": f"http://{HOST}:{{engine}}",
            "engine_api_key": "engine-key",
            "retry_seconds": 0.3,
            "drain_delay_seconds": 0.0,
            "drain_timeout_seconds": 5.0,
        }
        settings = GatewaySettings(**(defaults | options))
        kube = KubeClient(self.session, kopf.ConnectionInfo(server=self.kubernetes.url))
        self.process = asyncio.create_task(serve(settings, kube, self.stop))
        try:
            if wait:
                await eventually(self.ready)
            yield self
        finally:
            self.stop.set()
            await self.process


async def has_metric(world: World, name: str, value: float) -> bool:
    return await world.metric(name) == value


@asynccontextmanager
async def furnished_world() -> AsyncIterator[World]:
    """Version 1 is active, version 2 is loaded."""
    engine, kubernetes = Engine(), ApiServer()
    async with engine.running(), kubernetes.running(), aiohttp.ClientSession() as session:
        world = World(engine, kubernetes, session)
        world.put(world.version("plato-v1", promoted=1), world.version("plato-v2"))
        yield world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with furnished_world() as furnished:
        yield furnished


Start = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[World]:
    """The same with a running gateway of default settings."""
    async with world.gateway():
        yield world
