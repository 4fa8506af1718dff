"""Changed parameters, failing engines and who did what, on a real API server with a real Deployment controller."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.control_plane import ControlPlane
from tests.cluster.end_state import KUBERNETES_CONFIG_MAP, end_state
from tests.cluster.engine_server import EngineServer
from tests.cluster.fault_proxy import CrashPoint
from tests.cluster.samples import Manifest, model_version
from tests.cluster.test_resilience import mortal_world
from tests.cluster.world import World, condition
from tests.waiting import eventually, throughout

CHANGED = {"maxModelLen": 512}
HASTY = {"maxModelLen": 512, "progressDeadlineSeconds": 2}
LIVES = 3


async def test_changed_parameters_move_a_version_only_when_its_new_engine_answers(world: World) -> None:
    old, first = await live(world)
    mark = world.audit.end()

    async with answering(world):
        await world.edit("modelversions", "plato-v1", serving=CHANGED)
        moving = await world.says("modelversions", "plato-v1", "Reconciling", status="True", reason="EngineStarting")
        assert moving["message"] == "no engine pod is ready yet"
        after = await next_engine(world)
        new = await start(world, after)
        await world.reaches("modelversions", "plato-v1", state="Deployed", engine=after, replicas="1/1")
        for plural in ("deployments", "services", "configmaps"):
            await world.gone(plural, first)

    moved = await world.get("modelversions", "plato-v1")
    assert "nextEngine" not in moved["status"]
    assert condition(moved, "Reconciling") == {}
    assert [entry["state"] for entry in moved["status"]["history"]] == ["Deployed"]
    assert new.probed == {"plato-v1"}
    assert old.calls["/v1/unload_lora_adapter"] == 0
    writes = world.audit.writes(world.namespace, mark)
    rerouted = [n for n, write in enumerate(writes) if ((write.body or {}).get("status") or {}).get("engine") == after]
    removed = [n for n, write in enumerate(writes) if (write.verb, write.resource) == ("delete", "deployments")]
    assert rerouted[0] < removed[0], "the route moves first"


async def test_killed_after_any_write_of_a_move_the_operator_ends_it_and_the_version_answers_all_the_while(
    control_plane: ControlPlane,
) -> None:
    async with mortal_world(control_plane, "moving", ()) as (undisturbed, proxy):
        expected = await _move(undisturbed)
        points = [point for point in proxy.writes if not point.write.endswith(" events")]

    async def mortal_move(number: int) -> list[CrashPoint]:
        async with mortal_world(control_plane, f"moving-{number}", points[number::LIVES]) as (world, proxy):
            assert await _move(world) == expected, f"after crashes at {', '.join(map(str, proxy.crashed_at))}"
            return proxy.crashed_at

    passed = [point for crashes in await asyncio.gather(*map(mortal_move, range(LIVES))) for point in crashes]

    print(f"{len(passed)} crash points passed: {', '.join(map(str, passed))}")
    assert {point.write for point in passed} == {point.write for point in points}
    assert "DELETE deployments" in {point.write for point in passed}


async def test_a_new_engine_that_is_not_ready_in_time_leaves_the_old_oneanswering(world: World) -> None:
    _, first = await live(world)

    async with answering(world):
        await world.edit("modelversions", "plato-v1", serving=HASTY)
        late = await world.says("modelversions", "plato-v1", "Stalled", reason="ProgressDeadlineExceeded")
        failed = await next_engine(world)
        assert f"engine {failed} was not ready within progressDeadlineSeconds (2 s)" in late["message"]
        kept = await world.reaches("modelversions", "plato-v1", state="Deployed", engine=first)
        assert kept["status"]["history"][-1]["who"] == "finetune-operator"
        assert "plato-v1 goes on answering as before" in kept["status"]["history"][-1]["why"]

        await world.edit("modelversions", "plato-v1", serving={"maxModelLen": None})
        await world.gone("deployments", failed)
        back = await world.reaches("modelversions", "plato-v1", state="Deployed", engine=first, nextEngine=None)

    assert condition(back, "Stalled") == {}


async def test_a_late_engine_is_moved_to_all_the_same(world: World) -> None:
    _, first = await live(world)
    await world.edit("modelversions", "plato-v1", serving=HASTY)
    await world.says("modelversions", "plato-v1", "Stalled", reason="ProgressDeadlineExceeded")

    late = await next_engine(world)
    await start(world, late)

    arrived = await world.reaches("modelversions", "plato-v1", state="Deployed", engine=late)
    assert condition(arrived, "Stalled") == {}
    await world.gone("deployments", first)


async def test_a_pinned_version_whose_engine_fails_leaves_the_last_good_onelive(world: World) -> None:
    await live(world)
    await world.create(model_version("plato-v2", serving=HASTY, state="Deployed"))

    failed = await world.reaches("modelversions", "plato-v2", state="Failed")
    assert condition(failed, "Stalled")["reason"] == "ProgressDeadlineExceeded"
    (entry,) = failed["status"]["history"]
    assert entry["state"] == "Failed"
    assert entry["why"].startswith("plato-v1 goes on answering: engine ")
    await world.reaches("modelversions", "plato-v1", state="Deployed")

    await start(world, failed["status"]["engine"])
    await world.reaches("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Ready")


async def test_when_the_engine_of_the_active_version_is_lost_the_last_good_one_takes_over(world: World) -> None:
    await live(world)
    await world.create(model_version("plato-v2", serving=CHANGED, promotion="Always"))
    await world.start_engine("plato-v2")
    await world.reaches("modelversions", "plato-v2", state="Deployed")
    await world.reaches("modelversions", "plato-v1", state="Ready")

    engine = await world.engine_of("plato-v2")
    (pod,) = await world.kubelet.engine_pods(engine)
    await world.kubelet.lose(pod)

    good = await world.reaches("modelversions", "plato-v1", state="Deployed")
    entry = good["status"]["history"][-1]
    assert entry["who"] == "finetune-operator"
    assert entry["why"].startswith("plato-v2 is not loaded: ")
    lost = await world.reaches("modelversions", "plato-v2", state="Pending")
    assert "plato-v1 is active, since this one is not loaded" in lost["status"]["history"][-1]["why"]
    assert "failedOverAt" in lost["status"]
    await start(world, engine)
    await world.reaches("modelversions", "plato-v2", state="Deployed", failedOverAt=None)
    await world.reaches("modelversions", "plato-v1", state="Ready")


async def test_history_tells_who_has_set_the_state(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")

    for name in ("plato-v1", "plato-v2"):
        await world.plane.kubectl(
            *("patch", "modelver", name, "-n", world.namespace, "--type", "merge"),
            *("--patch", '{"spec": {"state": "Deployed"}}', "--field-manager", f"hand-of-{name}"),
        )
        await world.reaches("modelversions", name, state="Deployed")

    replaced = await world.reaches("modelversions", "plato-v1", state="Ready")
    assert [(entry["who"], entry["why"]) for entry in replaced["status"]["history"]] == [
        ("hand-of-plato-v1", "spec.state is Deployed"),
        ("hand-of-plato-v2", "plato-v2 is active"),
    ]


async def test_what_an_engine_evicted_while_the_operator_was_away_is_loaded_again(world: World) -> None:
    server = await world.serve("plato-v1", "plato-v2")
    await world.operator.kill()
    server.loaded.pop("plato-v2")

    await world.operator.start()

    await eventually(lambda: server.loaded.keys() == {"plato-v1", "plato-v2"})
    await world.says("modelversions", "plato-v2", "Loaded", status="True")


async def test_the_registry_is_exported_and_restored_by_kubectl_apply(world: World) -> None:
    await world.serve("plato-v1", "plato-v2")
    await world.edit("modelversions", "plato-v1", promotion="Always")
    before = await world.reaches("modelversions", "plato-v1", state="Deployed")
    names, engine = await world.names("modelversions"), await world.engine_of("plato-v1")

    exported = await _export(world, "--pin-active")
    for name in names:
        await world.delete("modelversions", name)
        await world.gone("modelversions", name)
    await world.gone("deployments", engine)
    await world.plane.kubectl("apply", "-f", "-", stdin=exported)

    assert await world.names("modelversions") == names
    restored = await world.get("modelversions", "plato-v1")
    assert restored["spec"] == before["spec"] | {"state": "Deployed"}
    await world.start_engine("plato-v1")
    await world.reaches("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Ready")


async def live(world: World, **spec: object) -> tuple[EngineServer, str]:
    """An active version, the server that answers for it, and its engine."""
    await world.create(model_version("plato-v1", promotion="Always", **spec))
    server = await world.start_engine("plato-v1")
    await world.reaches("modelversions", "plato-v1", 60, state="Deployed")
    return server, await world.engine_of("plato-v1")


async def _move(world: World) -> Manifest:
    """An active version whose parameters are changed; the same in every run."""
    await live(world)
    async with answering(world):
        await world.edit("modelversions", "plato-v1", serving=CHANGED)
        after = await next_engine(world)
        await start(world, after)
        await world.reaches("modelversions", "plato-v1", 60, state="Deployed", engine=after)
        await eventually(lambda: _is_alone(world, after), 60)
    await world.settled()
    return await end_state(world)


async def next_engine(world: World) -> str:
    """The engine that the version is being moved to, once it is made."""

    async def made() -> str:
        name = (await world.get("modelversions", "plato-v1"))["status"].get("nextEngine", "none-yet")
        await world.get("deployments", name)
        return str(name)

    return await eventually(made, 60)


async def start(world: World, engine: str) -> EngineServer:
    async def the_only_pod() -> Manifest:
        pods = await world.kubelet.engine_pods(engine)
        assert len(pods) == 1
        return pods[0]

    return await world.kubelet.start_engine(await eventually(the_only_pod, 60))


async def _is_alone(world: World, engine: str) -> bool:
    """Without what the garbage collector takes after the last pod of the former one."""
    config_maps = [name for name in await world.names("configmaps") if name != KUBERNETES_CONFIG_MAP]
    services, deployments = await world.names("services"), await world.names("deployments")
    return deployments == services == config_maps == [engine] and len(await world.names("pods")) == 1


@asynccontextmanager
async def answering(world: World) -> AsyncIterator[None]:
    """At each moment plato-v1 is live, and the engine that routes lead to has it."""
    ended = asyncio.Event()

    async def watch() -> None:
        while not ended.is_set():
            await throughout(lambda: _answers(world), seconds=0.1)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        ended.set()
    await watching


async def _answers(world: World) -> None:
    status = (await world.get("modelversions", "plato-v1"))["status"]
    assert status["state"] == "Deployed"
    assert condition({"status": status}, "Loaded")["status"] == "True"
    pods = await world.kubelet.engine_pods(status["engine"])
    if (await world.get("modelversions", "plato-v1"))["status"]["engine"] != status["engine"]:
        return  # It has moved in between, and its former engine may be gone.
    servers = [world.kubelet.engines[pod["metadata"]["uid"]] for pod in pods]
    assert ["plato-v1" in server.loaded for server in servers] == [True]


async def _export(world: World, *arguments: str) -> str:
    command = (sys.executable, "-m", "finetune_operator", "registry", "export", "-n", world.namespace, *arguments)
    environment = {**os.environ, "KUBECONFIG": str(world.plane.operator_kubeconfig())}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()
