"""Names, labels, ownership and security that every child has; derived here and nowhere else."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_operator.resources.common import API_VERSION, Resource, ResourceRequirements, Scheduling

Manifest = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
OPERATOR_NAME = "finetune-operator"
CHILD_SELECTOR = f"{MANAGED_BY}={OPERATOR_NAME}"
JOB_UID_LABEL = "finetune.dev/job-uid"
JOB_NAME_LABEL = "finetune.dev/job"
PREPARATION_LABEL = "finetune.dev/preparation"
MODEL_LABEL = "finetune.dev/model"
ENGINE_LABEL = "finetune.dev/engine"
VERSION_UID_LABEL = "finetune.dev/version-uid"
VERSION_NAME_LABEL = "finetune.dev/version"
EVALUATION_LABEL = "finetune.dev/evaluation"
BATCH_UID_LABEL = "finetune.dev/batch-uid"
BATCH_NAME_LABEL = "finetune.dev/batch"
REVISION_ANNOTATION = "finetune.dev/revision"

USER_ID = 10001
INTERNAL_TOKEN_KEY = "internal-token"  # noqa: S105 - a key's name


def digest_of(value: object, length: int = 8) -> str:
    """Short stable hash of a JSON value, for names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def labels(component: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Our own labels only: a copied label of Argo CD would make it prune the child."""
    return {MANAGED_BY: OPERATOR_NAME, COMPONENT: component, **extra}


def going_owner(api_version: str, kind: str, name: str, uid: str) -> Manifest:
    """An owner that is no resource of ours: what it alone owns, or it with others that go, is removed after it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": False,
        "blockOwnerDeletion": False,
    }


def owner_reference(owner: Resource, *, controller: bool) -> Manifest:
    """Lets the garbage collector delete the child; no finalizer is needed."""
    return {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
        "controller": controller,
        "blockOwnerDeletion": False,
    }


def pod_security() -> Manifest:
    """Pod Security `restricted`."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Pod Security `restricted`, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def scheduling(spec: Scheduling) -> Manifest:
    """The pod's share of a `Scheduling`."""
    written = spec.to_dict()
    return {key: value for key, value in written.items() if value}


def resources(spec: ResourceRequirements) -> Manifest:
    """The container's share of a `ResourceRequirements`."""
    return {key: value for key, value in spec.to_dict().items() if value}


def environment(values: Mapping[str, str]) -> list[Manifest]:
    """Plain variables, in a stable order."""
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def secret_variable(variable: str, secret_name: str, key: str, *, optional: bool = False) -> Manifest:
    """The kubelet reads the Secret; the operator has no right to."""
    reference: Manifest = {"name": secret_name, "key": key}
    return {
        "name": variable,
        "valueFrom": {"secretKeyRef": reference | ({"optional": True} if optional else {})},
    }


def config_volume(file: str, annotation: str) -> Manifest:
    """A pod's annotation as that file: each pod has its own config, and no object besides it has to be there first."""
    item = {"path": file.rsplit("/", 1)[1], "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
    return {"name": "config", "downwardAPI": {"items": [item]}}


def config_mount(file: str) -> Manifest:
    """Where `config_volume` is to be mounted."""
    return {"name": "config", "mountPath": file.rsplit("/", 1)[0], "readOnly": True}


def claim_volume(name: str, claim_name: str, *, read_only: bool) -> Manifest:
    """A PersistentVolumeClaim as a pod's volume."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim_name, "readOnly": read_only}}


def pod_failure_policy(*, uncounted: Iterable[int], final: Iterable[int]) -> Manifest:
    """Of a Job whose pods are tried again: at no try's expense after a disruption or `uncounted`, not at all after
    `final`, exit codes of what no second try would change.
    """
    rules: list[Manifest] = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    for action, codes in (("Ignore", list(uncounted)), ("FailJob", sorted(final))):
        if codes:
            rules.append({"action": action, "onExitCodes": {"operator": "In", "values": codes}})
    return {"rules": rules}


def scratch_volumes() -> list[Manifest]:
    """What a read-only root leaves to write to; vLLM and PyTorch need a large /dev/shm."""
    return [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
    ]


SCRATCH_MOUNTS: tuple[Manifest, ...] = (
    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of our own
    {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount of our own
)
