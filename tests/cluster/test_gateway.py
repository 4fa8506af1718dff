"""The gateway's changes on a real API server: the caller's token decides, and nothing that the gateway has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from finetune_operator.gateway.app import serve
from finetune_operator.gateway.settings import GatewaySettings
from tests.cluster.control_plane import RELEASE_NAME, RELEASE_NAMESPACE
from tests.cluster.samples import Manifest, model_version
from tests.cluster.world import World
from tests.unit.gateway.servers import HOST, free_port
from tests.waiting import eventually

RBAC = "rbac.authorization.k8s.io"


class Gateway:
    """A gateway that reads with the administrator's certificate, so that it could do anything if that went along."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, path: str, token: str, **members: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.post(f"{self._url}/v1/models/{path}", json=members, headers=headers) as response:
            return response.status, await response.json()

    async def knows(self, name: str) -> bool:
        """Whether its own watch has seen the version."""
        async with self._session.get(f"{self._url}/v1/models/{name}") as response:
            return "does not exist" not in await response.text()

    async def is_ready(self) -> bool:
        try:
            async with self._session.get(f"{self._url}/readyz") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False


@asynccontextmanager
async def gateway_of(world: World) -> AsyncIterator[Gateway]:
    port, stop = free_port(), asyncio.Event()
    settings = GatewaySettings(namespaces=(world.namespace,), host=HOST, port=port, drain_delay_seconds=0.0)
    process = asyncio.create_task(serve(settings, world.client, stop))
    try:
        async with aiohttp.ClientSession() as session:
            gateway = Gateway(session, f"http://{HOST}:{port}")
            await eventually(gateway.is_ready)
            yield gateway
    finally:
        stop.set()
        await process


async def token_of(world: World, account: str, *verbs: str) -> str:
    """A new ServiceAccount's token that may do this with ModelVersions, or nothing."""
    metadata = {"name": account, "namespace": world.namespace}
    rights: list[Manifest] = []
    if verbs:
        rule = {"apiGroups": ["finetune.dev"], "resources": ["modelversions"], "verbs": list(verbs)}
        reference = {"apiGroup": RBAC, "kind": "Role", "name": account}
        subject = {"kind": "ServiceAccount", "name": account, "namespace": world.namespace}
        rights = [
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": reference,
                "subjects": [subject],
            },
        ]
    await world.plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, *rights)
    return (await world.plane.kubectl("create", "token", account, "-n", world.namespace)).strip()


async def test_who_may_patch_switches_to_and_fro(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")
    token = await token_of(world, "editor", "patch")
    async with gateway_of(world) as gateway:
        for version, other in (("plato-v1", "plato-v2"), ("plato-v2", "plato-v1"), ("plato-v1", "plato-v2")):
            status, body = await gateway.ask("switch", token, model="plato", version=version)
            assert (status, body["id"], body["finetune"]["requestedState"]) == (200, version, "Deployed"), body
            await world.reaches("modelversions", version, state="Deployed", observedState="Deployed")
            await world.reaches("modelversions", other, state="Ready")
    assert body["finetune"]["message"] == "plato-v2 is no longer pinned"
    assert "state" not in (await world.get("modelversions", "plato-v2"))["spec"]


async def test_who_may_not_patch_changes_nothing(resting_world: World) -> None:
    world = resting_world
    made = await world.create(model_version("plato-v1"))
    reader = await token_of(world, "reader", "get", "list", "watch")
    own = ("create", "token", f"{RELEASE_NAME}-gateway", "-n", RELEASE_NAMESPACE)
    gateways = (await world.plane.kubectl(*own)).strip()
    async with gateway_of(world) as gateway:
        for token in (reader, gateways):
            for path, members in (("switch", {"model": "plato", "version": 1}), ("load", {"model": "plato-v1"})):
                status, body = await gateway.ask(path, token, **members)
                assert (status, body["error"]["code"]) == (403, "permission_denied"), body
                assert "cannot patch resource" in body["error"]["message"]
                assert f"granted in {world.namespace}" in body["error"]["message"]
        status, body = await gateway.ask("switch", "no.token.atall", model="plato", version=1)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key"), body
    assert (await world.get("modelversions", "plato-v1"))["metadata"]["generation"] == made["metadata"]["generation"]


async def test_a_registered_version_is_loaded_as_asked(world: World) -> None:
    await world.create(model_version("plato-v1", serving=None))
    token = await token_of(world, "editor", "patch")
    async with gateway_of(world) as gateway:
        await eventually(lambda: gateway.knows("plato-v1"))
        status, body = await gateway.ask("load", token, model="plato-v1", max_model_len=1)
        assert (status, body["error"]["code"]) == (422, "invalid_change"), body
        assert "maxModelLen" in body["error"]["message"]
        wanted = {"gpu_memory_utilization": 0.5, "max_model_len": 512, "notes": "for the trial"}
        status, body = await gateway.ask("load", token, model="plato-v1", **wanted)
        assert (status, body["finetune"]["loaded"]) == (202, False), body
        await world.start_engine("plato-v1")
        await world.says("modelversions", "plato-v1", "Loaded", status="True")
        status, body = await gateway.ask("load", token, model="plato-v1")
        assert (status, body["finetune"]["loaded"]) == (200, True), body
    spec = (await world.get("modelversions", "plato-v1"))["spec"]
    served = spec["serving"]
    assert (served["gpuMemoryUtilization"], served["maxModelLen"], served["replicas"]) == ("0.5", 512, 1)
    assert spec["notes"] == "for the trial"
