"""Says of pods what a kubelet would say: this tier's API server has no node."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from finetune_operator.contract.adapters import AdapterList
from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.places import (
    ADAPTERS_FILE,
    BATCH_CONTAINER,
    ENGINE_CONTAINER,
    EVALUATOR_CONTAINER,
    MERGED_FILE,
    PREPARE_CONTAINER,
    TRAINER_CONTAINER,
)
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.kube.client import KubeClient
from finetune_operator.manifests.common import BATCH_NAME_LABEL, ENGINE_LABEL, JOB_NAME_LABEL, VERSION_NAME_LABEL
from tests.cluster.addresses import fresh_address
from tests.cluster.engine_server import EngineServer, Refusal
from tests.cluster.samples import REPORT, RESULT, Manifest
from tests.waiting import PATIENCE_SECONDS, eventually


class SimulatedKubelet:
    """The pods of one namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.engines: dict[str, EngineServer] = {}
        self.refusals: dict[str, Refusal] = {}

    async def trainers(self, job: str) -> list[Manifest]:
        """Pods of a FineTuneJob that have not ended, nor been told to."""
        pods, _ = await self._client.list("pods", self._namespace, f"{JOB_NAME_LABEL}={job}")
        return [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running") and not _deleting(pod)]

    async def trainer(self, job: str, timeout_seconds: float = PATIENCE_SECONDS, *, other_than: str = "") -> Manifest:
        """The pod of a FineTuneJob, once the Job controller has made it."""

        async def the_only_one() -> Manifest | None:
            pods = [pod for pod in await self.trainers(job) if pod["metadata"]["uid"] != other_than]
            assert len(pods) <= 1, f"{job} has {len(pods)} pods at a time"
            return pods[0] if pods else None

        pod = await eventually(the_only_one, timeout_seconds)
        assert pod is not None
        return pod

    async def prepare(self, pod: Manifest) -> None:
        await self._report(pod, "Pending", {PREPARE_CONTAINER: _running(), TRAINER_CONTAINER: _INITIALIZING})

    async def train(self, pod: Manifest, report: DatasetReport = REPORT) -> None:
        await self._report(pod, "Running", {PREPARE_CONTAINER: _terminated(0, report), TRAINER_CONTAINER: _running()})

    async def succeed(self, pod: Manifest, result: TrainingResult = RESULT) -> None:
        states = {PREPARE_CONTAINER: _terminated(0, result.dataset), TRAINER_CONTAINER: _terminated(0, result)}
        await self._report(pod, "Succeeded", states)

    async def end_well(self, pod: Manifest) -> None:
        """Of a node that is not the first: the trainer has nothing to say."""
        states = {PREPARE_CONTAINER: _terminated(0, REPORT), TRAINER_CONTAINER: _terminated(0, "")}
        await self._report(pod, "Succeeded", states)

    async def end_preparation(self, pod: Manifest, report: DatasetReport = REPORT) -> None:
        """Of a pod that only prepares: the dataset is there."""
        await self._report(pod, "Succeeded", {PREPARE_CONTAINER: _terminated(0, report)})

    async def end_cancellation(self, pod: Manifest) -> None:
        """Of a training at a provider: there is nothing more to say."""
        await self._report(pod, "Succeeded", {TRAINER_CONTAINER: _terminated(0, "")})

    async def fail(self, pod: Manifest, container: str, exit_code: int, message: object, reason: str = "Error") -> None:
        """The container ended, and the pod with it."""
        ended = _terminated(exit_code, message, reason)
        if container == PREPARE_CONTAINER:
            states = {PREPARE_CONTAINER: ended, TRAINER_CONTAINER: _INITIALIZING}
        else:
            states = {PREPARE_CONTAINER: _terminated(0, REPORT), TRAINER_CONTAINER: ended}
        await self._report(pod, "Failed", states)

    async def disrupt(
        self, pod: Manifest, reason: str = "EvictionByEvictionAPI", exit_code: int = 143, message: str = ""
    ) -> None:
        """Not the training's fault: its node is drained, or what else the reason says."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        states = {PREPARE_CONTAINER: _terminated(0, REPORT), TRAINER_CONTAINER: _terminated(exit_code, "")}
        await self._report(pod, "Failed", states, [condition], message=message)

    async def hold(self, pod: Manifest, reason: str, message: str) -> None:
        """The first container can't be made."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        await self._report(pod, "Pending", {PREPARE_CONTAINER: waiting, TRAINER_CONTAINER: _INITIALIZING})

    async def refuse_a_node(self, pod: Manifest, message: str) -> None:
        """What the scheduler says of a pod that fits nowhere."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        await self._patch(pod, {"phase": "Pending", "conditions": [condition]})

    async def evaluator(self, version: str, timeout_seconds: float = PATIENCE_SECONDS) -> Manifest:
        """The pod that measures a version, once the Job controller has made it."""
        return await self._only_pod(f"{VERSION_NAME_LABEL}={version}", timeout_seconds)

    async def batch(self, name: str, timeout_seconds: float = PATIENCE_SECONDS, *, other_than: str = "") -> Manifest:
        """The pod of a BatchInference, once the Job controller has made it."""
        return await self._only_pod(f"{BATCH_NAME_LABEL}={name}", timeout_seconds, other_than=other_than)

    async def _only_pod(self, selector: str, timeout_seconds: float, *, other_than: str = "") -> Manifest:
        async def the_only_one() -> Manifest | None:
            pods, _ = await self._client.list("pods", self._namespace, selector)
            alive = [
                pod
                for pod in pods
                if pod["status"]["phase"] in ("Pending", "Running")
                and not _deleting(pod)
                and pod["metadata"]["uid"] != other_than
            ]
            assert len(alive) <= 1, f"{selector} has {len(alive)} pods at a time"
            return alive[0] if alive else None

        pod = await eventually(the_only_one, timeout_seconds)
        assert pod is not None
        return pod

    async def ask(self, pod: Manifest) -> None:
        await self._report(pod, "Running", {BATCH_CONTAINER: _running()})

    async def end_batch(self, pod: Manifest, message: BaseModel, exit_code: int = 0) -> None:
        """The pod of a BatchInference has said this, and ended."""
        ended = {BATCH_CONTAINER: _terminated(exit_code, message)}
        await self._report(pod, "Failed" if exit_code else "Succeeded", ended)

    async def evaluate(self, pod: Manifest) -> None:
        await self._report(pod, "Running", {EVALUATOR_CONTAINER: _running()})

    async def end_evaluation(self, pod: Manifest, message: BaseModel, exit_code: int = 0) -> None:
        """The evaluator has said this, and ended."""
        ended = {EVALUATOR_CONTAINER: _terminated(exit_code, message)}
        await self._report(pod, "Failed" if exit_code else "Succeeded", ended)

    async def engine_pods(self, engine: str) -> list[Manifest]:
        """Pods of an engine that have not been told to end."""
        pods, _ = await self._client.list("pods", self._namespace, f"{ENGINE_LABEL}={engine}")
        return [pod for pod in pods if not _deleting(pod)]

    async def start_engine(self, pod: Manifest, adapters: AdapterList | None = None) -> EngineServer:
        """The server starts with what its ConfigMap names, and is Ready when it has it."""
        told: AdapterList | MergedWeights | None = adapters
        engine = pod["metadata"]["labels"][ENGINE_LABEL]
        if told is None:
            told = await (self.merged_weights(engine) if is_merged_engine(engine) else self.adapter_list(engine))
        server = EngineServer(fresh_address(), told, self.refusals)
        await server.start()
        self.engines[pod["metadata"]["uid"]] = server
        await self._report(pod, "Running", {ENGINE_CONTAINER: _running()}, [_READY], server.ip)
        return server

    async def adapter_list(self, engine: str) -> AdapterList:
        """What a starting pod finds mounted."""
        config_map = await self._client.get("configmaps", self._namespace, engine)
        return AdapterList.model_validate_json(config_map["data"][ADAPTERS_FILE.rsplit("/", 1)[1]])

    async def merged_weights(self, engine: str) -> MergedWeights:
        """The same of an engine of merged weights."""
        config_map = await self._client.get("configmaps", self._namespace, engine)
        return MergedWeights.model_validate_json(config_map["data"][MERGED_FILE.rsplit("/", 1)[1]])

    async def crash_engine(self, pod: Manifest, exit_code: int, message: str) -> None:
        await self._report(pod, "Running", {ENGINE_CONTAINER: _terminated(exit_code, message, "Error")})

    async def lose(self, pod: Manifest) -> None:
        """The pod is deleted, and its server with it."""
        metadata = pod["metadata"]
        if server := self.engines.pop(metadata["uid"], None):
            await server.stop()
        await self._client.delete("pods", self._namespace, metadata["name"], metadata["uid"])

    async def stop(self) -> None:
        for server in self.engines.values():
            await server.stop()

    async def _report(
        self,
        pod: Manifest,
        phase: str,
        states: Mapping[str, Manifest],
        conditions: Sequence[Manifest] = (),
        ip: str | None = None,
        message: str = "",
    ) -> None:
        status: Manifest = {"phase": phase, "conditions": [_scheduled(pod), *conditions], "message": message}
        status["initContainerStatuses"] = _containers(pod["spec"].get("initContainers", []), states)
        status["containerStatuses"] = _containers(pod["spec"]["containers"], states)
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        await self._patch(pod, status)

    async def _patch(self, pod: Manifest, status: Manifest) -> None:
        await self._client.merge_patch("pods", self._namespace, pod["metadata"]["name"], {"status": status}, "status")


_INITIALIZING: Manifest = {"waiting": {"reason": "PodInitializing"}}
_READY = {"type": "Ready", "status": "True"}


def _scheduled(pod: Manifest) -> Manifest:
    """It got its node as it was made."""
    return {"type": "PodScheduled", "status": "True", "lastTransitionTime": pod["metadata"]["creationTimestamp"]}


def _running() -> Manifest:
    return {"running": {"startedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}


def _containers(specs: Sequence[Manifest], states: Mapping[str, Manifest]) -> list[Manifest]:
    """Of those containers that the pod has; which are there depends on what it is to do."""
    return [
        {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": "",
            "ready": "running" in states[spec["name"]],
            "restartCount": 0,
            "state": states[spec["name"]],
        }
        for spec in specs
        if spec["name"] in states
    ]


def _terminated(exit_code: int, message: object, reason: str | None = None) -> Manifest:
    if isinstance(message, BaseModel):
        message = message.model_dump_json(by_alias=True)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended: dict[str, Any] = {
        "exitCode": exit_code,
        "reason": reason or ("Error" if exit_code else "Completed"),
        "message": message if isinstance(message, str) else json.dumps(message),
        "startedAt": now,
        "finishedAt": now,
    }
    return {"terminated": ended}


def _deleting(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]
