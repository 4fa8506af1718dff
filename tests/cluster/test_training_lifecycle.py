"""A training that is interrupted, queued or cancelled, and its cost, against a real API server and Job controller.

The kubelet's part is played, and so is Kueue's: it patches `spec.suspend` of the Jobs that it manages. The real Kueue
is not run here; what it does to a batch/v1 Job is in its pkg/controller/jobframework/reconciler.go.
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal

import pytest

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import TRAINER_CONTAINER
from tests.cluster.samples import NOON, fine_tune_job, model_version
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
ON_GPU = {"limits": {"nvidia.com/gpu": 1}}


@dataclass(frozen=True)
class Ending:
    """How the first pod ends; `disruption` is the reason of its DisruptionTarget condition."""

    reason: str
    retried: bool
    counted: bool
    exit_code: int = 143
    disruption: str = ""
    terminated_reason: str = "Error"
    message: object = ""


ENDINGS = {
    "drained": Ending("NodeDrained", True, False, disruption="EvictionByEvictionAPI"),
    "preempted": Ending("Preempted", True, False, 137, "PreemptionByScheduler"),
    "tainted": Ending("NodeTainted", True, False, 137, "DeletionByTaintManager"),
    "spot-lost": Ending("NodeLost", True, False, 137, "DeletionByPodGC"),
    "node-pressure": Ending("EvictedByKubelet", True, False, 137, "TerminationByKubelet"),
    "asked-to-leave": Ending("AskedToLeave", True, False),
    "crashed": Ending("Crashed", True, True, 1, message="Segmentation fault"),
    "locked-out": Ending("AttemptRunning", True, True, 75),
    "out-of-memory": Ending("OutOfMemory", True, True, 137, terminated_reason="OOMKilled"),
    "killed": Ending("Killed", True, True, 137),
    "wrong-config": Ending(
        "InvalidConfig",
        False,
        True,
        EXIT_CODES[FailureReason.INVALID_CONFIG],
        message=Failure(reason=FailureReason.INVALID_CONFIG, message="the fact", remedy="the remedy"),
    ),
}


async def test_kubernetes_and_the_status_agree_on_what_follows_each_ending(shared_world: World) -> None:
    """The rows of tests/unit/core/test_endings.py that reach the Job controller, all at once."""
    failures = await asyncio.gather(*(_ends(shared_world, *row) for row in ENDINGS.items()), return_exceptions=True)
    wrong = {name: repr(failure) for name, failure in zip(ENDINGS, failures, strict=True) if failure}
    assert wrong == {}


async def _ends(world: World, name: str, ending: Ending) -> None:
    training, pod = await world.train(name)
    if ending.disruption:
        await world.kubelet.disrupt(pod, ending.disruption, ending.exit_code)
    else:
        await world.kubelet.fail(pod, TRAINER_CONTAINER, ending.exit_code, ending.message, ending.terminated_reason)
    if ending.retried:
        failure = {"reason": ending.reason, "pod": pod["metadata"]["name"]}
        await world.reaches("finetunejobs", name, lastFailure=failure)
        again = await world.kubelet.trainer(name, other_than=pod["metadata"]["uid"])
        await world.kubelet.train(again)
        await world.reaches("finetunejobs", name, phase="Training", attempts=2, lastFailure=failure)
    else:
        failed = await world.reaches("finetunejobs", name, phase="Failed")
        assert condition(failed, "Stalled")["reason"] == ending.reason
        assert "lastFailure" not in failed["status"]
        assert await world.kubelet.trainers(name) == []
    await world.reaches("jobs", training["status"]["jobName"], failed=int(ending.counted) or None)
    assert len(await world.told(ending.reason, about=training["metadata"]["uid"])) == 1


async def test_a_checkpoint_and_the_cost_are_shown_with_the_progress(world: World) -> None:
    """Each second costs one unit here; what a suspended attempt cost stays."""
    job, pod = await world.train(resources=ON_GPU)
    world.api.report(job, 402, checkpoint_step=400, checkpoint_time=NOON)
    shown = await world.reaches("finetunejobs", "plato-1", checkpoint={"step": 400, "time": "2026-01-01T12:00:00Z"})
    assert shown["status"]["cost"]["currency"] == "USD"
    spent, estimated = (Decimal(shown["status"]["cost"][name]) for name in ("spent", "estimated"))
    assert estimated - spent == 1200
    assert condition(shown, "CostKnown")["status"] == "True"

    await world.edit("finetunejobs", "plato-1", suspend=True)
    await world.reaches("finetunejobs", "plato-1", phase="Suspended")
    await world.gone("pods", pod["metadata"]["name"])

    async def settled_cost() -> str:
        status = (await world.get("finetunejobs", "plato-1"))["status"]
        (first,) = status["allocation"]["pods"]
        assert "end" in first
        return str(status["cost"]["spent"])

    first_attempt = Decimal(await eventually(settled_cost))
    assert first_attempt >= spent
    await world.edit("finetunejobs", "plato-1", suspend=False)
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    await world.kubelet.train(again)
    await world.kubelet.succeed(again)
    done = await world.reaches("finetunejobs", "plato-1", phase="Succeeded", attempts=2, checkpoint={"step": 400})
    assert Decimal(done["status"]["cost"]["spent"]) >= first_attempt
    assert len(done["status"]["allocation"]["pods"]) == 2


async def test_a_stuck_training_is_stopped_by_its_budget_and_goes_on_with_a_larger_one(world: World) -> None:
    """Each second costs one unit, and the trainer reports nothing."""
    await world.create(fine_tune_job("plato-1", resources=ON_GPU, budget={"maxCost": "3"}))
    preparing = await world.kubelet.trainer("plato-1")
    await world.kubelet.end_preparation(preparing)
    pod = await world.kubelet.trainer("plato-1", other_than=preparing["metadata"]["uid"])
    await world.kubelet.train(pod)
    stopped = await world.reaches("finetunejobs", "plato-1", phase="Suspended")
    assert 3 <= Decimal(stopped["status"]["cost"]["spent"]) <= 10
    assert condition(stopped, "WithinBudget")["reason"] == "BudgetExceeded"
    assert len(await world.told("BudgetExceeded", about=stopped["metadata"]["uid"])) == 1
    await world.gone("pods", pod["metadata"]["name"])

    await world.edit("finetunejobs", "plato-1", budget={"maxCost": "100000"})
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    await world.kubelet.train(again)
    await world.reaches("finetunejobs", "plato-1", phase="Training", attempts=2)


async def test_without_a_price_the_cost_is_unknown_and_says_what_to_set(shared_world: World) -> None:
    await shared_world.train("unpriced", resources={"limits": {"amd.com/gpu": 1}})

    await shared_world.says(
        "finetunejobs",
        "unpriced",
        "CostKnown",
        status="False",
        reason="NoPrice",
        message='set prices.perHour."amd.com/gpu"',
    )

    status = (await shared_world.get("finetunejobs", "unpriced"))["status"]
    assert "spent" not in status["cost"]


async def test_cancelling_ends_the_pod_keeps_the_cost_and_is_final(world: World) -> None:
    training, pod = await world.train(resources=ON_GPU)

    await world.edit("finetunejobs", "plato-1", cancel=True)

    await world.gone("pods", pod["metadata"]["name"])
    cancelled = await world.reaches("finetunejobs", "plato-1", phase="Cancelled", attempts=1)
    await world.gone("jobs", training["status"]["jobName"])
    succeeded = condition(cancelled, "Succeeded")
    assert (succeeded["status"], succeeded["reason"]) == ("False", "Cancelled")
    assert condition(cancelled, "Ready")["status"] == "False"
    for type_ in ("Reconciling", "Stalled"):
        assert condition(cancelled, type_) == {}
    assert Decimal(cancelled["status"]["cost"]["spent"]) >= 0
    assert len(await world.told("Cancelled", about=training["metadata"]["uid"])) == 1
    await world.operator.kill()
    await world.operator.start()

    async def stays_so() -> None:
        assert (await world.get("finetunejobs", "plato-1"))["status"] == cancelled["status"]
        assert await world.names("jobs") == []

    await throughout(stays_so, seconds=2)


@pytest.mark.parametrize("spec", [{}, {"suspend": True}], ids=["at once", "suspended"])
async def test_a_job_that_is_created_cancelled_never_has_a_pod(shared_world: World, spec: dict[str, bool]) -> None:
    name = f"never-{len(spec)}"
    await shared_world.create(fine_tune_job(name, cancel=True, **spec))

    done = await shared_world.reaches("finetunejobs", name, phase="Cancelled")

    assert "attempts" not in done["status"]
    assert await shared_world.kubelet.trainers(name) == []


class Kueue:
    """What Kueue does to a Job with its label, and no more."""

    def __init__(self, world: World, job: str) -> None:
        self._world = world
        self._job = job

    async def admit(self) -> None:
        """There is quota: `startJob`."""
        await self._patch(suspend=False)

    async def evict(self) -> None:
        """Somebody with a better claim takes the quota: `stopJob`."""
        await self._patch(suspend=True)

    async def _patch(self, *, suspend: bool) -> None:
        await self._world.client.merge_patch("jobs", self._world.namespace, self._job, {"spec": {"suspend": suspend}})


async def test_a_queued_job_is_started_and_stopped_by_kueue_alone(world: World) -> None:
    body = fine_tune_job()
    body["metadata"]["labels"] = {QUEUE_LABEL: "gpus", "team": "ethics"}
    await world.create(body)
    queued = await world.reaches("finetunejobs", "plato-1", phase="Queued")
    assert condition(queued, "Reconciling")["reason"] == "Queued"
    assert "LocalQueue gpus" in queued["status"]["message"]
    job_name = queued["status"]["jobName"]
    job = await world.get("jobs", job_name)
    assert job["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    assert "team" not in job["metadata"]["labels"]
    kueue = Kueue(world, job_name)

    async def is_left_alone() -> None:
        assert (await world.get("jobs", job_name))["spec"]["suspend"] is True
        assert await world.kubelet.trainers("plato-1") == []

    await throughout(is_left_alone, seconds=2)

    await kueue.admit()
    pod = await world.kubelet.trainer("plato-1")
    await world.kubelet.train(pod)
    await world.reaches("finetunejobs", "plato-1", phase="Training")
    await kueue.evict()
    await world.gone("pods", pod["metadata"]["name"])
    evicted = await world.reaches("finetunejobs", "plato-1", phase="Queued")
    assert "lastFailure" not in evicted["status"]
    await throughout(is_left_alone, seconds=2)

    await kueue.admit()
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    await world.kubelet.train(again)
    await world.kubelet.succeed(again)
    await world.reaches("finetunejobs", "plato-1", phase="Succeeded", attempts=2)


async def test_suspending_a_queued_job_takes_it_out_of_the_queue_until_it_is_resumed(world: World) -> None:
    """Kueue would start a suspended Job that it has admitted."""
    body = fine_tune_job()
    body["metadata"]["labels"] = {QUEUE_LABEL: "gpus"}
    await world.create(body)
    first = await world.reaches("finetunejobs", "plato-1", phase="Queued")
    job = await world.get("jobs", first["status"]["jobName"])
    await Kueue(world, job["metadata"]["name"]).admit()
    pod = await world.kubelet.trainer("plato-1")
    await world.kubelet.train(pod)
    await world.reaches("finetunejobs", "plato-1", phase="Training")

    await world.edit("finetunejobs", "plato-1", suspend=True)
    await world.reaches("finetunejobs", "plato-1", phase="Suspended")
    await world.gone("jobs", job["metadata"]["name"])
    await world.gone("pods", pod["metadata"]["name"])

    await world.edit("finetunejobs", "plato-1", suspend=False)
    await world.reaches("finetunejobs", "plato-1", phase="Queued")
    second = await world.get("jobs", job["metadata"]["name"])
    assert second["metadata"]["uid"] != job["metadata"]["uid"]
    assert second["spec"]["suspend"] is True


async def test_a_job_that_kueue_holds_without_a_queue_is_left_to_it_until_it_is_labelled(world: World) -> None:
    """With `manageJobsWithoutQueueName` it stops a Job that names none, and marks nothing."""
    training, pod = await world.train()
    job_name = training["status"]["jobName"]
    kueue = Kueue(world, job_name)
    await kueue.evict()
    await world.gone("pods", pod["metadata"]["name"])
    await world.says("finetunejobs", "plato-1", "Reconciling", reason="Held", message=QUEUE_LABEL)

    async def is_left_alone() -> None:
        assert (await world.get("jobs", job_name))["spec"]["suspend"] is True

    await throughout(is_left_alone, seconds=2)

    labels = {"metadata": {"labels": {QUEUE_LABEL: "gpus"}}}
    await world.client.merge_patch("finetunejobs", world.namespace, "plato-1", labels)
    await world.says("finetunejobs", "plato-1", "Reconciling", reason="Queued", message="LocalQueue gpus")
    assert (await world.get("jobs", job_name))["metadata"]["labels"][QUEUE_LABEL] == "gpus"
    await kueue.admit()
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    await world.kubelet.train(again)
    await world.reaches("finetunejobs", "plato-1", phase="Training")


async def test_a_failed_job_whose_time_to_live_is_over_is_not_trained_again(shared_world: World) -> None:
    """The Job is told that time only at its end; then Kubernetes removes it."""
    training, pod = await shared_world.train("mortal", ttlSecondsAfterFinished=60)
    name = training["status"]["jobName"]
    assert "ttlSecondsAfterFinished" not in (await shared_world.get("jobs", name))["spec"]
    await shared_world.kubelet.fail(pod, TRAINER_CONTAINER, EXIT_CODES[FailureReason.INVALID_CONFIG], "")
    await shared_world.reaches("finetunejobs", "mortal", phase="Failed")

    async def is_told() -> bool:
        return (await shared_world.get("jobs", name))["spec"].get("ttlSecondsAfterFinished") == 60

    await eventually(is_told)
    over = {"spec": {"ttlSecondsAfterFinished": 0}}
    await shared_world.client.merge_patch("jobs", shared_world.namespace, name, over)
    await shared_world.gone("jobs", name)

    async def stays_failed() -> None:
        assert (await shared_world.get("finetunejobs", "mortal"))["status"]["phase"] == "Failed"
        assert await shared_world.kubelet.trainers("mortal") == []

    await throughout(stays_failed, seconds=2)


async def test_the_cost_of_a_training_whose_time_is_over_is_closed(shared_world: World) -> None:
    training, _ = await shared_world.train("late", resources=ON_GPU, activeDeadlineSeconds=3600)

    await shared_world.out_of_time(training, seconds=3)

    failed = await shared_world.reaches("finetunejobs", "late", phase="Failed")

    assert condition(failed, "Stalled")["reason"] == "DeadlineExceeded"
    (entry,) = failed["status"]["allocation"]["pods"]
    assert entry["end"] > entry["start"]
    assert "lastFailure" not in failed["status"]


async def test_a_training_goes_on_from_an_adapter_whose_version_was_deleted_meanwhile(world: World) -> None:
    await world.create(model_version("plato-v1", serving=None))
    await world.reaches("modelversions", "plato-v1", state="Ready")
    body = fine_tune_job(initFrom={"modelVersion": "plato-v1"})
    body["metadata"]["labels"] = {QUEUE_LABEL: "gpus"}
    await world.create(body)
    first = await world.reaches("finetunejobs", "plato-1", phase="Queued")
    begun = first["status"]["initFrom"]
    assert begun["modelVersion"] == "plato-v1"
    job = await world.get("jobs", first["status"]["jobName"])

    await world.edit("finetunejobs", "plato-1", suspend=True)
    await world.reaches("finetunejobs", "plato-1", phase="Suspended")
    await world.gone("jobs", job["metadata"]["name"])
    await world.delete("modelversions", "plato-v1")
    await world.gone("modelversions", "plato-v1")

    await world.edit("finetunejobs", "plato-1", suspend=False)
    await world.reaches("finetunejobs", "plato-1", phase="Queued", initFrom=begun)
    again = await world.get("jobs", job["metadata"]["name"])
    assert again["spec"]["template"]["spec"]["containers"] == job["spec"]["template"]["spec"]["containers"]


async def test_a_job_that_a_finalizer_holds_is_not_deleted_again_and_again(world: World) -> None:
    created = await world.create(fine_tune_job())
    pending = await world.reaches("finetunejobs", created["metadata"]["name"], phase="Pending")
    name = pending["status"]["jobName"]

    async def hold(*finalizers: str) -> None:
        body = {"metadata": {"finalizers": list(finalizers)}}
        await world.client.merge_patch("jobs", world.namespace, name, body)

    await hold("finetune.dev/held-by-a-test")
    await world.edit("finetunejobs", "plato-1", cancel=True)

    async def is_going() -> bool:
        return "deletionTimestamp" in (await world.get("jobs", name))["metadata"]

    await eventually(is_going)
    await world.says("finetunejobs", "plato-1", "Reconciling", reason="Cancelling")
    mark = world.audit.end()

    async def is_left_alone() -> None:
        assert len(world.audit.writes(world.namespace, mark)) < 5

    await throughout(is_left_alone, seconds=3)
    await hold()
    await world.gone("jobs", name)
    await world.reaches("finetunejobs", "plato-1", phase="Cancelled")
