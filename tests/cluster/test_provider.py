"""Backend OpenAI from the FineTuneJob to its ModelVersion: real API server, operator, training process and HTTP server.

Only the kubelet is simulated: the training process is started as the pod describes it, with the rights of the chart's
ServiceAccount, and its termination message is what the kubelet reports.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from finetune_operator.contract.places import CONFIG_ANNOTATION, JOB_VARIABLE, PROVIDER_KEY_VARIABLE
from finetune_operator.contract.training import TrainingConfig
from tests.cluster.samples import Manifest, fine_tune_job
from tests.cluster.world import World, condition
from tests.unit.providers.openai_server import API_KEY, OpenAIServer
from tests.unit.providers.pods import MODEL, RemoteJobDirectory
from tests.waiting import eventually


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIServer]:
    server = OpenAIServer()
    await server.start()
    yield server
    await server.stop()


def at(provider: OpenAIServer) -> Manifest:
    """Spec of a job at this provider."""
    return {
        "backend": "OpenAI",
        "openai": {"secretRef": {"name": "openai", "key": "api-key"}, "baseUrl": provider.base_url, "suffix": "plato"},
        "baseModel": {"name": "gpt-4.1-mini", "source": {"volume": None, "openai": {"model": MODEL}}},
    }


async def started(world: World, directory: Path, provider: OpenAIServer) -> tuple[Manifest, RemoteJobDirectory]:
    """A FineTuneJob whose dataset is prepared: its pod, and where the process works."""
    await world.create(fine_tune_job("remote", **at(provider)))
    pod = await world.kubelet.trainer("remote")
    await world.kubelet.train(pod)
    await world.reaches("finetunejobs", "remote", phase="Training")
    (container,) = pod["spec"]["containers"]
    assert container["args"][0] == "train-remote"
    variables = {variable["name"]: variable.get("valueFrom", {}) for variable in container["env"]}
    assert variables[PROVIDER_KEY_VARIABLE] == {"secretKeyRef": {"name": "openai", "key": "api-key"}}
    path = variables[JOB_VARIABLE]["fieldRef"]["fieldPath"]
    workload = pod["metadata"]["labels"][path.removeprefix("metadata.labels['").removesuffix("']")]
    config = TrainingConfig.model_validate_json(pod["metadata"]["annotations"][CONFIG_ANNOTATION])
    assert config.remote
    quick = config.remote.model_copy(update={"poll_seconds": 0.05})
    kubeconfig = await world.plane.account_kubeconfig(world.namespace, pod["spec"]["serviceAccountName"])
    job = RemoteJobDirectory(
        directory,
        config.model_copy(update={"remote": quick, "progress_url": None}),
        settings={"KUBECONFIG": str(kubeconfig), JOB_VARIABLE: workload},
    )
    return pod, job


async def test_a_job_at_a_provider_becomes_a_registered_version(
    world: World, provider: OpenAIServer, tmp_path: Path
) -> None:
    pod, job = await started(world, tmp_path, provider)

    process = await job.start()
    ending = await process.ended()

    assert ending.exit_code == 0, process.log
    await world.kubelet.succeed(pod, ending.result)
    done = await world.reaches("finetunejobs", "remote", phase="Succeeded", modelVersion="plato-v1")
    assert done["status"]["result"]["finalLoss"] == "1"
    assert condition(done, "CostKnown")["reason"] == "NoPrice"
    assert MODEL in condition(done, "CostKnown")["message"]
    version = await world.reaches("modelversions", "plato-v1", state="Ready")
    (model,) = provider.models
    assert version["spec"]["artifact"] == {"uri": f"openai://{model}", "baseUrl": provider.base_url}
    assert version["spec"]["baseModel"]["source"] == {"openai": {"model": MODEL}}
    assert version["spec"]["lineage"]["hyperparameters"] == {
        "backend": "OpenAI",
        "batchSize": "4",
        "epochs": "3",
        "learningRateMultiplier": "auto",
        "method": "SFT",
        "providerJob": next(iter(provider.jobs)),
        "seed": "42",
    }
    assert condition(version, "Ready")["reason"] == "Registered"
    assert model in condition(version, "Ready")["message"]
    assert await world.names("deployments") == []
    written = [str(request.body) for request in world.audit.writes(world.namespace)]
    assert written
    assert not [body for body in written if API_KEY in body]


async def test_a_drained_pod_lets_the_provider_train_on(world: World, provider: OpenAIServer, tmp_path: Path) -> None:
    provider.held = True
    _, job = await started(world, tmp_path, provider)
    process = await job.start()
    await eventually(lambda: provider.asked("GET", "/events"))

    process.told_to_leave()

    assert (await process.ended()).exit_code == 143
    assert "goes on at the provider" in process.log
    assert [made["status"] for made in provider.jobs.values()] == ["validating_files"]


@pytest.mark.parametrize("how", ["deleted", "cancelled"])
async def test_a_job_that_nobody_waits_for_is_cancelled_at_the_provider(
    world: World, provider: OpenAIServer, tmp_path: Path, how: str
) -> None:
    provider.held = True
    _, job = await started(world, tmp_path, provider)
    process = await job.start()
    await eventually(lambda: provider.asked("GET", "/events"))

    if how == "deleted":
        await world.delete("finetunejobs", "remote")
        await world.gone("finetunejobs", "remote")
    else:
        await world.edit("finetunejobs", "remote", cancel=True)
    process.told_to_leave()

    assert (await process.ended()).exit_code == 143
    assert [made["status"] for made in provider.jobs.values()] == ["cancelled"], process.log
    assert f"the FineTuneJob is {how}" in process.log


@pytest.mark.parametrize("how", ["deleted", "cancelled"])
async def test_what_is_suspended_is_cancelled_at_the_provider_by_a_job_of_its_own(
    world: World, provider: OpenAIServer, tmp_path: Path, how: str
) -> None:
    """Its pod is gone, and the provider trains on."""
    provider.held = True
    pod, job = await started(world, tmp_path, provider)
    process = await job.start()
    await eventually(lambda: provider.asked("GET", "/events"))
    await world.edit("finetunejobs", "remote", suspend=True)
    process.told_to_leave()
    assert (await process.ended()).exit_code == 143
    await world.gone("pods", pod["metadata"]["name"])
    await world.reaches("finetunejobs", "remote", phase="Suspended")
    assert [made["status"] for made in provider.jobs.values()] == ["validating_files"]

    if how == "deleted":
        await world.delete("finetunejobs", "remote")
        await world.gone("finetunejobs", "remote")
    else:
        await world.edit("finetunejobs", "remote", cancel=True)

    cancelling = await eventually(lambda: _cancelling_pod(world))
    (container,) = cancelling["spec"]["containers"]
    assert container["args"][:2] == ["train-remote", "--cancel"]
    told = TrainingConfig.model_validate_json(cancelling["metadata"]["annotations"][CONFIG_ANNOTATION])
    assert told.job == job.config.job
    assert (await job.run(cancel=True)).exit_code == 0
    assert [made["status"] for made in provider.jobs.values()] == ["cancelled"]
    if how == "cancelled":
        await world.says("finetunejobs", "remote", "Reconciling", reason="CancellingAtProvider")
        await world.kubelet.end_cancellation(cancelling)
        done = await world.reaches("finetunejobs", "remote", phase="Cancelled")
        assert "remote strays" not in done["status"]["message"]


async def _cancelling_pod(world: World) -> Manifest | None:
    pods, _ = await world.client.list("pods", world.namespace)
    return next((pod for pod in pods if "--cancel" in pod["spec"]["containers"][0]["args"]), None)
