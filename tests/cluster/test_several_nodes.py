"""A training on two nodes against a real API server and Job controller; the kubelet's part is played."""

from finetune_operator.contract.places import TRAINER_CONTAINER
from tests.cluster.samples import Manifest, fine_tune_job
from tests.cluster.world import World, condition
from tests.waiting import eventually

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
NAME = "pair"


async def pods_of(world: World, other_than: tuple[Manifest, ...] = ()) -> tuple[Manifest, Manifest]:
    """The pods of both nodes, in their order."""
    known = {pod["metadata"]["uid"] for pod in other_than}

    async def both() -> list[Manifest]:
        pods = [pod for pod in await world.kubelet.trainers(NAME) if pod["metadata"]["uid"] not in known]
        return sorted(pods, key=lambda pod: pod["metadata"]["labels"][INDEX_LABEL]) if len(pods) == 2 else []

    first, second = await eventually(both)
    return first, second


async def test_two_nodes_train_one_version_and_begin_again_together(world: World) -> None:
    await world.create(fine_tune_job(NAME, nodes=2, backend="HuggingFace"))
    first, second = await pods_of(world)
    for index, pod in enumerate((first, second)):
        assert pod["spec"]["subdomain"] == pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        assert pod["spec"]["hostname"] == f"{pod['spec']['subdomain']}-{index}"
        (trainer,) = pod["spec"]["containers"]
        assert "JOB_COMPLETION_INDEX" in {variable["name"] for variable in trainer["env"]}
    (service,) = await world.names("services", f"finetune.dev/job={NAME}")
    assert service == first["spec"]["subdomain"]

    await world.kubelet.train(first)

    async def waits_for_the_other() -> bool:
        status = condition(await world.get("finetunejobs", NAME), "Reconciling")
        return bool(status.get("reason") == "WaitingForNodes" and "1 of 2 pods" in status["message"])

    await eventually(waits_for_the_other)
    await world.kubelet.train(second)
    await world.reaches("finetunejobs", NAME, phase="Training", attempts=1)

    # The second crashes, and the first loses it: one failure is counted, and both are made again.
    await world.kubelet.fail(second, TRAINER_CONTAINER, 1, "IndexError: 7")
    await world.kubelet.fail(first, TRAINER_CONTAINER, 69, "")
    failure = {"reason": "Crashed", "pod": second["metadata"]["name"]}
    await world.reaches("finetunejobs", NAME, lastFailure=failure)
    first, second = await pods_of(world, (first, second))
    await world.kubelet.train(first)
    await world.kubelet.train(second)
    training = await world.reaches("finetunejobs", NAME, phase="Training", attempts=2, lastFailure=failure)
    await world.reaches("jobs", training["status"]["jobName"], failed=1)

    # The second has nothing to say; the first measures and exports alone.
    await world.kubelet.end_well(second)
    await world.kubelet.succeed(first)
    done = await world.reaches("finetunejobs", NAME, phase="Succeeded", attempts=2)
    assert await world.names("modelversions") == [done["status"]["modelVersion"]]
