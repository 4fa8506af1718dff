"""A training that wants a GPU, against a real API server and Job controller: no pod takes one before it is of use."""

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER
from finetune_operator.manifests.common import JOB_NAME_LABEL
from tests.cluster.samples import Manifest, fine_tune_job
from tests.cluster.world import World, condition
from tests.waiting import eventually

GPU = "nvidia.com/gpu"
ON_GPU = {"resources": {"limits": {GPU: 1}}}
JOB = "plato-1"


def takes_gpu(pod: Manifest) -> bool:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return any(GPU in container.get("resources", {}).get("limits", {}) for container in containers)


async def jobs_of(world: World) -> list[str]:
    return await world.names("jobs", f"{JOB_NAME_LABEL}={JOB}")


async def preparing(world: World) -> Manifest:
    """The pod of the preparation of a new training."""
    await world.create(fine_tune_job(JOB, **ON_GPU))
    pod = await world.kubelet.trainer(JOB)
    assert not takes_gpu(pod)
    return pod


async def test_a_gpu_is_taken_once_the_dataset_is_there(world: World) -> None:
    pod = await preparing(world)
    await world.kubelet.prepare(pod)
    status = (await world.reaches("finetunejobs", JOB, phase="Preparing"))["status"]
    assert [status["jobName"]] == await jobs_of(world)
    assert "attempts" not in status

    await world.kubelet.end_preparation(pod)
    trainer = await world.kubelet.trainer(JOB)
    assert takes_gpu(trainer)
    begun = await world.reaches("finetunejobs", JOB, dataset={"rows": 120, "testRows": 12}, attempts=1)
    assert begun["status"]["jobName"] != status["jobName"]

    await world.kubelet.train(trainer)
    await world.reaches("finetunejobs", JOB, phase="Training")
    await world.kubelet.succeed(trainer)
    await world.reaches("finetunejobs", JOB, phase="Succeeded", modelVersion="plato-v1")
    assert len(await jobs_of(world)) == 2


async def test_what_is_refused_has_taken_none(world: World) -> None:
    pod = await preparing(world)
    reason = FailureReason.DATASET_EMPTY
    failure = Failure(reason=reason, message="no rows are left", remedy="lower minRating")
    await world.kubelet.fail(pod, PREPARE_CONTAINER, EXIT_CODES[reason], failure)
    failed = await world.reaches("finetunejobs", JOB, phase="Failed")
    assert condition(failed, "Stalled")["reason"] == reason
    assert condition(failed, "DatasetReady")["status"] == "False"
    assert failed["status"]["message"] == "no rows are left: lower minRating"
    assert await jobs_of(world) == [failed["status"]["jobName"]]


async def test_an_operator_that_dies_in_between_makes_each_job_once(world: World) -> None:
    pod = await preparing(world)
    await world.operator.kill()
    await world.kubelet.end_preparation(pod)
    await world.operator.start()
    trainer = await world.kubelet.trainer(JOB)
    made = await jobs_of(world)
    assert len(made) == 2
    await world.operator.kill()
    await world.operator.start()
    await world.kubelet.train(trainer)
    await world.reaches("finetunejobs", JOB, phase="Training")
    assert await jobs_of(world) == made


async def test_cancelled_and_deleted_nothing_of_it_stays(world: World) -> None:
    await preparing(world)
    await world.edit("finetunejobs", JOB, cancel=True)
    await world.reaches("finetunejobs", JOB, phase="Cancelled")
    assert await jobs_of(world) == []
    await world.delete("finetunejobs", JOB)

    await preparing(world)
    await world.delete("finetunejobs", JOB)

    async def all_is_gone() -> bool:
        return not await jobs_of(world) and not await world.kubelet.trainers(JOB)

    await eventually(all_is_gone)
