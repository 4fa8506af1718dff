"""The facts that the product needs of Jobs, Pods and Deployments, read from their JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import SIGKILL_EXIT_CODE, Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.contract.training import TrainingResult

OOM_KILLED = "OOMKilled"
IMAGE_PROBLEMS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_PROBLEMS = frozenset({"CreateContainerConfigError", "CreateContainerError"})

_OUTCOME: TypeAdapter[TrainingResult | Failure] = TypeAdapter(TrainingResult | Failure)


@dataclass(frozen=True)
class ContainerFacts:
    """State of one container, the last termination included."""

    running: bool = False
    started_at: datetime | None = None
    waiting_reason: str | None = None
    waiting_message: str = ""
    exit_code: int | None = None
    terminated_reason: str | None = None
    message: str = ""


@dataclass(frozen=True)
class PodFacts:
    """State of one pod."""

    name: str
    uid: str
    phase: str
    ip: str | None
    ready: bool
    deleting: bool
    disrupted: bool
    created: str
    unschedulable: str | None = None
    containers: Mapping[str, ContainerFacts] = field(default_factory=dict)

    def container(self, name: str) -> ContainerFacts:
        return self.containers.get(name, ContainerFacts())


@dataclass(frozen=True)
class JobFacts:
    """State of one batch/v1 Job."""

    name: str
    uid: str
    owner_uids: frozenset[str]
    suspended: bool
    complete: bool
    failed_reason: str | None
    failed_message: str
    pods_failed: int


@dataclass(frozen=True)
class DeploymentFacts:
    """State of one apps/v1 Deployment."""

    name: str
    uid: str
    revision: str | None
    wanted_replicas: int
    ready_replicas: int
    progress_failure: str | None


def pod_facts(body: Mapping[str, Any]) -> PodFacts:
    """Read a pod."""
    metadata, status = body["metadata"], body.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        phase=status.get("phase", "Pending"),
        ip=status.get("podIP"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        disrupted=conditions.get("DisruptionTarget", {}).get("status") == "True",
        created=metadata.get("creationTimestamp", ""),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
        containers={entry["name"]: _container_facts(entry) for entry in statuses},
    )


def _container_facts(entry: Mapping[str, Any]) -> ContainerFacts:
    state = entry.get("state", {})
    waiting = state.get("waiting", {})
    terminated = state.get("terminated") or entry.get("lastState", {}).get("terminated") or {}
    started_at = (state.get("running") or terminated).get("startedAt")
    return ContainerFacts(
        running="running" in state,
        started_at=datetime.fromisoformat(started_at) if started_at else None,
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        exit_code=terminated.get("exitCode"),
        terminated_reason=terminated.get("reason"),
        message=terminated.get("message", ""),
    )


def job_facts(body: Mapping[str, Any]) -> JobFacts:
    """Read a Job."""
    metadata, status = body["metadata"], body.get("status", {})
    true = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    failed = true.get("Failed") or true.get("FailureTarget") or {}
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uids=frozenset(owner["uid"] for owner in metadata.get("ownerReferences", [])),
        suspended=body.get("spec", {}).get("suspend", False),
        complete="Complete" in true or "SuccessCriteriaMet" in true,
        failed_reason=failed.get("reason"),
        failed_message=failed.get("message", ""),
        pods_failed=status.get("failed", 0),
    )


def deployment_facts(body: Mapping[str, Any], revision_annotation: str) -> DeploymentFacts:
    """Read a Deployment."""
    metadata, status = body["metadata"], body.get("status", {})
    progressing: Mapping[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Progressing"), {})
    return DeploymentFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        revision=metadata.get("annotations", {}).get(revision_annotation),
        wanted_replicas=body.get("spec", {}).get("replicas", 1),
        ready_replicas=status.get("readyReplicas", 0),
        progress_failure=progressing.get("message") if progressing.get("status") == "False" else None,
    )


def training_outcome(pods: Iterable[PodFacts]) -> TrainingResult | Failure | None:
    """What the newest pods said in their termination messages: a result, or why none is possible.

    That a pod was killed says nothing where its node was drained, or where it was preempted.
    """
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        for name in (TRAINER_CONTAINER, PREPARE_CONTAINER):
            container = pod.container(name)
            killed = container.terminated_reason == OOM_KILLED or container.exit_code == SIGKILL_EXIT_CODE
            if killed and not pod.disrupted:
                return out_of_memory(name)
            try:
                return _OUTCOME.validate_json(container.message)
            except ValidationError:
                continue
    return None


def out_of_memory(container: str) -> Failure:
    """The kernel killed the container; the same settings would end the same way."""
    return Failure(
        reason=FailureReason.OUT_OF_MEMORY,
        message=f"container {container} was killed (exit code {SIGKILL_EXIT_CODE}): its memory limit is too low",
        remedy="raise spec.resources.limits.memory, or lower training.batchSize or training.maxSeqLength",
    )


def dataset_report(pods: Iterable[PodFacts]) -> DatasetReport | None:
    """What the prepare container made, once it has ended well."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        container = pod.container(PREPARE_CONTAINER)
        if container.exit_code == 0 and container.message:
            try:
                return DatasetReport.model_validate_json(container.message)
            except ValidationError:
                continue
    return None


def last_words(pods: Iterable[PodFacts]) -> str:
    """The end of what the newest failed container wrote, for a failure without a structured message."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        for name in (TRAINER_CONTAINER, PREPARE_CONTAINER):
            container = pod.container(name)
            if container.exit_code:
                words = container.message.strip().splitlines()
                return f"{name} exited with {container.exit_code}: {words[-1] if words else 'no message'}"
    return ""


def obstacle(pods: Iterable[PodFacts]) -> tuple[str, str] | None:
    """Why no pod gets going, as (reason, message): unschedulable, image or configuration problem."""
    for pod in pods:
        if pod.unschedulable is not None:
            return "Unschedulable", pod.unschedulable
        for container in pod.containers.values():
            if container.waiting_reason in IMAGE_PROBLEMS | CONFIG_PROBLEMS:
                return str(container.waiting_reason), container.waiting_message
    return None
