"""The life of a FineTuneJob against a real API server and Job controller, with the kubelet's part played."""

import asyncio
import itertools
from datetime import datetime, timedelta

from finetune_operator.contract.places import TRAINER_CONTAINER
from finetune_operator.manifests.training import training_job_name
from finetune_operator.resources.finetunejob import FineTuneJob
from tests.cluster.samples import DIGEST, OTHER_DIGEST, fine_tune_job
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout


async def test_a_job_lives_from_its_creation_to_its_model_version(world: World) -> None:
    made = await world.create(fine_tune_job(serving={"replicas": 1}))
    started = await world.reaches("finetunejobs", "plato-1", phase="Pending", attempts=1)
    job = await world.get("jobs", started["status"]["jobName"])
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]
    pod = await world.kubelet.trainer("plato-1")

    await world.kubelet.prepare(pod)
    await world.reaches("finetunejobs", "plato-1", phase="Preparing")
    await world.kubelet.train(pod)
    training = await world.reaches(
        "finetunejobs", "plato-1", phase="Training", dataset={"rows": 120, "testRows": 12, "digest": OTHER_DIGEST}
    )
    assert condition(training, "DatasetReady")["status"] == "True"
    assert condition(training, "Reconciling")["status"] == "True"
    world.api.report(made, 402)
    await world.reaches(
        "finetunejobs",
        "plato-1",
        progress={
            "summary": "67%",
            "percent": 67,
            "step": 402,
            "totalSteps": 600,
            "epoch": "2.0",
            "totalEpochs": "3.0",
            "loss": "0.234",
            "bestLoss": "0.189",
            "etaSeconds": 1200,
            "eta": "20m",
        },
    )
    await world.kubelet.succeed(pod)

    done = await world.reaches("finetunejobs", "plato-1", phase="Succeeded", modelVersion="plato-v1")
    for type_ in ("DatasetReady", "Trained", "Published", "Succeeded", "Ready"):
        assert condition(done, type_)["status"] == "True", type_
    assert condition(done, "Reconciling") == {}
    assert done["status"]["result"] == {
        "finalLoss": "0.21",
        "testLoss": "0.4",
        "baseTestLoss": "1.2",
        "trainSeconds": 42,
    }
    assert done["status"]["observedGeneration"] == done["metadata"]["generation"]
    version = await world.get("modelversions", "plato-v1")
    uid = made["metadata"]["uid"]
    assert "ownerReferences" not in version["metadata"]
    assert version["spec"]["artifact"] == {
        "uri": f"volume://artifacts/{world.namespace}/plato/{uid}/adapter",
        "digest": DIGEST,
    }
    assert version["spec"]["lineage"]["jobUid"] == uid
    assert version["spec"]["lineage"]["fineTuneJob"] == "plato-1"
    assert version["spec"]["lineage"]["datasetDigest"] == OTHER_DIGEST
    assert version["spec"]["lineage"]["hyperparameters"]["loraR"] == "16"
    assert version["spec"]["baseModel"] == made["spec"]["baseModel"]
    for reason in ("JobCreated", "TrainingStarted", "Published"):
        assert len(await world.told(reason, about=uid)) == 1
    events, _ = await world.client.list("events", world.namespace)
    assert sum(event["involvedObject"]["uid"] == uid for event in events) == 3


async def test_progress_is_written_at_most_once_in_ten_seconds(world: World) -> None:
    job, _ = await world.train()
    mark = world.audit.end()
    steps = itertools.count(1)

    def two_writes() -> list[datetime]:
        world.api.report(job, next(steps))
        written = [request.body for request in world.audit.writes(world.namespace, mark) if request.is_progress]
        assert len(written) >= 2
        return [datetime.fromisoformat(body["status"]["progress"]["lastUpdateTime"]) for body in written]

    first, second = await eventually(two_writes, timeout_seconds=30)

    assert second - first >= timedelta(seconds=10)


async def test_suspending_frees_the_pod_and_resuming_makes_another(world: World) -> None:
    training, pod = await world.train()
    job_name = training["status"]["jobName"]
    before = await world.get("jobs", job_name)

    await world.edit("finetunejobs", "plato-1", suspend=True)
    suspended = await world.reaches("finetunejobs", "plato-1", phase="Suspended")
    await world.gone("pods", pod["metadata"]["name"])
    assert condition(suspended, "Suspended")["status"] == "True"
    assert "spec.suspend" in suspended["status"]["message"]
    assert (await world.get("jobs", job_name))["spec"]["suspend"] is True

    await world.edit("finetunejobs", "plato-1", suspend=False)
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    await world.kubelet.train(again)
    resumed = await world.reaches("finetunejobs", "plato-1", phase="Training")
    assert condition(resumed, "Suspended") == {}
    assert (await world.get("jobs", job_name))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_crash_and_a_drained_node_are_tried_again_in_the_same_job(world: World) -> None:
    training, crashing = await world.train("crashing")
    await world.train("drained")
    drained = await world.kubelet.trainer("drained")
    await world.kubelet.fail(crashing, TRAINER_CONTAINER, 1, "Segmentation fault")
    await world.kubelet.disrupt(drained)
    crash = "trainer exited with 1: Segmentation fault"
    words = f"will be tried again: {crash}: it is tried up to four times; see the pod's log"
    await world.reaches("finetunejobs", "crashing", phase="Pending", message=words)

    for name, ended in (("crashing", crashing), ("drained", drained)):
        again = await world.kubelet.trainer(name, other_than=ended["metadata"]["uid"])
        await world.kubelet.train(again)
        await world.kubelet.succeed(again)

    await world.reaches("finetunejobs", "drained", phase="Succeeded", attempts=2)
    done = await world.reaches("finetunejobs", "crashing", phase="Succeeded", attempts=2)
    assert done["status"]["jobName"] == training["status"]["jobName"]


