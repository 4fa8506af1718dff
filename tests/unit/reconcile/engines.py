"""Versions in engines, as reconciles see them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import deployment_facts, pod_facts
from finetune_operator.manifests.serving import engine_manifests, engine_name, wanted_engine
from finetune_operator.reconcile.engine_sharing import Engine, EnginePod, Refusal
from finetune_operator.reconcile.modelversion import Observed, reconcile
from finetune_operator.reconcile.plan import ApplyEngine, Delete, Patch, Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionStatus
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    condition,
    deployment_body,
    make_version,
    merged,
    pod_body,
    running,
)

READY = ({"type": "Ready", "status": "True"},)
V1 = make_version(1)
assert V1.spec.serving
ENGINE = engine_name(V1.spec, V1.spec.serving)
REFUSAL = Refusal("RankTooLarge", "rank 64 is beyond the engine's 16: raise spec.serving.maxLoraRank")


def loaded(number: int, spec: Mapping[str, Any] | None = None, *, active: bool = False, **status: Any) -> ModelVersion:
    """A version that was loaded when it was last looked at."""
    known: Object = {
        "state": "Deployed" if active else "Ready",
        "engine": wanted_engine(make_version(number, spec)) or ENGINE,
        "servedName": f"plato-v{number}",
        "observedGeneration": 1,
        "conditions": [condition("Loaded"), condition("Ready")],
    }
    if active:
        known["promotedAt"] = f"2026-01-01T11:0{number}:00.000000Z"
        known["history"] = [{"time": "2026-01-01T11:00:00Z", "state": "Deployed", "why": "spec.promotion is Always"}]
    return make_version(number, spec, status=merged(known, status))


def engine_pod(
    *listed: str,
    name: str = "pod-1",
    ready: bool = True,
    probed: bool = True,
    refused: dict[str, Refusal] | None = None,
    unknown: bool = False,
) -> EnginePod:
    """A pod of the engine that lists these adapters."""
    body = pod_body(name, main={"vllm": running()}, conditions=READY if ready else ())
    adapters = None if unknown else {version: directory_of(version) for version in listed}
    return EnginePod(pod_facts(body), adapters, frozenset(listed) if probed else frozenset(), refused or {})


def engine(name: str, *pods: EnginePod, conditions: tuple[Object, ...] = ()) -> Engine:
    """An engine that the operator has made, with these pods."""
    return Engine(name, deployment_facts(deployment_body(name, conditions=conditions), "finetune.dev/revision"), pods)


def applied(plan: Plan) -> dict[str, Object]:
    """Children of the one engine that the plan applies, by their kind's plural; empty where it applies none."""
    engines = [action for action in plan.actions if isinstance(action, ApplyEngine)]
    assert len(engines) <= 1
    return {child.plural: child.body for each in engines for child in each.children}


def removal(name: str, *pods: EnginePod) -> Delete:
    """Of an engine's Deployment, to which its Service and ConfigMap are given first, as to these pods of it."""
    owners = [
        {
            "apiVersion": version,
            "kind": kind,
            "name": owner,
            "uid": uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }
        for version, kind, owner, uid in (
            ("apps/v1", "Deployment", name, f"uid-of-{name}"),
            *(("v1", "Pod", entry.pod.name, entry.pod.uid) for entry in pods),
        )
    ]
    body: Object = {"metadata": {"ownerReferences": owners}}
    given = (Patch("services", name, body), Patch("configmaps", name, body))
    return Delete("deployments", name, f"uid-of-{name}", given)


def directory_of(name: str) -> str:
    """Where the version of this name has its adapter, as the engine lists it."""
    return f"/artifacts/finetune/plato/job-{name.rpartition('-v')[2]}/adapter"


def world(
    version: ModelVersion,
    *others: ModelVersion,
    pods: tuple[EnginePod, ...] = (),
    left: tuple[Engine, ...] = (),
    tests: tuple[ABTest, ...] = (),
    applied: bool = True,
    deployment_conditions: tuple[Object, ...] = (),
) -> Observed:
    """A world whose engine has just the versions that want it, unless it is not `applied` yet."""
    versions = (version, *others)
    deployment = None
    serving = version.spec.serving
    if applied and serving:
        name = engine_name(version.spec, serving)
        sharing = sorted((v for v in versions if wanted_engine(v) == name), key=lambda v: v.spec.version)
        served = [v for v in sharing if v.spec.state != "Archived" and not _is_out(v)]
        revision = ""
        if served:
            annotations = engine_manifests(name, served, sharing, CONFIG)[2]["metadata"]["annotations"]
            revision = annotations["finetune.dev/revision"]
        body = deployment_body(name, revision=revision, conditions=deployment_conditions)
        deployment = deployment_facts(body, "finetune.dev/revision")
    return Observed(versions=versions, deployment=deployment, pods=pods, left=left, tests=tests)


def _is_out(version: ModelVersion) -> bool:
    """Whether its engine has it no longer; of one that answers there, a single pod says that it is stalled."""
    answers = is_true(version.status.conditions, "Loaded") and version.status.next_engine is None
    return is_true(version.status.conditions, "Stalled") and not answers


def decide(version: ModelVersion, seen: Observed, now: datetime = NOON) -> Plan:
    return reconcile(version, seen, now, CONFIG)


def status_of(plan: Plan) -> ModelVersionStatus:
    assert plan.status is not None
    return ModelVersionStatus.model_validate(plan.status)


def reason_of(status: ModelVersionStatus, type_: str = "Ready") -> str:
    found = find(status.conditions, type_)
    assert found is not None
    return found.reason
