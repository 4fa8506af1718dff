"""A simulated cluster: versions that move between engines of two pods each, and an operator that may die."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import pytest

from finetune_operator.contract.artifacts import WeightsRefused
from finetune_operator.core.conditions import is_true
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.workloads import deployment_facts, pod_facts
from finetune_operator.manifests.serving import directory_in, wanted_engine
from finetune_operator.reconcile.engine_sharing import Engine, EnginePod
from finetune_operator.reconcile.modelversion import Observed
from finetune_operator.reconcile.plan import (
    Action,
    Apply,
    ApplyEngine,
    Delete,
    LoadAdapter,
    Plan,
    Probe,
    UnloadAdapter,
    lanes,
)
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import Object, after, deployment_body, pod_body, running, terminated
from tests.unit.reconcile.engines import READY, decide

REPLICAS = 2
REFUSED = terminated(49, WeightsRefused(reason="DigestMismatch", message="merge anew").model_dump_json(by_alias=True))


@dataclass
class Pod:
    """A pod of an engine and the versions in it; `refusals` are how often it yet ends over what it is to start with."""

    engine: str
    number: int
    refusals: int = 0
    ready: bool = False
    ended: bool = False
    has_ended: bool = False
    versions: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.number}"

    def body(self) -> Object:
        state = REFUSED if self.ended else running()
        body = pod_body(self.name, main={"vllm": state}, conditions=READY if self.ready else ())
        if self.has_ended:
            body["status"]["containerStatuses"][0]["lastState"] = REFUSED
        return body

    def go_on(self, told: Iterable[str]) -> bool:
        """One step of its life, with what its engine is `told` by then; False once it is ready."""
        if self.ready:
            return False
        if self.ended:
            self.ended, self.has_ended = False, True
        elif self.refusals:
            self.refusals, self.ended = self.refusals - 1, True
        else:
            self.ready, self.versions = True, set(told)
        return True


@dataclass
class Running:
    """An engine: its Deployment's revision and owners, what its ConfigMap says, and its pods."""

    revision: str
    owners: frozenset[str]
    told: tuple[str, ...]
    pods: list[Pod]


@dataclass
class Cluster:
    """Versions and their engines. A second pod of merged weights refuses them as often as told, beside the first."""

    versions: dict[str, ModelVersion]
    refusals: int = 0
    pods_first: bool = False
    """What is asked of engine pods is done at once with all else: here, all of it before that, or after it."""
    engines: dict[str, Running] = field(default_factory=dict)
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)
    probed: set[tuple[str, str]] = field(default_factory=set)
    actions: list[Action] = field(default_factory=list)
    writes: int = 0

    def observed(self, version: ModelVersion) -> Observed:
        wanted, uid = str(wanted_engine(version)), version.metadata.uid
        own = self._engine(wanted) if wanted in self.engines else Engine(wanted)
        made = sorted(name for name, engine in self.engines.items() if uid in engine.owners and name != wanted)
        left = tuple(self._engine(name) for name in made)
        return Observed(tuple(self.versions.values()), own.deployment, own.pods, left)

    def _engine(self, name: str) -> Engine:
        body = deployment_body(name, revision=self.engines[name].revision, replicas=REPLICAS)
        facts = deployment_facts(body, "finetune.dev/revision")
        return Engine(name, facts, tuple(self._observed_pod(pod) for pod in self.engines[name].pods))

    def _observed_pod(self, pod: Pod) -> EnginePod:
        seen = pod_facts(pod.body())
        listed = {name: directory_in(self.versions[name], pod.engine) for name in sorted(pod.versions)}
        probed = frozenset(name for name in listed if (seen.uid, name) in self.probed)
        return EnginePod(seen, listed if pod.ready else None, probed)

    def reconcile(self, name: str, dies_after: int | None) -> Plan:
        """Carry the plan out, write by write; an operator that dies forgets what it had probed."""
        version = self.versions[name]
        plan = decide(version, self.observed(version))
        own, *pods = lanes(plan.actions)
        of_pods = [partial(self._act, action) for lane in pods for action in lane]
        others = [partial(self._act, action) for action in _writes(own)]
        if plan.status != version.status.to_dict():
            others.append(partial(self.versions.__setitem__, name, after(version, plan)))
        for step in (*of_pods, *others) if self.pods_first else (*others, *of_pods):
            step()
            if self._has_died(dies_after):
                break
        return plan

    def _has_died(self, dies_after: int | None) -> bool:
        self.check()
        self.writes += 1
        if self.writes != dies_after:
            return False
        self.probed.clear()
        return True

    def _act(self, action: Action) -> None:
        self.actions.append(action)
        match action:
            case Apply("configmaps", body):
                (text,) = body["data"].values()
                told = json.loads(text)
                names = [told["name"]] if "name" in told else [adapter["name"] for adapter in told["adapters"]]
                self.told[body["metadata"]["name"]] = tuple(names)
            case Apply("deployments", body):
                self._apply(body["metadata"])
            case Delete("deployments", name):
                del self.engines[name]
            case LoadAdapter(uid, _, adapter):
                self._loadable(uid).versions.add(adapter.name)
                self.probed.add((uid, adapter.name))
            case UnloadAdapter(uid, _, name):
                self._loadable(uid).versions.discard(name)
            case Probe(uid, _, name):
                self.probed.add((uid, name))

    def _apply(self, metadata: Object) -> None:
        name = metadata["name"]
        owners = frozenset(owner["uid"] for owner in metadata["ownerReferences"])
        refusals = self.refusals if is_merged_engine(name) else 0
        pods = [Pod(name, 1), Pod(name, 2, refusals)]
        if name in self.engines:
            pods = self.engines[name].pods
        self.engines[name] = Running(metadata["annotations"]["finetune.dev/revision"], owners, self.told[name], pods)

    def _loadable(self, uid: str) -> Pod:
        pods = [pod for engine in self.engines.values() for pod in engine.pods]
        (pod,) = (pod for pod in pods if pod_facts(pod.body()).uid == uid)
        assert pod.ready
        assert not is_merged_engine(pod.engine)
        return pod

    def check(self) -> None:
        """Wherever the gateway routes to by a stored status, the version answers."""
        for name, version in self.versions.items():
            status = version.status
            if is_true(status.conditions, "Loaded"):
                assert status.engine in self.engines, f"{status.engine} is gone"
                ready = [pod for pod in self.engines[status.engine].pods if pod.ready]
                assert ready
                assert all(name in pod.versions for pod in ready)

    def settle(self, dies_after: int | None = None) -> None:
        for _ in range(30):
            told = [version.status for version in self.versions.values()]
            plans = [self.reconcile(name, dies_after) for name in self.versions]
            moved = [pod.go_on(engine.told) for engine in self.engines.values() for pod in engine.pods]
            self.check()
            is_told = told == [version.status for version in self.versions.values()]
            if is_told and not any(moved) and not any(plan.actions for plan in plans):
                return
        pytest.fail("it does not settle")


def _writes(actions: Iterable[Action]) -> Iterable[Action]:
    for action in actions:
        yield from action.children if isinstance(action, ApplyEngine) else (action,)