async def test_deleting_a_job_cancels_its_training_and_keeps_what_it_made(world: World) -> None:
    _, finished = await world.train("first")
    await world.kubelet.succeed(finished)
    await world.reaches("finetunejobs", "first", phase="Succeeded")
    training, pod = await world.train("second")

    await world.delete("finetunejobs", "first")
    await world.delete("finetunejobs", "second")

    await world.gone("jobs", training["status"]["jobName"])
    await world.gone("pods", pod["metadata"]["name"])
    await eventually(lambda: _empty(world, "jobs", "pods"))
    assert await world.names("modelversions") == ["plato-v1"]


async def test_an_outcome_is_found_when_the_operator_was_away(world: World) -> None:
    _, pod = await world.train()
    await world.operator.kill()

    await world.kubelet.succeed(pod)
    await world.operator.start()

    await world.reaches("finetunejobs", "plato-1", phase="Succeeded", modelVersion="plato-v1")


async def test_an_outcome_whose_pod_is_gone_is_asked_for_again(world: World) -> None:
    """The trainer left it on the volume and tells it again when it is started anew."""
    training, pod = await world.train()
    first = await world.get("jobs", training["status"]["jobName"])
    await world.operator.kill()
    await world.kubelet.succeed(pod)
    await eventually(lambda: _is_complete(world, first["metadata"]["name"]))
    await world.kubelet.lose(pod)
    await world.gone("pods", pod["metadata"]["name"])

    await world.operator.start()
    again = await world.kubelet.trainer("plato-1", other_than=pod["metadata"]["uid"])
    second = await world.get("jobs", first["metadata"]["name"])
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await world.kubelet.succeed(again)

    await world.reaches("finetunejobs", "plato-1", phase="Succeeded", modelVersion="plato-v1")
    assert await world.names("modelversions") == ["plato-v1"]


async def test_without_the_api_the_training_succeeds_and_progress_returns_with_it(world: World) -> None:
    await world.api.stop()
    job, pod = await world.train()
    await throughout(lambda: _has_no_progress(world), seconds=2)

    world.api.report(job, 300)
    await world.api.start()
    await world.reaches("finetunejobs", "plato-1", progress={"percent": 50})

    await world.api.stop()
    await world.kubelet.succeed(pod)
    await world.reaches("finetunejobs", "plato-1", phase="Succeeded", progress={"percent": 100, "bestLoss": "0.19"})


async def test_a_job_that_is_created_anew_under_its_old_name_trains_anew(world: World) -> None:
    old, old_pod = await world.train()
    await world.delete("finetunejobs", "plato-1")

    await world.create(fine_tune_job("plato-1"))
    pod = await world.kubelet.trainer("plato-1", other_than=old_pod["metadata"]["uid"])
    new = await world.reaches("finetunejobs", "plato-1", phase="Pending")
    assert new["status"]["jobName"] != old["status"]["jobName"]
    await world.gone("jobs", old["status"]["jobName"])
    await world.kubelet.train(pod)
    await world.kubelet.succeed(pod)

    await world.reaches("finetunejobs", "plato-1", phase="Succeeded", modelVersion="plato-v1")


async def test_a_foreign_job_of_our_name_is_left_alone_and_told(resting_world: World) -> None:
    world = resting_world
    made = await world.create(fine_tune_job())
    name = training_job_name(FineTuneJob.parse(made))
    foreign = await world.create(_foreign_job(name))

    await world.operator.start()

    await world.says(
        "finetunejobs", "plato-1", "Stalled", status="True", reason="NameTaken", message="delete that Job, or give"
    )
    assert (await world.get("jobs", name))["metadata"]["uid"] == foreign["metadata"]["uid"]


async def test_two_jobs_of_one_model_that_end_together_make_two_versions(world: World) -> None:
    trained = [await world.train(name) for name in ("left", "right")]

    await asyncio.gather(*(world.kubelet.succeed(pod) for _, pod in trained))

    ended = [await world.reaches("finetunejobs", name, phase="Succeeded") for name in ("left", "right")]
    assert {job["status"]["modelVersion"] for job in ended} == {"plato-v1", "plato-v2"}
    for job in ended:
        version = await world.get("modelversions", job["status"]["modelVersion"])
        assert version["spec"]["lineage"]["jobUid"] == job["metadata"]["uid"]


async def _empty(world: World, *plurals: str) -> bool:
    found = [name for plural in plurals for name in await world.names(plural)]
    assert found == []
    return True


async def _is_complete(world: World, job: str) -> bool:
    conditions = (await world.get("jobs", job))["status"].get("conditions", [])
    return any(entry["type"] == "Complete" and entry["status"] == "True" for entry in conditions)


async def _has_no_progress(world: World) -> None:
    status = (await world.get("finetunejobs", "plato-1"))["status"]
    assert status["phase"] == "Training"
    assert "progress" not in status


def _foreign_job(name: str) -> dict[str, object]:
    container = {"name": "c", "image": "localhost/foreign:test"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
