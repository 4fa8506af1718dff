"""One namespace with everything around it: the operator, the simulated kubelet, the api and the audit log."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import NotFound
from finetune_operator.kube.paths import PLURALS
from finetune_operator.manifests.common import PREPARATION_LABEL
from tests.cluster.api_server import ApiServer
from tests.cluster.audit import AuditLog
from tests.cluster.control_plane import ControlPlane
from tests.cluster.engine_server import EngineServer
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.samples import Manifest, fine_tune_job, model_version
from tests.cluster.simulated_kubelet import SimulatedKubelet
from tests.waiting import PATIENCE_SECONDS, eventually

QUIET_SECONDS = 2.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class World:
    """What a test sees and moves."""

    plane: ControlPlane
    namespace: str
    operator: OperatorProcess
    kubelet: SimulatedKubelet
    api: ApiServer

    def another_operator(self) -> OperatorProcess:
        """A second one for the same namespace."""
        log = self.plane.directory / f"{self.namespace}-another.log"
        return OperatorProcess(self.namespace, self.plane.operator_kubeconfig(), self.api.url, log)

    @property
    def audit(self) -> AuditLog:
        return self.plane.audit

    @property
    def client(self) -> KubeClient:
        return self.plane.client

    async def create(self, body: Manifest) -> Manifest:
        return await self.client.create(PLURALS[body["kind"]], self.namespace, body)

    async def get(self, plural: str, name: str) -> Manifest:
        return await self.client.get(plural, self.namespace, name)

    async def names(self, plural: str, selector: str = "") -> list[str]:
        items, _ = await self.client.list(plural, self.namespace, selector)
        return sorted(item["metadata"]["name"] for item in items)

    async def edit(self, plural: str, name: str, **spec: Any) -> Manifest:
        """Change the spec, as a user does."""
        return await self.client.merge_patch(plural, self.namespace, name, {"spec": spec})

    async def delete(self, plural: str, name: str) -> None:
        body = await self.get(plural, name)
        await self.client.delete(plural, self.namespace, name, body["metadata"]["uid"])

    async def gone(self, plural: str, name: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
        async def is_gone() -> bool:
            try:
                await self.get(plural, name)
            except NotFound:
                return True
            return False

        await eventually(is_gone, timeout_seconds)

    async def reaches(
        self, plural: str, name: str, timeout_seconds: float = PATIENCE_SECONDS, **status: Any
    ) -> Manifest:
        """The object, once its status has these fields."""

        async def has_reached() -> Manifest:
            body = await self.get(plural, name)
            found = body.get("status", {})
            assert contains(found, status), f"{plural} {name} is {json.dumps(found, indent=1)}, not yet {status}"
            return body

        return await eventually(has_reached, timeout_seconds)

    async def says(self, plural: str, name: str, condition_type: str, **fields: str) -> Manifest:
        """The condition, once it is so; `message` needs only to be contained."""
        message = fields.pop("message", "")

        async def is_so() -> Manifest:
            body = await self.get(plural, name)
            found = condition(body, condition_type)
            assert contains(found, fields), f"{condition_type} of {name} is {found}, not yet {fields}"
            assert message in found["message"]
            return found

        return await eventually(is_so)

    async def told(self, reason: str, about: str | None = None) -> list[Manifest]:
        """The events of this reason (about the object with this uid), once there is one: they follow the status."""

        async def events() -> list[Manifest]:
            found, _ = await self.client.list("events", self.namespace)
            return [
                event
                for event in found
                if event["reason"] == reason and about in (None, event["involvedObject"]["uid"])
            ]

        return await eventually(events)

    async def settled(self) -> None:
        """Once the operator has asked for nothing for a while, alive all the time: a new one lists everything first."""

        async def is_quiet() -> bool:
            mark = self.audit.end()
            if not await self.operator.is_live():
                return False
            await asyncio.sleep(QUIET_SECONDS)
            return not self.audit.requests(self.namespace, mark)

        await eventually(is_quiet)

    async def train(self, name: str = "plato-1", **spec: Any) -> tuple[Manifest, Manifest]:
        """A new FineTuneJob with a running trainer, and the trainer's pod."""
        await self.create(fine_tune_job(name, **spec))
        pod = await self.kubelet.trainer(name)
        if PREPARATION_LABEL in pod["metadata"]["labels"]:
            await self.kubelet.end_preparation(pod)
            pod = await self.kubelet.trainer(name, other_than=pod["metadata"]["uid"])
        await self.kubelet.train(pod)
        return await self.reaches("finetunejobs", name, phase="Training"), pod

    async def out_of_time(self, training: Manifest, seconds: int) -> None:
        """As if a FineTuneJob that trains had only had so many seconds, however long it took to begin."""
        name, given = training["status"]["jobName"], training["spec"]["activeDeadlineSeconds"]
        assert (await self.get("jobs", name))["spec"]["activeDeadlineSeconds"] == given
        body = {"spec": {"activeDeadlineSeconds": seconds}}
        await self.client.merge_patch("jobs", self.namespace, name, body)

    async def engine_of(self, version: str) -> str:
        """Name of the engine that a version is meant for."""

        async def engine() -> str:
            status = (await self.get("modelversions", version)).get("status", {})
            await self.get("deployments", status.get("engine", "none-yet"))
            return str(status["engine"])

        return await eventually(engine)

    async def start_engine(self, version: str) -> EngineServer:
        """Start the single pod of a version's engine."""
        engine = await self.engine_of(version)
        pods = await eventually(lambda: self.kubelet.engine_pods(engine))
        assert len(pods) == 1
        return await self.kubelet.start_engine(pods[0])

    async def serve(self, *names: str, **spec: Any) -> EngineServer:
        """New versions, loaded in the one engine that they share."""
        for name in names:
            await self.create(model_version(name, **spec))
        server = await self.start_engine(names[0])
        for name in names:
            await self.says("modelversions", name, "Loaded", status="True")
        return server


@asynccontextmanager
async def world_in(plane: ControlPlane, namespace: str, api_server: str | None = None) -> AsyncIterator[World]:
    """A namespace with Pod Security `restricted` and the chart's rights; the operator is not started.

    The operator reaches the API server through the proxy `api_server`, if there is one.
    """
    metadata = {"name": namespace, "labels": RESTRICTED}
    await plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *plane.rights_in(namespace))
    api = ApiServer()
    await api.start()
    kubelet = SimulatedKubelet(plane.client, namespace)
    log = plane.directory / f"{namespace}.log"
    operator = OperatorProcess(namespace, plane.operator_kubeconfig(api_server), api.url, log)
    world = World(plane, namespace, operator, kubelet, api)
    try:
        yield world
    finally:
        print(operator.log_tail())
        await operator.kill()
        await kubelet.stop()
        await api.stop()


def contains(found: object, wanted: Mapping[str, Any]) -> bool:
    """Whether a document has these fields; what else it has does not matter."""
    if not isinstance(found, Mapping):
        return False
    return all(
        contains(found.get(key), value) if isinstance(value, Mapping) else found.get(key) == value
        for key, value in wanted.items()
    )


def condition(body: Manifest, type_: str) -> Manifest:
    """A condition of an object; empty where it has none of this type."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == type_), {})
