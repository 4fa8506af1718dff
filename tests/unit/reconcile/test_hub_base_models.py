"""What is told and done while a base model comes from the hub, and when it does not come."""

from typing import Any

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import deployment_facts, job_facts, pod_facts
from finetune_operator.manifests.serving import engine_name
from finetune_operator.reconcile import finetunejob, modelversion
from finetune_operator.reconcile.modelversion import EnginePod
from finetune_operator.reconcile.plan import Create
from finetune_operator.resources.finetunejob import FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersionStatus, State
from tests.builders import (
    COMMIT,
    CONFIG,
    HUB_MODEL,
    NOON,
    REPORT,
    Object,
    deployment_body,
    job_body,
    job_condition,
    make_failure,
    make_job,
    make_result,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
    training_pod,
    waiting,
    wire,
)

JOB = make_job({"baseModel": HUB_MODEL})
VERSION = make_version(1, {"baseModel": merged(HUB_MODEL, {"source": {"hub": {"revision": COMMIT}}})})
PREPARED = terminated(0, wire(REPORT))
GATED = make_failure(FailureReason.BASE_MODEL_UNAVAILABLE, "it is gated", "accept its terms")


def job_status(*pods: Object, conditions: tuple[Object, ...] = ()) -> FineTuneJobStatus:
    job = job_facts(job_body(JOB.metadata.uid, conditions=conditions))
    seen = finetunejob.Observed(job, tuple(pod_facts(pod) for pod in pods))
    return FineTuneJobStatus.model_validate(finetunejob.reconcile(JOB, seen, NOON, CONFIG).status)


DOWNLOADING = "the base model is being downloaded"
PHASES: dict[str, tuple[Object, Phase, str]] = {
    "downloading": (training_pod(prepare=PREPARED, fetch=running()), Phase.PREPARING, DOWNLOADING),
    "downloaded": (training_pod(prepare=PREPARED, fetch=terminated(0)), Phase.PREPARING, DOWNLOADING),
    "no secret with the token": (
        training_pod(prepare=PREPARED, fetch=waiting("CreateContainerConfigError", 'secret "hub" not found')),
        Phase.PENDING,
        'secret "hub" not found',
    ),
    "the hub was down": (
        training_pod(phase="Failed", prepare=PREPARED, fetch=terminated(1, "the hub can't be reached")),
        Phase.PENDING,
        "the hub can't be reached",
    ),
}


@pytest.mark.parametrize(("pod", "phase", "message"), PHASES.values(), ids=PHASES.keys())
def test_a_job_tells_how_the_download_goes(pod: Object, phase: Phase, message: str) -> None:
    status = job_status(pod)
    assert status.phase is phase
    assert message in (status.message or "")


def test_a_model_that_can_not_be_had_ends_the_job_and_not_its_dataset() -> None:
    failed = training_pod(phase="Failed", prepare=PREPARED, fetch=terminated(46, wire(GATED)))
    status = job_status(failed, conditions=(job_condition("Failed", "PodFailurePolicy"),))
    assert (status.phase, status.message) == (Phase.FAILED, "it is gated: accept its terms")
    stalled, dataset = find(status.conditions, "Stalled"), find(status.conditions, "DatasetReady")
    assert stalled
    assert stalled.reason == "BaseModelUnavailable"
    assert dataset
    assert dataset.status == "True"


def publish(result: TrainingResult) -> tuple[FineTuneJobStatus, tuple[Any, ...]]:
    pod = training_pod(phase="Succeeded", prepare=PREPARED, fetch=terminated(0), trainer=terminated(0, wire(result)))
    job = job_facts(job_body(JOB.metadata.uid, conditions=(job_condition("Complete"),)))
    plan = finetunejob.reconcile(JOB, finetunejob.Observed(job, (pod_facts(pod),)), NOON, CONFIG)
    return FineTuneJobStatus.model_validate(plan.status), plan.actions


def test_a_version_is_published_with_the_commit() -> None:
    _, (create,) = publish(make_result(base_model_commit=COMMIT))
    assert isinstance(create, Create)
    assert create.body["spec"]["baseModel"]["source"]["hub"]["revision"] == COMMIT


def test_a_trainer_that_does_not_tell_the_commit_publishes_nothing() -> None:
    status, actions = publish(make_result())
    assert actions == ()
    assert status.phase is Phase.FAILED
    assert "which commit" in (status.message or "")


def version_status(fetch: Object, *conditions: Object, last: Object | None = None) -> ModelVersionStatus:
    assert VERSION.spec.serving
    body = pod_body(init={"fetch": fetch}, main={"vllm": waiting("PodInitializing")})
    if last:
        body["status"]["initContainerStatuses"][0]["lastState"] = last
    engine = deployment_body(engine_name(VERSION.spec, VERSION.spec.serving), conditions=conditions)
    seen = modelversion.Observed(
        versions=(VERSION,),
        deployment=deployment_facts(engine, "finetune.dev/revision"),
        pods=(EnginePod(pod_facts(body)),),
    )
    return ModelVersionStatus.model_validate(modelversion.reconcile(VERSION, seen, NOON, CONFIG).status)


STUCK = {"type": "Progressing", "status": "False", "message": "has timed out progressing"}
CRASHED = waiting("CrashLoopBackOff")
ENGINES: dict[str, tuple[ModelVersionStatus, str]] = {
    "downloading": (version_status(running()), DOWNLOADING),
    "downloading for longer than a rollout may take": (version_status(running(), STUCK), DOWNLOADING),
    "gated": (version_status(CRASHED, last=terminated(46, wire(GATED))), "it is gated: accept its terms"),
    "the hub is down": (version_status(CRASHED, last=terminated(1, "a\nno route")), "will be tried again: no route"),
    "no last words": (version_status(CRASHED, last=terminated(137)), "will be tried again: fetch exited with 137"),
    "downloaded": (version_status(terminated(0)), "no engine pod is ready yet"),
}


@pytest.mark.parametrize(("status", "message"), ENGINES.values(), ids=ENGINES.keys())
def test_a_version_tells_how_the_download_of_its_engine_goes(status: ModelVersionStatus, message: str) -> None:
    """It is never final: the kubelet tries again, and terms can be accepted meanwhile."""
    assert (status.state, status.message) == (State.PENDING, message)
    assert find(status.conditions, "Stalled") is None
