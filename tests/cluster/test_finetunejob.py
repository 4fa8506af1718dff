"""The life of a FineTuneJob against a real API server and Job controller, with the kubelet's part played."""

import asyncio
from dataclasses import dataclass

import pytest

from finetune_operator.contract import (
    EXIT_CODES,
    PREPARE_CONTAINER,
    TRAINER_CONTAINER,
    Failure,
    FailureReason,
)
from finetune_operator.manifests.common import JOB_NAME_LABEL
from finetune_operator.manifests.training import training_job_name
from finetune_operator.resources.finetunejob import FineTuneJob
from tests.cluster.samples import DIGEST, OTHER_DIGEST, fine_tune_job
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout

RETRY_SECONDS = 40.0
"""The Job controller waits ten seconds before it tries again."""


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
    events, _ = await world.client.list("events", world.namespace)
    reasons = [event["reason"] for event in events if event["involvedObject"]["uid"] == uid]
    assert sorted(reasons) == ["JobCreated", "Published", "TrainingStarted"]
