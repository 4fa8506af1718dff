"""From an adapter to merged weights and back: two engines of different kinds, one route that always answers."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.contract.artifacts import WeightsRefused
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import directory_in, wanted_engine
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Probe, UnloadAdapter
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import (
    Object,
    after,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
)
from tests.unit.reconcile.engines import (
    ENGINE,
    READY,
    decide,
    engine,
    engine_pod,
    loaded,
    reason_of,
    removal,
    status_of,
    world,
)
from tests.unit.reconcile.merged_cluster import Cluster

MERGED_DIGEST = "sha256:" + "b" * 64
MERGEABLE: Object = {"artifact": {"mergedDigest": MERGED_DIGEST}}
MERGED = merged(MERGEABLE, {"serving": {"mergedWeights": True}})
ADAPTER = merged(MERGEABLE, {"serving": {"mergedWeights": False}})


def name_of(version: ModelVersion) -> str:
    name = wanted_engine(version)
    assert name is not None
    return name


MERGED_ENGINE = name_of(make_version(1, MERGED))


def asking_for(version: ModelVersion, spec: Object) -> ModelVersion:
    """The version after its user has changed how it is served."""
    body = version.to_dict() | {"spec": merged(version.spec.to_dict(), spec)}
    body["metadata"] = version.metadata.to_dict() | {"generation": version.metadata.generation + 1}
    return ModelVersion.parse(body)


def merged_pod(*, name: str = "merged", probed: bool = False, ready: bool = True, **listed: str) -> EnginePod:
    """A pod that has started with the merged weights of plato-v1."""
    known = listed or {"plato-v1": directory_in(make_version(1, MERGED), MERGED_ENGINE)}
    body = pod_body(name, main={"vllm": running()}, conditions=READY if ready else ())
    return EnginePod(pod_facts(body), known if ready else None, frozenset(known) if probed else frozenset())


def test_what_its_engine_has_started_with_is_asked_for_a_token_and_never_loaded() -> None:
    version = make_version(1, MERGED)
    plan = decide(version, world(version, pods=(merged_pod(),)))
    assert plan.actions == (Probe("uid-of-merged", "10.0.0.1", "plato-v1"),)
    assert reason_of(status_of(plan)) == "Loading"
    plan = decide(version, world(version, pods=(merged_pod(probed=True),)))
    status = status_of(plan)
    assert plan.actions == ()
    assert (status.state, status.engine, status.replicas) == (State.READY, MERGED_ENGINE, "1/1")
    assert status.served_name == "plato-v1"


def test_nothing_is_unloaded_from_such_an_engine() -> None:
    version = loaded(1, MERGED, active=True)
    pod = merged_pod(**{"plato-v1": "/artifacts/elsewhere"})
    assert decide(version, world(version, pods=(pod,))).actions == (), "nor is it asked again and again"


def test_a_pod_that_does_not_tell_is_asked() -> None:
    version = make_version(1, MERGED)
    pod = replace(merged_pod(), listed=None)
    assert decide(version, world(version, pods=(pod,))).actions == (Probe("uid-of-merged", "10.0.0.1", "plato-v1"),)


def test_others_stay_in_the_engine_that_it_leaves() -> None:
    first, second = asking_for(loaded(1, ADAPTER, active=True), MERGED), loaded(2)
    pods = (engine_pod("plato-v1", "plato-v2"),)
    plan = decide(second, replace(world(second, pods=pods), versions=(first, second)))
    assert not any(isinstance(action, UnloadAdapter) for action in plan.actions)
    arrived = loaded(1, MERGED, active=True)
    plan = decide(second, replace(world(second, pods=pods), versions=(arrived, second)))
    assert UnloadAdapter("uid-of-pod-1", "10.0.0.1", "plato-v1") in plan.actions


def refusing_pod(reason: str = "DigestMismatch", **options: Any) -> EnginePod:
    said = WeightsRefused(reason=reason, message="the files changed: merge anew").model_dump_json(by_alias=True)
    body = pod_body("new", main={"vllm": terminated(49, said)}, **options)
    return EnginePod(pod_facts(body), None)


def test_weights_that_the_server_refuses_fail_the_version_by_their_reason_and_free_its_gpus() -> None:
    version = make_version(1, MERGED)
    plan = decide(version, world(version, pods=(refusing_pod(),)))
    refused = after(version, plan)
    assert (refused.status.state, reason_of(refused.status, "Stalled")) == (State.FAILED, "DigestMismatch")
    assert refused.status.message == "the files changed: merge anew"
    pod = refusing_pod()
    again = decide(refused, world(refused, pods=(pod,)))
    assert again.actions == (removal(MERGED_ENGINE, pod),)
    assert again.status == plan.status
    assert decide(refused, replace(world(refused), deployment=None)).status == plan.status


def test_a_refused_move_leaves_the_version_to_its_adapter() -> None:
    moving = asking_for(loaded(1, ADAPTER, active=True), MERGED)
    begun = after(moving, decide(moving, world(moving, left=(engine(ENGINE, engine_pod("plato-v1")),))))
    seen = world(begun, pods=(refusing_pod("WrongBaseModel"),), left=(engine(ENGINE, engine_pod("plato-v1")),))
    status = status_of(decide(begun, seen))
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, MERGED_ENGINE)
    assert reason_of(status, "Stalled") == "WrongBaseModel"
    assert is_true(status.conditions, "Loaded")


@pytest.mark.parametrize("message", ["", "Killed", '{"kind": "WeightsRefused", "reason": "no reason", "message": ""}'])
def test_what_ends_otherwise_is_a_crash_that_is_tried_on(message: str) -> None:
    version = make_version(1, MERGED)
    body = pod_body("new", main={"vllm": terminated(1, message)})
    status = status_of(decide(version, world(version, pods=(EnginePod(pod_facts(body), None),))))
    assert (status.state, reason_of(status)) == (State.PENDING, "EngineCrashing")


MOVES = {"to merged weights": (ADAPTER, MERGED), "back to the adapter": (MERGED, ADAPTER)}
TWO_PODS: Object = {"serving": {"replicas": 2}}


@pytest.mark.parametrize("refusals", [0, 1, 2], ids=["all start", "one refuses once", "one refuses twice"])
@pytest.mark.parametrize("pods_first", [False, True], ids=["API server first", "pods first"])
@pytest.mark.parametrize("dies_after", [None, *range(1, 16)])
@pytest.mark.parametrize(("before", "wanted"), MOVES.values(), ids=MOVES.keys())
def test_a_move_takes_no_answer_away_wherever_the_operator_dies(
    before: Object, wanted: Object, dies_after: int | None, pods_first: bool, refusals: int
) -> None:
    """Another version stays in the adapters' engine, from which this one is unloaded."""
    mover = make_version(1, merged(merged(before, TWO_PODS), {"promotion": "Always"}))
    cluster = Cluster({"plato-v1": mover, "plato-v2": make_version(2, TWO_PODS)}, refusals, pods_first)
    cluster.settle()
    former = name_of(mover)
    status = cluster.versions["plato-v1"].status
    assert (status.state, status.engine, status.replicas) == (State.DEPLOYED, former, "2/2")
    history = status.history
    cluster.writes = 0
    cluster.actions.clear()
    cluster.versions["plato-v1"] = asking_for(cluster.versions["plato-v1"], wanted)

    cluster.settle(dies_after)

    moved = cluster.versions["plato-v1"]
    status = moved.status
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, name_of(moved), None)
    assert status.engine != former
    assert status.replicas == "2/2"
    assert set(cluster.engines) == {status.engine, ENGINE}
    assert [find(status.conditions, type_) for type_ in ("Reconciling", "Stalled")] == [None, None]
    assert status.history == history, "it was active all the time"
    assert cluster.versions["plato-v2"].status.state is State.READY
    others = {"plato-v2"} if is_merged_engine(str(status.engine)) else {"plato-v1", "plato-v2"}
    assert all(pod.versions == others for pod in cluster.engines[ENGINE].pods)
    unloaded = {action.name for action in cluster.actions if isinstance(action, UnloadAdapter)}
    assert unloaded == {"plato-v1", "plato-v2"} - others
