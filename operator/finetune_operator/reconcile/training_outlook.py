"""Where a training stands and how it ends, before it becomes a status."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import FETCH_CONTAINER, PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.endings import latest_ending
from finetune_operator.core.evaluation import judgement
from finetune_operator.core.workloads import (
    DEADLINE_EXCEEDED,
    QUEUE_LABEL,
    JobFacts,
    PodFacts,
    keeps_its_cause,
    last_words,
    obstacle,
)
from finetune_operator.resources.common import Condition
from finetune_operator.resources.finetunejob import KIND, FineTuneJobSpec, Phase
from finetune_operator.resources.modelversion import ModelVersionSpec

NO_RESULT = Failure(
    reason=FailureReason.TRAINER_FAILED,
    message="the trainer ended without an error, but also without a readable result",
    remedy="use a trainer image of the operator's own release",
)
NO_COMMIT = Failure(
    reason=FailureReason.TRAINER_FAILED,
    message="the trainer did not say which commit of the base model it trained on",
    remedy="use a trainer image of the operator's own release",
)


# A pod that has not started is not tried again, and has not failed: it starts as soon as what it waits for is there.
OBSTACLE_REMEDIES: Mapping[str, str] = {
    "Unschedulable": "it starts when a node has room and matches spec.scheduling; a new job can ask for less",
    "ErrImagePull": "check image.trainer and image.pullSecrets of the chart's values",
    "InvalidImageName": "correct the image in the chart's values",
    "ErrImageNeverPull": "load the image onto the node, or change image.pullPolicy of the chart's values",
    "CreateContainerConfigError": "it starts as soon as what it names is there",
    "CreateContainerError": "see kubectl describe of the pod",
}


WAITING_FOR_NODES = (
    "{started} of {nodes} pods have started their trainer, which waits for the others; one that stays in "
    "ContainerCreating may lack its volume: on several nodes the claim of artifacts must be ReadWriteMany"
)


@dataclass(frozen=True)
class Outlook:
    """One answer to how it goes; `failure` where it went wrong for good."""

    phase: Phase
    reason: str
    message: str
    failure: Failure | None = None
    version: str | None = None
    at_the_end: bool = False
    """After the last step of the training."""


def outlook_of(
    pods: tuple[PodFacts, ...], told: Condition | None = None, nodes: int = 1, ended_well: int = 0
) -> Outlook:
    """Of a training that is meant to run, by its pods; of what was told before, the cause of a failed pull stays.

    On several nodes it runs once all pods do; `ended_well` of them have.
    """
    alive = still_alive(pods)
    started = started_nodes(pods, ended_well)
    if started >= nodes:
        return Outlook(Phase.TRAINING, "Training", "the trainer is running")
    if problem := obstacle(alive):
        reason, fact = problem
        if told and keeps_its_cause(problem, told):
            return Outlook(Phase.PENDING, reason, told.message)
        return Outlook(Phase.PENDING, reason, f"{fact}: {OBSTACLE_REMEDIES[reason]}")
    if started:
        return Outlook(Phase.PENDING, "WaitingForNodes", WAITING_FOR_NODES.format(started=started, nodes=nodes))
    if any(runs_or_ended_well(pod, FETCH_CONTAINER) for pod in alive):
        return Outlook(Phase.PREPARING, "DownloadingBaseModel", "the base model is being downloaded")
    if any(runs_or_ended_well(pod, PREPARE_CONTAINER) for pod in alive):
        return Outlook(Phase.PREPARING, "Preparing", "the dataset is being prepared")
    if failed := latest_ending(pods):
        return Outlook(Phase.PENDING, "Retrying", f"will be tried again: {failed[1].message}")
    return Outlook(Phase.PENDING, "Starting", "waiting for the pod to start")


def started_nodes(pods: tuple[PodFacts, ...], ended_well: int) -> int:
    """Nodes whose trainer runs or has ended well; of those that have ended, pods may be gone."""
    seen = [pod for pod in pods if runs_or_ended_well(pod, TRAINER_CONTAINER)]
    gone = max(0, ended_well - sum(pod.phase == "Succeeded" for pod in seen))
    return len({pod.index for pod in seen}) + gone


def still_alive(pods: tuple[PodFacts, ...]) -> tuple[PodFacts, ...]:
    """Those that have not ended."""
    return tuple(pod for pod in pods if pod.phase in ("Pending", "Running"))


def leaving_seconds(found: JobFacts | None, pods: tuple[PodFacts, ...], now: datetime, at_most: float) -> float:
    """How long a pod of the stopped Job may still run; the kubelet of a dead node never says that one has ended."""
    if found is None or found.stopped_at is None or not still_alive(pods):
        return 0.0
    return max(0.0, (found.stopped_at - now).total_seconds() + at_most)


def runs_or_ended_well(pod: PodFacts, container: str) -> bool:
    """The moment between a container's end and what follows is not worth a status of its own."""
    facts = pod.container(container)
    return facts.running or facts.exit_code == 0


