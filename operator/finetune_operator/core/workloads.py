"""The facts that the product needs of Jobs, Pods and Deployments, read from their JSON."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import SIGKILL_EXIT_CODE, Failure, FailureReason
from finetune_operator.contract.places import FETCH_CONTAINER, PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.contract.preflight import Preflight
from finetune_operator.contract.training import TrainingResult
from finetune_operator.resources.common import Condition

OOM_KILLED = "OOMKilled"
PYDANTIC_LINK = "For further information visit "
EVICTED = "Evicted"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""By which Kueue knows which Jobs to hold back, and in which queue."""
BASE_ENGINE_LABEL = "finetune.dev/base-engine"
"""On a Job that asks engines: the one that it asks for the base model."""
SUSPENDED_ANNOTATION = "finetune.dev/suspended"
"""On a Job that the operator has suspended for its user; who else suspends one starts it again."""
DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Why a Job has failed whose activeDeadlineSeconds are over."""
PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
"""Why a Deployment does not progress whose newest pods are not ready in time."""
UNSCHEDULABLE = "Unschedulable"
"""Why a pod does not start that no node has room for, or may have."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
IMAGE_PROBLEMS = frozenset({"ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
BACK_OFF = "Back-off pulling image"
CONFIG_PROBLEMS = frozenset({"CreateContainerConfigError", "CreateContainerError"})
CONTAINERS_LATEST_FIRST = (TRAINER_CONTAINER, FETCH_CONTAINER, PREPARE_CONTAINER)

# Of Kubernetes 1.32 and later; before, no cause follows.
_BACK_OFF_CAUSED = re.compile(rf'{BACK_OFF} "[^"]*": ErrImagePull: ')

R = TypeVar("R", bound=Message)

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
    finished_at: datetime | None = None
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
    created: str
    reason: str = ""
    message: str = ""
    disruption: str | None = None
    disrupted_at: datetime | None = None
    scheduled_at: datetime | None = None
    unschedulable: str | None = None
    index: int | None = None
    """Of an Indexed Job's pod."""
    containers: Mapping[str, ContainerFacts] = field(default_factory=dict)

    @property
    def disrupted(self) -> bool:
        """Whether Kubernetes ended it for a cause that is not the pod's own."""
        return self.disruption is not None

    @property
    def ended_at(self) -> datetime | None:
        """When the last of its containers ended."""
        return max((c.finished_at for c in self.containers.values() if c.finished_at), default=None)

    def container(self, name: str) -> ContainerFacts:
        return self.containers.get(name, ContainerFacts())


@dataclass(frozen=True)
class JobFacts:
    """State of one batch/v1 Job."""

    name: str
    uid: str
    owner_uids: frozenset[str]
    queue: str | None
    suspended: bool
    stopped_at: datetime | None
    complete: bool
    failed_reason: str | None
    failed_message: str
    pods_failed: int
    pods_succeeded: int = 0
    ttl_seconds: int | None = None
    suspended_by_us: bool = False
    base_engine: str | None = None
    """Which engine it asks for the base model, where it was told one."""


@dataclass(frozen=True)
class DeploymentFacts:
    """State of one apps/v1 Deployment."""

    name: str
    uid: str
    revision: str | None
    wanted_replicas: int
    ready_replicas: int
    progress_failure: str | None
    deadline_exceeded: bool = False
    """Whether its newest pods were not ready within spec.progressDeadlineSeconds; it goes on trying."""
    progress_deadline_seconds: int = 600


def pod_facts(body: Mapping[str, Any]) -> PodFacts:
    """Read a pod."""
    metadata, status = body["metadata"], body.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    disruption = conditions.get("DisruptionTarget", {})
    is_disrupted = disruption.get("status") == "True"
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        phase=status.get("phase", "Pending"),
        ip=status.get("podIP"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        created=metadata.get("creationTimestamp", ""),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        disruption=disruption.get("reason", "") if is_disrupted else None,
        disrupted_at=_time(disruption.get("lastTransitionTime")) if is_disrupted else None,
        scheduled_at=_scheduled_at(scheduled, status),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
        index=_index(metadata.get("labels", {}).get(INDEX_LABEL)),
        containers={entry["name"]: _container_facts(entry) for entry in statuses},
    )


def _index(label: str | None) -> int | None:
    return int(label) if label and label.isdecimal() else None


def _scheduled_at(scheduled: Mapping[str, Any], status: Mapping[str, Any]) -> datetime | None:
    """From then on nobody else can have the resources; the kubelet's own time where the scheduler told none."""
    since = scheduled.get("lastTransitionTime") if scheduled.get("status") == "True" else None
    return _time(since or status.get("startTime"))


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _container_facts(entry: Mapping[str, Any]) -> ContainerFacts:
    state = entry.get("state", {})
    waiting = state.get("waiting", {})
    terminated = state.get("terminated") or entry.get("lastState", {}).get("terminated") or {}
    return ContainerFacts(
        running="running" in state,
        started_at=_time((state.get("running") or terminated).get("startedAt")),
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message", ""),
        exit_code=terminated.get("exitCode"),
        terminated_reason=terminated.get("reason"),
        finished_at=_time(state.get("terminated", {}).get("finishedAt")),
        message=terminated.get("message", ""),
    )


def job_facts(body: Mapping[str, Any]) -> JobFacts:
    """Read a Job."""
    metadata, status = body["metadata"], body.get("status", {})
    true = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    failed = true.get("Failed") or true.get("FailureTarget") or {}
    stopped = true.get("Suspended") or true.get("Complete") or failed
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uids=frozenset(owner["uid"] for owner in metadata.get("ownerReferences", [])),
        queue=metadata.get("labels", {}).get(QUEUE_LABEL),
        suspended=body.get("spec", {}).get("suspend", False),
        stopped_at=_time(stopped.get("lastTransitionTime")),
        complete="Complete" in true or "SuccessCriteriaMet" in true,
        failed_reason=failed.get("reason"),
        failed_message=failed.get("message", ""),
        pods_failed=status.get("failed", 0),
        pods_succeeded=status.get("succeeded", 0),
        ttl_seconds=body.get("spec", {}).get("ttlSecondsAfterFinished"),
        base_engine=metadata.get("labels", {}).get(BASE_ENGINE_LABEL),
        suspended_by_us=SUSPENDED_ANNOTATION in (metadata.get("annotations") or {}),
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
        deadline_exceeded=progressing.get("reason") == PROGRESS_DEADLINE_EXCEEDED,
        progress_deadline_seconds=body.get("spec", {}).get("progressDeadlineSeconds", 600),
    )


def training_outcome(pods: Iterable[PodFacts]) -> TrainingResult | Failure | None:
    """What the newest pods said in their termination messages: a result, or why none is possible.

    A trainer tells its result as soon as the adapter is published: however it ended then, and whatever became of pods
    that followed, the result stands. That a pod was killed says nothing where its node was drained, or where it was
    preempted.
    """
    newest_first = sorted(pods, key=lambda pod: pod.created, reverse=True)
    for pod in newest_first:
        with suppress(ValidationError):
            return TrainingResult.model_validate_json(pod.container(TRAINER_CONTAINER).message)
    for pod in newest_first:
        for name in CONTAINERS_LATEST_FIRST:
            container = pod.container(name)
            if not pod.disrupted and (failure := killed(pod, name)):
                return failure
            try:
                return _OUTCOME.validate_json(container.message)
            except ValidationError:
                continue
    return None


def killed(pod: PodFacts, container: str) -> Failure | None:
    """Why the container was killed, if it was, by whomever."""
    facts = pod.container(container)
    if facts.terminated_reason == OOM_KILLED:
        return out_of_memory(container)
    if facts.exit_code != SIGKILL_EXIT_CODE:
        return None
    if pod.reason == EVICTED:
        return Failure(
            reason=FailureReason.STORAGE_EXCEEDED,
            message=pod.message or "the kubelet evicted the pod, since it used more local storage than it may",
            remedy="raise spec.resources.limits.ephemeral-storage",
        )
    return Failure(
        reason=FailureReason.KILLED,
        message=f"container {container} was killed (exit code {SIGKILL_EXIT_CODE}); Kubernetes does not say by whom",
        remedy="if its node was short of memory, set spec.resources.requests.memory to what the training needs",
    )


def out_of_memory(container: str) -> Failure:
    """The kernel killed the container; the same settings would end the same way."""
    return Failure(
        reason=FailureReason.OUT_OF_MEMORY,
        message=f"container {container} was killed (exit code {SIGKILL_EXIT_CODE}): its memory limit is too low",
        remedy="raise spec.resources.limits.memory, or lower training.batchSize or training.maxSeqLength",
    )


def told_by(container: str, pods: Iterable[PodFacts], report: type[R]) -> R | Failure | None:
    """What the newest pods of a Job said in their termination messages: a report, or why there can't be one."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        facts = pod.container(container)
        if facts.exit_code is None:
            continue
        told: type[R] | type[Failure] = Failure if facts.exit_code else report
        with suppress(ValidationError):
            return told.model_validate_json(facts.message)
    return None


def last_line(message: str) -> str:
    """What a process said last; below what it refuses, pydantic has a link to its documentation."""
    lines = (line.strip() for line in reversed(message.splitlines()))
    return next((line for line in lines if line and not line.startswith(PYDANTIC_LINK)), "")


def last_words_of(container: str, pods: Iterable[PodFacts], memory_remedy: str) -> str:
    """The end of what the newest failed container wrote, for a failure without a message of ours."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        facts = pod.container(container)
        if facts.terminated_reason == OOM_KILLED:
            return f"the {container} was killed: it used more memory than it may; {memory_remedy}"
        if facts.exit_code:
            return f"the {container} exited with {facts.exit_code}: {last_line(facts.message) or 'no message'}"
    return f"the {container} left no message"


def dataset_report(pods: Iterable[PodFacts]) -> DatasetReport | None:
    """What the prepare container made, once it has ended well; for a model of the hub `fetch` adds the preflight."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        container = pod.container(PREPARE_CONTAINER)
        if container.exit_code == 0 and container.message:
            try:
                report = DatasetReport.model_validate_json(container.message)
            except ValidationError:
                continue
            found = report.preflight or _preflight(pod)
            return report.model_copy(update={"preflight": found})
    return None


def _preflight(pod: PodFacts) -> Preflight | None:
    container = pod.container(FETCH_CONTAINER)
    if container.exit_code != 0 or not container.message:
        return None
    try:
        return Preflight.model_validate_json(container.message)
    except ValidationError:
        return None


def last_words(pods: Iterable[PodFacts]) -> str:
    """The end of what the newest failed container wrote, for a failure without a structured message."""
    for pod in sorted(pods, key=lambda pod: pod.created, reverse=True):
        for name in CONTAINERS_LATEST_FIRST:
            container = pod.container(name)
            if container.exit_code:
                return f"{name} exited with {container.exit_code}: {last_line(container.message) or 'no message'}"
    return ""


def obstacle(pods: Iterable[PodFacts]) -> tuple[str, str] | None:
    """Why no pod gets going, as (reason, message): unschedulable, image or configuration problem.

    That an image can't be pulled is one reason, whether the kubelet tries it now or waits with its next try.
    """
    for pod in pods:
        if pod.unschedulable is not None:
            return UNSCHEDULABLE, pod.unschedulable
        for container in pod.containers.values():
            if container.waiting_reason == "ImagePullBackOff":
                return "ErrImagePull", _BACK_OFF_CAUSED.sub("", container.waiting_message)
            if container.waiting_reason in IMAGE_PROBLEMS | CONFIG_PROBLEMS:
                return str(container.waiting_reason), container.waiting_message
    return None


def keeps_its_cause(problem: tuple[str, str], told: Condition | None) -> bool:
    """Whether what was told of this obstacle is to stay, with its cause.

    Before Kubernetes 1.32 a kubelet says why an image can't be pulled only while it tries, not while it waits with its
    next try; to repeat both in turn would be a write each time.
    """
    reason, fact = problem
    return told is not None and told.reason == reason and fact.startswith(BACK_OFF)
