"""Which claims get a directory, and which directories are removed again."""

import copy
from pathlib import Path
from typing import Any

import pytest

from local_cluster.volume_provisioner import PROVISIONED_BY, PROVISIONER, is_released, needs_volume, volume_for

CLAIM: dict[str, Any] = {
    "metadata": {"name": "models", "namespace": "finetune", "uid": "u-1"},
    "spec": {
        "storageClassName": "standard",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "5Gi"}},
    },
}


def changed(base: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    result = copy.deepcopy(base)
    *parents, last = path.split(".", 2)
    target = result
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return result


CLAIM_CASES = [
    ("waiting", CLAIM, True),
    ("another class", changed(CLAIM, "spec.storageClassName", "fast"), False),
    ("no class at all", changed(CLAIM, "spec.storageClassName", None), False),
    ("bound already", changed(CLAIM, "spec.volumeName", "pv-1"), False),
    ("a raw device", changed(CLAIM, "spec.volumeMode", "Block"), False),
    ("being deleted", changed(CLAIM, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z"), False),
]


@pytest.mark.parametrize(("claim", "needed"), [c[1:] for c in CLAIM_CASES], ids=[c[0] for c in CLAIM_CASES])
def test_claims_that_need_a_volume(claim: dict[str, Any], needed: bool) -> None:
    assert needs_volume(claim) is needed


def test_a_volume_binds_to_exactly_its_claim() -> None:
    volume = volume_for(CLAIM, Path("/volumes/one"))
    assert volume["spec"]["claimRef"]["uid"] == "u-1"
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volume["spec"]["capacity"] == {"storage": "5Gi"}
    assert volume["spec"]["hostPath"] == {"path": "/volumes/one", "type": "Directory"}


RELEASED = {**volume_for(CLAIM, Path("/volumes/one")), "status": {"phase": "Released"}}
VOLUME_CASES = [
    ("its claim is gone", RELEASED, True),
    ("still bound", changed(RELEASED, "status.phase", "Bound"), False),
    ("to be kept", changed(RELEASED, "spec.persistentVolumeReclaimPolicy", "Retain"), False),
    ("made by another", changed(RELEASED, "metadata.annotations", {PROVISIONED_BY: "other"}), False),
    ("made by hand", changed(RELEASED, "metadata.annotations", {}), False),
]


@pytest.mark.parametrize(("volume", "released"), [c[1:] for c in VOLUME_CASES], ids=[c[0] for c in VOLUME_CASES])
def test_volumes_to_remove(volume: dict[str, Any], released: bool) -> None:
    assert is_released(volume) is released


def test_our_mark_is_on_our_volumes() -> None:
    assert RELEASED["metadata"]["annotations"][PROVISIONED_BY] == PROVISIONER