def suspended() -> Outlook:
    return Outlook(Phase.SUSPENDED, "Suspended", "set spec.suspend to false to go on from the last checkpoint")


def after_the_last_step(spec: FineTuneJobSpec) -> Outlook:
    """What the trainer still does, all of it at once: each stage told on its own would be a write."""
    stages = []
    if spec.evaluation and spec.evaluation.metrics:
        stages.append(("Evaluating", "answering the held-out prompts that spec.evaluation asks for"))
    if spec.outputs:
        stages.append(("Exporting", f"making {', '.join(spec.outputs)}"))
    reason, _ = (*stages, ("Publishing", ""))[0]
    doing = ", then ".join(text for _, text in stages) or "publishing the adapter"
    return Outlook(Phase.TRAINING, reason, f"trained; {doing}", at_the_end=True)


def queued(queue: str) -> Outlook:
    return Outlook(Phase.QUEUED, "Queued", f"waits for Kueue to admit it from the LocalQueue {queue}")


def held(job_name: str) -> Outlook:
    message = (
        f"Job {job_name} is kept suspended by another controller; if that is Kueue, which waits for a queue of Jobs "
        f"without one: label this FineTuneJob {QUEUE_LABEL}"
    )
    return Outlook(Phase.QUEUED, "Held", message)


def waiting_for_predecessor() -> Outlook:
    return Outlook(Phase.PENDING, "Starting", "waiting for the pod of the time before to end")


def waiting_for_version(name: str) -> Outlook:
    message = (
        f"waits for ModelVersion {name}, which spec.initFrom names: create it, or delete this job and make one that "
        "names an existing version"
    )
    return Outlook(Phase.PENDING, "VersionNotFound", message)


def cancelling(phase: Phase | None) -> Outlook:
    return Outlook(phase or Phase.PENDING, "Cancelling", "the trainer writes a checkpoint and ends")


def stopping(phase: Phase | None, failure: Failure) -> Outlook:
    message = f"{failure.message}; its pods write a checkpoint and end"
    return Outlook(phase or Phase.PENDING, failure.reason.value, message)


def cancelled(remark: str | None = None) -> Outlook:
    message = "spec.cancel was set; its checkpoints stay on the volume until the job is deleted"
    return Outlook(Phase.CANCELLED, "Cancelled", f"{message}; {remark}" if remark else message)


def failed(failure: Failure) -> Outlook:
    message = f"{failure.message}: {failure.remedy}"
    return Outlook(Phase.FAILED, failure.reason.value, message, failure=failure)


def succeeded(version: str, spec: ModelVersionSpec) -> Outlook:
    message = f"published ModelVersion {version}"
    if (verdict := judgement(spec)) and not verdict.passed:
        message += f", held back from promotion: {verdict.message}"
    return Outlook(Phase.SUCCEEDED, "Published", message, version=version)


def name_taken(name: str, kind: str = KIND) -> Failure:
    return Failure(
        reason=FailureReason.NAME_TAKEN,
        message=f"a Job named {name} exists and belongs to somebody else",
        remedy=f"delete that Job, or give this {kind} another name",
    )


def failure_of(
    job: JobFacts, outcome: TrainingResult | Failure | None, pods: tuple[PodFacts, ...], *, may_tell_more: bool
) -> Failure | None:
    """Why the Job failed; None while a pod that may know is not seen to have ended."""
    if job.failed_reason == DEADLINE_EXCEEDED:
        # First, since the pods that it stops may look as if they had run out of memory.
        return Failure(
            reason=FailureReason.DEADLINE_EXCEEDED,
            message=job.failed_message or "the training took longer than spec.activeDeadlineSeconds",
            remedy="raise spec.activeDeadlineSeconds or train for fewer epochs",
        )
    if isinstance(outcome, Failure):
        return outcome
    if may_tell_more:
        return None
    return Failure(
        reason=FailureReason.TRAINER_FAILED,
        message=f"{job.failed_message or job.failed_reason}; {last_words(pods) or 'the pods are gone'}",
        remedy="see the log of the last pod",
    )
