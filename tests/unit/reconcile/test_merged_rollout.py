"""From an adapter to merged weights and back: two engines of different kinds, one route that always answers."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from finetune_operator.contract.artifacts import WeightsRefused
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.workloads import deployment_facts, pod_facts
from finetune_operator.manifests.serving import directory_in, wanted_engine
from finetune_operator.reconcile.engine_sharing import Engine, EnginePod
from finetune_operator.reconcile.modelversion import Observed
from finetune_operator.reconcile.plan import Action, Apply, Delete, LoadAdapter, Plan, Probe, UnloadAdapter
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import (
    Object,
    after,
    deployment_body,
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


@dataclass
class Running:
    """An engine of the simulated cluster, whose pod has what its kind starts with."""

    revision: str
    ready: bool = False
    has_version: bool = False


@dataclass
class Cluster:
    """One version and its engines; an operator that may die after any of its writes."""

    version: ModelVersion
    engines: dict[str, Running] = field(default_factory=dict)
    probed: set[str] = field(default_factory=set)
    writes: int = 0

    def observed(self) -> Observed:
        wanted = name_of(self.version)
        there = {name: self._engine(name) for name in self.engines}
        own = there.pop(wanted, Engine(wanted))
        return Observed(versions=(self.version,), deployment=own.deployment, pods=own.pods, left=tuple(there.values()))

    def _engine(self, name: str) -> Engine:
        state = self.engines[name]
        body = pod_body(f"pod-of-{name}", main={"vllm": running()}, conditions=READY if state.ready else ())
        listed = {"plato-v1": directory_in(self.version, name)} if state.has_version else {}
        probed = frozenset(listed) if name in self.probed else frozenset()
        pod = EnginePod(pod_facts(body), listed if state.ready else None, probed)
        facts = deployment_facts(deployment_body(name, revision=state.revision), "finetune.dev/revision")
        return Engine(name, facts, (pod,))

    def reconcile(self, dies_after: int | None) -> Plan:
        """Carry the plan out, write by write; an operator that dies forgets what it had probed."""
        plan = decide(self.version, self.observed())
        for action in plan.actions:
            self._act(action)
            if self._has_died(dies_after):
                return plan
        if plan.status != self.version.status.to_dict():
            self.version = after(self.version, plan)
            self._has_died(dies_after)
        return plan

    def _has_died(self, dies_after: int | None) -> bool:
        self.check()
        self.writes += 1
        if self.writes != dies_after:
            return False
        self.probed.clear()
        return True

    def _act(self, action: Action) -> None:
        match action:
            case Apply("deployments", body):
                name = body["metadata"]["name"]
                revision = body["metadata"]["annotations"]["finetune.dev/revision"]
                self.engines.setdefault(name, Running(revision)).revision = revision
            case Delete("deployments", name):
                del self.engines[name]
            case LoadAdapter() | UnloadAdapter():
                name = action.pod_uid.removeprefix("uid-of-pod-of-")
                assert not is_merged_engine(name)
                self.engines[name].has_version = isinstance(action, LoadAdapter)
                self.probed.add(name)
            case Probe(pod_uid):
                self.probed.add(pod_uid.removeprefix("uid-of-pod-of-"))

    def start_pods(self) -> None:
        for state in self.engines.values():
            state.has_version = state.has_version or not state.ready
            state.ready = True

    def check(self) -> None:
        """Wherever the gateway routes to by the stored status, the version answers."""
        status = self.version.status
        if is_true(status.conditions, "Loaded"):
            assert status.engine in self.engines, f"{status.engine} is gone"
            assert self.engines[status.engine].ready
            assert self.engines[status.engine].has_version

    def settle(self, dies_after: int | None = None) -> None:
        for _ in range(20):
            told = self.version.status
            plan = self.reconcile(dies_after)
            self.start_pods()
            self.check()
            if not plan.actions and self.version.status == told:
                return
        pytest.fail("it does not settle")


MOVES = {"to merged weights": (ADAPTER, MERGED), "back to the adapter": (MERGED, ADAPTER)}


@pytest.mark.parametrize("dies_after", [None, *range(1, 10)])
@pytest.mark.parametrize(("before", "wanted"), MOVES.values(), ids=MOVES.keys())
def test_a_move_takes_no_answer_away_wherever_the_operator_dies(
    before: Object, wanted: Object, dies_after: int | None
) -> None:
    cluster = Cluster(make_version(1, merged(before, {"promotion": "Always"})))
    cluster.settle()
    former = name_of(cluster.version)
    assert (cluster.version.status.state, cluster.version.status.engine) == (State.DEPLOYED, former)
    cluster.writes = 0
    cluster.version = asking_for(cluster.version, wanted)

    cluster.settle(dies_after)

    status = cluster.version.status
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, name_of(cluster.version), None)
    assert set(cluster.engines) == {name_of(cluster.version)} != {former}
    assert find(status.conditions, "Reconciling") is None
    assert [entry.state for entry in status.history] == [State.DEPLOYED], "it was active all the time"
