"""The api on a real SQLite file and a played API server; callers are told apart by their tokens."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import kopf
import pytest
from fastapi import FastAPI

from finetune_operator.kube.client import KubeClient
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services
from finetune_operator.web.settings import Settings
from tests.unit.web.conftest import ENVIRONMENT, Clock, FakeArms, FakeGateway, ab_test, model_version
from tests.unit.web.rest.played_api_server import EDIT, OWN_TOKEN, PlayedApiServer, User

ROBOT = "finetune/robot"
ANONYMOUS: dict[str, str] = {}
API_TOKEN = {"Authorization": "Bearer public-token"}
READER = {"Authorization": "Bearer reader"}
EDITOR = {"Authorization": "Bearer editor"}
NOBODY = {"Authorization": "Bearer nobody"}
STRANGER = {"Authorization": "Bearer stranger"}


@dataclass
class Rest:
    """The api with its cluster."""

    client: httpx2.AsyncClient
    cluster: PlayedApiServer
    services: Services
    app: FastAPI

    async def ask(
        self, method: str, path: str, body: Any = None, caller: dict[str, str] = EDITOR, **headers: str
    ) -> httpx2.Response:
        sent = {"json": body} if body is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(method, path, headers=caller | named, **sent)

    async def get(self, path: str, caller: dict[str, str] = EDITOR, **params: Any) -> httpx2.Response:
        return await self.client.get(path, headers=caller, params=params or None)

    async def post(
        self, path: str, body: Any = None, caller: dict[str, str] = EDITOR, **headers: str
    ) -> httpx2.Response:
        return await self.ask("POST", path, body, caller, **headers)


@pytest.fixture
async def cluster() -> AsyncIterator[PlayedApiServer]:
    server = PlayedApiServer()
    server.put("abtests", ab_test())
    server.put("modelversions", model_version())
    server.accounts[ROBOT] = User("system:serviceaccount:finetune:robot", EDIT)
    for token in (OWN_TOKEN, "editor"):
        server.users[token].accounts.add(ROBOT)
    async with server.running():
        yield server


@pytest.fixture
def environment() -> dict[str, str]:
    """A test may override what the api is told."""
    return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune", "FINETUNE_API_KEY_ACCOUNTS": ROBOT}


@pytest.fixture
async def rest(tmp_path: Path, cluster: PlayedApiServer, environment: dict[str, str]) -> AsyncIterator[Rest]:
    engine = async_engine(parse_url(f"sqlite:///{tmp_path}/api.db"))
    await migrate(engine)
    async with aiohttp.ClientSession() as session:
        kube = KubeClient(session, kopf.ConnectionInfo(server=cluster.url, token=OWN_TOKEN))
        services = Services(
            Settings.from_environment(environment),
            engine,
            kube,
            FakeArms(),
            gateway=FakeGateway(),
            now=Clock(),
            coin=lambda: True,
            suffix=lambda: "0badcafe",
        )
        app = create_app(services)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
            yield Rest(client, cluster, services, app)
    await engine.dispose()
