"""Versions, the engines that they share, and which of them is active."""

from dataclasses import dataclass

import pytest

from finetune_operator.contract.adapters import AdapterList
from finetune_operator.core.artifacts import Refusal as Reason
from tests.cluster.engine_server import Refusal
from tests.cluster.samples import DIGEST, Manifest, base_model, model_version
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout


async def test_a_version_gets_an_engine_and_is_loaded_before_it_is_ready(world: World) -> None:
    await world.create(model_version("plato-v1", serving={"replicas": 1}))
    engine = await world.engine_of("plato-v1")
    await world.says("modelversions", "plato-v1", "Loaded", status="False", reason="EngineStarting")
    assert await world.kubelet.adapter_list(engine) == AdapterList.model_validate(
        {
            "baseModelName": "tiny",
            "maxLoraRank": 16,
            "adapters": [{"name": "plato-v1", "path": "/artifacts/default/plato/1/adapter", "digest": DIGEST}],
        }
    )
    service = await world.get("services", engine)
    assert service["spec"]["ports"][0]["port"] == 8000

    server = await world.start_engine("plato-v1")

    ready = await world.reaches(
        "modelversions",
        "plato-v1",
        state="Ready",
        replicas="1/1",
        readyReplicas=1,
        engine=engine,
        servedName="plato-v1",
        selector=f"finetune.dev/engine={engine}",
    )
    assert condition(ready, "Ready")["status"] == "True"
    assert condition(ready, "Reconciling") == {}
    assert server.probed == {"plato-v1"}
    assert server.calls["/v1/load_lora_adapter"] == 0, "it was in the pod's list from the start"
    assert "promotedAt" not in ready["status"]


async def test_a_second_version_is_loaded_into_the_running_pod(world: World) -> None:
    server = await world.serve("plato-v1")
    engine = await world.engine_of("plato-v1")
    before, pods_before = await world.get("deployments", engine), await world.kubelet.engine_pods(engine)

    await world.create(model_version("plato-v2"))
    await world.says("modelversions", "plato-v2", "Loaded", status="True")

    assert await world.engine_of("plato-v2") == engine
    assert server.loaded.keys() == {"plato-v1", "plato-v2"}
    assert "plato-v2" in server.probed
    assert server.calls["/v1/load_lora_adapter"] == 1
    after, pods_after = await world.get("deployments", engine), await world.kubelet.engine_pods(engine)
    assert after["spec"]["template"] == before["spec"]["template"]
    assert after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert [pod["metadata"]["uid"] for pod in pods_after] == [pod["metadata"]["uid"] for pod in pods_before]
    listed = await world.kubelet.adapter_list(engine)
    assert [adapter.name for adapter in listed.adapters] == ["plato-v1", "plato-v2"]


@dataclass(frozen=True)
class Guarded:
    """An adapter that the server's guard refuses."""

    reason: Reason
    message: str


GUARDED = [
    Guarded(Reason.DIGEST_MISMATCH, "the files changed after they were published: train or publish the version anew"),
    Guarded(Reason.RANK_TOO_LARGE, "the adapter's rank is 64, this server's maximum is 16: raise maxLoraRank"),
    Guarded(Reason.WRONG_BASE_MODEL, "the adapter was trained on 'other': deploy the version on its own base model"),
    Guarded(Reason.FORBIDDEN_FILE, "the adapter holds 'weights.bin': remove it and publish the adapter anew"),
    Guarded(Reason.MANIFEST_MISSING, "manifest.json is missing: publish the adapter anew"),
]


@pytest.mark.parametrize("case", GUARDED, ids=lambda case: case.reason)
async def test_a_refused_adapter_stalls_its_version_alone_and_is_not_tried_again(
    shared_world: World, case: Guarded
) -> None:
    world, model = shared_world, f"model-{case.reason.lower()}"
    good, bad = f"{model}-v1", f"{model}-v2"
    server = await world.serve(good, baseModel=base_model(model))
    world.kubelet.refusals[bad] = Refusal(case.reason, case.message)

    await world.create(model_version(bad, baseModel=base_model(model)))

    stalled = await world.says("modelversions", bad, "Stalled", status="True", reason=case.reason)
    assert stalled["message"] == case.message
    failed = await world.reaches("modelversions", bad, state="Failed", message=case.message)
    assert condition(failed, "Reconciling") == {}
    calls = server.calls["/v1/load_lora_adapter"]
    await world.edit("modelversions", good, notes="something else happens")
    await world.reaches("modelversions", good, observedGeneration=2)
    assert server.calls["/v1/load_lora_adapter"] == calls == 1
    assert condition(await world.get("modelversions", good), "Loaded")["status"] == "True"


