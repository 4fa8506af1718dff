"""The api beside a real API server, with the rights of the chart's ServiceAccount; callers bring their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import uvicorn

from finetune_operator.kube.client import KubeClient
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.migrations import migrate
from finetune_operator.web.app import create_app
from finetune_operator.web.arms import GatewayArms
from finetune_operator.web.services import Services
from finetune_operator.web.settings import Settings
from tests.cluster.control_plane import KEY_ACCOUNT, RELEASE_NAME, RELEASE_NAMESPACE
from tests.cluster.world import World
from tests.unit.gateway.servers import HOST, free_port
from tests.waiting import eventually

RBAC = "rbac.authorization.k8s.io"
API_TOKEN = "token-of-the-api"  # noqa: S105 - of this test
ENVIRONMENT = {"FINETUNE_API_TOKEN": API_TOKEN, "FINETUNE_INTERNAL_TOKEN": "internal"}


@dataclass(frozen=True)
class RestApi:
    """Asks with one token after another."""

    session: aiohttp.ClientSession
    url: str
    services: Services

    async def ask(self, method: str, path: str, token: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and parsed body; None where there is none."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {token}"} | named
        async with self.session.request(method, self.url + path, json=body, headers=sent) as response:
            text = await response.text()
            return response.status, await response.json(content_type=None) if text else None

    async def is_up(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False


@asynccontextmanager
async def rest_api(world: World, directory: Path) -> AsyncIterator[RestApi]:
    """An api of its own for the world's namespace, on a port."""
    engine = async_engine(parse_url(f"sqlite:///{directory}/api.db"))
    await migrate(engine)
    told = {
        "FINETUNE_NAMESPACES": world.namespace,
        "FINETUNE_API_KEY_ACCOUNTS": f"{world.namespace}/{KEY_ACCOUNT}",
        "FINETUNE_DATASETS_DIRECTORY": str(directory / "datasets"),
        "FINETUNE_DATASETS_MIN_FREE_BYTES": "0",
    }
    settings = Settings.from_environment(ENVIRONMENT | told)
    port = free_port()
    async with aiohttp.ClientSession() as session:
        own = await token_of_account(world, f"{RELEASE_NAME}-api", RELEASE_NAMESPACE)
        server = world.plane.server
        authority = kopf.ConnectionInfo(server=server, ca_data=world.plane.authority, token=own)
        kube = KubeClient(session, authority, trust=world.plane.server_trust)
        services = Services(settings, engine, kube, GatewayArms(session, settings))
        config = uvicorn.Config(create_app(services), host=HOST, port=port, log_config=None, access_log=False)
        process = uvicorn.Server(config)
        running = asyncio.create_task(process.serve())
        try:
            api = RestApi(session, f"http://{HOST}:{port}", services)
            await eventually(api.is_up)
            yield api
        finally:
            process.should_exit = True
            await running
    await engine.dispose()


async def token_of_account(world: World, account: str, namespace: str) -> str:
    """As `kubectl create token` prints it."""
    return (await world.plane.kubectl("create", "token", account, "-n", namespace)).strip()


async def token_with(world: World, account: str, cluster_role: str | None = None) -> str:
    """A new ServiceAccount's token; the ClusterRole is bound to it in the world's namespace."""
    metadata = {"name": account, "namespace": world.namespace}
    bodies: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
    if cluster_role:
        binding = {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": world.namespace}],
        }
        bodies.append(binding)
    await world.plane.apply(*bodies)
    return await token_of_account(world, account, world.namespace)
