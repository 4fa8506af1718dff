"""What keeps a FineTuneJob from training or ends it for good, each told with what to change; all in one namespace."""

from dataclasses import dataclass

import pytest

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.manifests.common import JOB_NAME_LABEL
from tests.cluster.samples import fine_tune_job
from tests.cluster.world import World, condition
from tests.waiting import throughout


async def test_a_job_that_is_created_suspended_has_no_pod_until_it_is_resumed(shared_world: World) -> None:
    world = shared_world
    await world.create(fine_tune_job("patient", suspend=True))

    await world.reaches("finetunejobs", "patient", phase="Suspended")
    assert await world.kubelet.trainers("patient") == []

    await world.edit("finetunejobs", "patient", suspend=False)
    assert await world.kubelet.trainer("patient")


@dataclass(frozen=True)
class Ending:
    """How a container ended, and what the FineTuneJob says of it."""

    title: str
    reason: FailureReason
    container: str
    exit_code: int
    message: object
    said: str
    dataset_ready: str = "True"
    terminated_reason: str = "Error"


def reported(reason: FailureReason, container: str, dataset_ready: str = "True") -> Ending:
    """A container that found out by itself what is wrong."""
    failure = Failure(reason=reason, message=f"the fact of {reason}", remedy=f"the remedy of {reason}")
    said = f"the fact of {reason}: the remedy of {reason}"
    return Ending(str(reason), reason, container, EXIT_CODES[reason], failure, said, dataset_ready)


ENDINGS = [
    reported(FailureReason.INVALID_CONFIG, TRAINER_CONTAINER),
    reported(FailureReason.DATASET_INVALID, PREPARE_CONTAINER, "False"),
    reported(FailureReason.DATASET_EMPTY, PREPARE_CONTAINER, "False"),
    reported(FailureReason.DATASET_TOO_SMALL, PREPARE_CONTAINER, "False"),
    reported(FailureReason.DATABASE_UNREACHABLE, PREPARE_CONTAINER, "False"),
    reported(FailureReason.BASE_MODEL_NOT_FOUND, TRAINER_CONTAINER),
    reported(FailureReason.OUT_OF_MEMORY, TRAINER_CONTAINER),
    reported(FailureReason.ARTIFACT_INVALID, TRAINER_CONTAINER),
    Ending(
        "a final exit code without a message",
        FailureReason.TRAINER_FAILED,
        TRAINER_CONTAINER,
        EXIT_CODES[FailureReason.INVALID_CONFIG],
        "Traceback (most recent call last):\nValueError: no such thing",
        "trainer exited with 42: ValueError: no such thing: see the log of the last pod",
    ),
]


@pytest.mark.parametrize("case", ENDINGS, ids=lambda case: case.title)
async def test_a_final_failure_is_told_with_its_remedy_and_not_tried_again(shared_world: World, case: Ending) -> None:
    world, name = shared_world, f"failing-{ENDINGS.index(case)}"
    await world.create(fine_tune_job(name))
    pod = await world.kubelet.trainer(name)
    await world.kubelet.prepare(pod)
    if case.container == TRAINER_CONTAINER:
        await world.kubelet.train(pod)

    await world.kubelet.fail(pod, case.container, case.exit_code, case.message, case.terminated_reason)

    failed = await world.reaches("finetunejobs", name, phase="Failed")
    stalled = condition(failed, "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", case.reason)
    assert case.said in stalled["message"]
    assert failed["status"]["message"] == stalled["message"]
    assert condition(failed, "Succeeded")["status"] == "False"
    assert condition(failed, "Ready")["status"] == "False"
    assert condition(failed, "Reconciling") == {}
    assert condition(failed, "DatasetReady")["status"] == case.dataset_ready
    assert await world.names("jobs", f"{JOB_NAME_LABEL}={name}") == [failed["status"]["jobName"]]
    assert await world.kubelet.trainers(name) == []


async def test_a_training_beyond_its_deadline_says_so(shared_world: World) -> None:
    training, _ = await shared_world.train("late", activeDeadlineSeconds=3600)

    await shared_world.out_of_time(training, seconds=1)

    failed = await shared_world.reaches("finetunejobs", "late", phase="Failed")

    stalled = condition(failed, "Stalled")
    assert stalled["reason"] == FailureReason.DEADLINE_EXCEEDED
    assert "raise spec.activeDeadlineSeconds" in stalled["message"]


async def test_failed_jobs_cause_no_further_requests(shared_world: World) -> None:
    """The jobs of the cases before, and one of its own, so that it also means something alone."""
    world = shared_world
    _, pod = await world.train("hopeless")
    reason = FailureReason.DATASET_EMPTY
    await world.kubelet.fail(
        pod, PREPARE_CONTAINER, EXIT_CODES[reason], Failure(reason=reason, message="m", remedy="r")
    )
    failed = await world.reaches("finetunejobs", "hopeless", phase="Failed")
    await world.told(reason, failed["metadata"]["uid"])
    await world.settled()
    jobs, pods, mark = await world.names("jobs"), await world.names("pods"), world.audit.end()

    async def nothing_happens() -> None:
        assert world.audit.writes(world.namespace, mark) == []
        assert await world.names("jobs") == jobs
        assert await world.names("pods") == pods

    await throughout(nothing_happens, seconds=3)


@dataclass(frozen=True)
class Obstacle:
    """What keeps a pod from starting, as reason and message."""

    title: str
    reason: str
    message: str


OBSTACLES = [
    Obstacle("a missing secret", "CreateContainerConfigError", 'secret "ratings" not found'),
    Obstacle("a missing image", "ErrImagePull", 'failed to resolve image "localhost/trainer:test": not found'),
]


@pytest.mark.parametrize("case", OBSTACLES, ids=lambda case: case.title)
async def test_what_keeps_the_pod_from_starting_is_told_until_it_is_gone(shared_world: World, case: Obstacle) -> None:
    world, name = shared_world, f"held-up-{OBSTACLES.index(case)}"
    await world.create(fine_tune_job(name))
    pod = await world.kubelet.trainer(name)

    await world.kubelet.hold(pod, case.reason, case.message)
    await world.reaches("finetunejobs", name, phase="Pending")
    await world.says("finetunejobs", name, "Reconciling", status="True", reason=case.reason, message=case.message)

    await world.kubelet.train(pod)
    await world.reaches("finetunejobs", name, phase="Training")


async def test_a_pod_that_fits_nowhere_tells_what_the_scheduler_said(shared_world: World) -> None:
    world, words = shared_world, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    await world.create(fine_tune_job("too-large"))

    await world.kubelet.refuse_a_node(await world.kubelet.trainer("too-large"), words)

    await world.reaches("finetunejobs", "too-large", phase="Pending")
    await world.says("finetunejobs", "too-large", "Reconciling", status="True", reason="Unschedulable", message=words)