async def test_an_engine_that_fails_for_a_while_is_asked_again(world: World) -> None:
    server = await world.serve("plato-v1")
    server.failures_left = 3

    await world.create(model_version("plato-v2"))

    await world.says("modelversions", "plato-v2", "Loaded", status="True")
    assert server.calls["/v1/load_lora_adapter"] == 4


async def test_a_replaced_pod_is_ready_only_with_its_adapters(world: World) -> None:
    """Also with an adapter that its list did not have yet when it started."""
    first = await world.serve("plato-v1", "plato-v2")
    engine = await world.engine_of("plato-v1")
    (old,) = await world.kubelet.engine_pods(engine)
    await world.kubelet.lose(old)
    for name in ("plato-v1", "plato-v2"):
        await world.says("modelversions", name, "Loaded", status="False")

    (pod,) = await eventually(lambda: world.kubelet.engine_pods(engine))
    listed = await world.kubelet.adapter_list(engine)
    stale = listed.model_copy(update={"adapters": listed.adapters[:1]})
    server = await world.kubelet.start_engine(pod, stale)

    for name in ("plato-v1", "plato-v2"):
        await world.says("modelversions", name, "Loaded", status="True")
    assert server is not first
    assert server.loaded.keys() == {"plato-v1", "plato-v2"}
    assert server.calls["/v1/load_lora_adapter"] == 1


async def test_every_replica_gets_every_adapter(world: World) -> None:
    await world.create(model_version("plato-v1", serving={"replicas": 2}))
    engine = await world.engine_of("plato-v1")
    first, second = await eventually(lambda: _pods(world, engine, 2))

    one = await world.kubelet.start_engine(first)
    await world.reaches("modelversions", "plato-v1", replicas="1/2", readyReplicas=1)
    other = await world.kubelet.start_engine(second)
    await world.reaches("modelversions", "plato-v1", replicas="2/2", readyReplicas=2)
    await world.create(model_version("plato-v2", serving={"replicas": 2}))
    await world.reaches("modelversions", "plato-v2", replicas="2/2")

    assert "plato-v2" in one.loaded
    assert "plato-v2" in other.loaded


