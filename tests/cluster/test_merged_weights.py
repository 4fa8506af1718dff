"""A version by its merged weights, on a real API server: moved there and back, and refused by its server."""

from finetune_operator.contract.artifacts import WeightsRefused
from tests.cluster.samples import DIGEST, OTHER_DIGEST
from tests.cluster.test_rollout import answering, live, next_engine, start
from tests.cluster.world import World, condition

MERGEABLE = {"artifact": {"mergedDigest": OTHER_DIGEST}}
MERGED, AS_ADAPTER = {"mergedWeights": True}, {"mergedWeights": False}


async def test_a_version_moves_to_its_merged_weights_and_back(world: World) -> None:
    _, adapters = await live(world, **MERGEABLE)

    async with answering(world):
        await world.edit("modelversions", "plato-v1", serving=MERGED)
        merged = await next_engine(world)
        told = await world.kubelet.merged_weights(merged)
        server = await start(world, merged)
        await world.reaches("modelversions", "plato-v1", state="Deployed", engine=merged, replicas="1/1")
        await world.gone("deployments", adapters)
        await world.edit("modelversions", "plato-v1", serving=AS_ADAPTER)
        assert await next_engine(world) == adapters
        await start(world, adapters)
        await world.reaches("modelversions", "plato-v1", state="Deployed", engine=adapters, replicas="1/1")
        for plural in ("deployments", "services", "configmaps"):
            await world.gone(plural, merged)

    assert merged.startswith("vllm-merged-")
    assert (told.name, told.digest, told.adapter_digest) == ("plato-v1", OTHER_DIGEST, DIGEST)
    assert server.probed == {"plato-v1"}
    assert not {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"} & server.calls.keys()
    back = await world.get("modelversions", "plato-v1")
    assert [entry["state"] for entry in back["status"]["history"]] == ["Deployed"]


async def test_weights_that_their_server_refuses_leave_the_version_to_its_adapter(world: World) -> None:
    _, adapters = await live(world, **MERGEABLE)

    async with answering(world):
        await world.edit("modelversions", "plato-v1", serving=MERGED)
        merged = await next_engine(world)
        (pod,) = await world.kubelet.engine_pods(merged)
        said = WeightsRefused(reason="DigestMismatch", message="the files changed: ask a new FineTuneJob")
        await world.kubelet.crash_engine(pod, 49, said.model_dump_json(by_alias=True))
        stalled = await world.says("modelversions", "plato-v1", "Stalled", reason="DigestMismatch")
        assert stalled["message"] == said.message
        await world.gone("deployments", merged)
        kept = await world.reaches("modelversions", "plato-v1", state="Deployed", engine=adapters)
        assert condition(kept, "Stalled")["reason"] == "DigestMismatch"