async def test_scaling_changes_the_replicas_of_the_engine_and_restarts_nothing(world: World) -> None:
    await world.serve("plato-v1")
    engine = await world.engine_of("plato-v1")
    (before,) = await world.kubelet.engine_pods(engine)

    await world.plane.kubectl("scale", "-n", world.namespace, "modelver/plato-v1", "--replicas=2")

    after = await eventually(lambda: _pods(world, engine, 2))
    assert before["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in after}
    assert await world.engine_of("plato-v1") == engine


async def test_promotion_always_deploys_a_version_as_soon_as_it_answers(world: World) -> None:
    await world.serve("plato-v1", promotion="Always")

    deployed = await world.reaches("modelversions", "plato-v1", state="Deployed")

    assert deployed["status"]["promotedAt"]
    assert [entry["state"] for entry in deployed["status"]["history"]] == ["Deployed"]
    assert deployed["status"]["history"][0]["why"] == "spec.promotion is Always"


async def test_pinning_deploys_a_version_and_unpinning_it_rolls_back(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")
    await world.edit("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Deployed")

    await world.edit("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Deployed")
    replaced = await world.reaches("modelversions", "plato-v1", state="Ready")
    assert replaced["status"]["history"][-1]["why"] == "plato-v2 is active"

    await world.edit("modelversions", "plato-v2", state="Ready")
    returned = await world.reaches("modelversions", "plato-v1", state="Deployed")
    assert [entry["state"] for entry in returned["status"]["history"]] == ["Deployed", "Ready", "Deployed"]
    await world.reaches("modelversions", "plato-v2", state="Ready")


async def test_of_two_pins_the_later_one_wins(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")
    await world.edit("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Deployed")

    await world.edit("modelversions", "plato-v1", state="Deployed")

    await world.reaches("modelversions", "plato-v1", state="Deployed")
    active = await world.reaches("modelversions", "plato-v2", state="Ready")
    assert active["status"]["history"][-1]["why"] == "plato-v1 is active"
    await throughout(lambda: _one_is_deployed(world, "plato-v1"), seconds=1)


async def test_an_archived_version_is_unloaded_and_comes_back(world: World) -> None:
    server = await world.serve("plato-v1", "plato-v2")
    engine = await world.engine_of("plato-v1")

    await world.edit("modelversions", "plato-v2", state="Archived")
    await world.reaches("modelversions", "plato-v2", state="Archived")
    await eventually(lambda: server.loaded.keys() == {"plato-v1"})
    assert [adapter.name for adapter in (await world.kubelet.adapter_list(engine)).adapters] == ["plato-v1"]

    await world.edit("modelversions", "plato-v2", state=None)
    await world.reaches("modelversions", "plato-v2", state="Ready")
    assert server.loaded.keys() == {"plato-v1", "plato-v2"}


async def test_an_engine_without_versions_is_stopped_and_started_again(world: World) -> None:
    await world.serve("plato-v1")
    engine = await world.engine_of("plato-v1")

    await world.edit("modelversions", "plato-v1", state="Archived")
    await world.gone("deployments", engine)
    await eventually(lambda: _has_no_pods(world, engine))

    await world.edit("modelversions", "plato-v1", state="Ready")
    await world.start_engine("plato-v1")
    await world.reaches("modelversions", "plato-v1", state="Ready")


async def test_the_engine_goes_with_its_last_version(world: World) -> None:
    server = await world.serve("plato-v1", "plato-v2")
    engine = await world.engine_of("plato-v1")

    await world.delete("modelversions", "plato-v1")
    await eventually(lambda: server.loaded.keys() == {"plato-v2"})
    owners = (await world.get("deployments", engine))["metadata"]["ownerReferences"]
    assert [owner["name"] for owner in owners] == ["plato-v2"]

    await world.delete("modelversions", "plato-v2")
    for plural in ("deployments", "services", "configmaps"):
        await world.gone(plural, engine)


async def test_two_base_models_have_two_engines(world: World) -> None:
    for name, base in (("plato-v1", "tiny"), ("kant-v1", "large")):
        await world.create(model_version(name, baseModel=base_model(base)))

    engines = [await world.engine_of(name) for name in ("plato-v1", "kant-v1")]

    assert len(set(engines)) == 2
    for engine, base in zip(engines, ("tiny", "large"), strict=True):
        assert (await world.kubelet.adapter_list(engine)).base_model_name == base


async def test_a_full_engine_says_so_until_there_is_room(world: World) -> None:
    server = await world.serve("plato-v1", serving={"maxLoras": 1})
    await world.edit("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Deployed")

    await world.create(model_version("plato-v2", serving={"maxLoras": 1}))
    full = await world.says("modelversions", "plato-v2", "Loaded", status="False", reason="EngineFull")
    assert "archive one, or raise spec.serving.maxLoras" in full["message"]
    assert server.loaded.keys() == {"plato-v1"}

    await world.edit("modelversions", "plato-v1", state="Archived")
    await world.says("modelversions", "plato-v2", "Loaded", status="True")
    await eventually(lambda: server.loaded.keys() == {"plato-v2"})


async def test_a_crashing_engine_says_what_it_said(world: World) -> None:
    await world.create(model_version("plato-v1"))
    engine = await world.engine_of("plato-v1")
    (pod,) = await eventually(lambda: world.kubelet.engine_pods(engine))

    await world.kubelet.crash_engine(pod, 1, "ValueError: max_model_len is too large")

    await world.says(
        "modelversions", "plato-v1", "Loaded", reason="EngineCrashing", message="ValueError: max_model_len is too large"
    )


async def test_a_version_without_serving_is_registered_only(shared_world: World) -> None:
    await shared_world.create(model_version("registered-v1", serving=None))

    registered = await shared_world.reaches("modelversions", "registered-v1", state="Ready")

    assert condition(registered, "Ready")["reason"] == "Registered"
    assert "engine" not in registered["status"]


async def _pods(world: World, engine: str, wanted: int) -> list[Manifest]:
    pods = await world.kubelet.engine_pods(engine)
    assert len(pods) == wanted
    return pods


async def _has_no_pods(world: World, engine: str) -> bool:
    return await world.kubelet.engine_pods(engine) == []


async def _one_is_deployed(world: World, name: str) -> None:
    versions, _ = await world.client.list("modelversions", world.namespace)
    assert [v["metadata"]["name"] for v in versions if v["status"]["state"] == "Deployed"] == [name]
