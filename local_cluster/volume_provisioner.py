"""Gives every claim of the class `standard` a directory of the node, and removes it once its claim is deleted.

A process of its own: `python3 -m local_cluster.volume_provisioner KUBECONFIG VOLUMES_DIRECTORY`. On one node a
directory serves ReadWriteOnce and ReadWriteMany alike. Capacity is noted, not enforced.
"""

import http.client
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_cluster.api_client import ApiClient, ApiError, Json

STORAGE_CLASS = "standard"
PROVISIONER = "local-cluster/directory"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
RETRY_SECONDS = 1.0
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"


def needs_volume(claim: Json) -> bool:
    """Whether this claim waits for us: ours by class, still unbound, not being deleted."""
    spec, metadata = claim["spec"], claim["metadata"]
    return bool(
        spec.get("storageClassName") == STORAGE_CLASS
        and not spec.get("volumeName")
        and spec.get("volumeMode", "Filesystem") == "Filesystem"
        and "deletionTimestamp" not in metadata
    )


def is_released(volume: Json) -> bool:
    """Whether this volume is ours to remove: its claim is gone and its policy says to delete it."""
    return bool(
        volume["metadata"].get("annotations", {}).get(PROVISIONED_BY) == PROVISIONER
        and volume.get("status", {}).get("phase") == "Released"
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    )


def volume_for(claim: Json, directory: Path) -> Json:
    """The volume that exactly this claim binds to."""
    metadata, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}", "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(directory), "type": "Directory"},
        },
    }


class Provisioner:
    """Acts on claims and volumes as they change."""

    def __init__(self, client: ApiClient, directory: Path) -> None:
        self._client = client
        self._directory = directory

    def on_claim(self, claim: Json) -> None:
        if not needs_volume(claim):
            return
        metadata = claim["metadata"]
        directory = self._directory / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)  # pods run as different users, and a host path knows no fsGroup
        try:
            self._client.create(VOLUMES, volume_for(claim, directory))
            print(f"provisioned {directory}")
        except ApiError as error:
            if error.status != http.client.CONFLICT:  # made for an earlier event of the same claim
                raise

    def on_volume(self, volume: Json) -> None:
        if not is_released(volume):
            return
        directory = Path(volume["spec"]["hostPath"]["path"])
        if directory.parent != self._directory:
            print(f"{volume['metadata']['name']}: {directory} isn't below {self._directory}, left alone")
            return
        if directory.exists():
            shutil.rmtree(directory)
        try:
            self._client.delete(f"{VOLUMES}/{volume['metadata']['name']}")
            print(f"removed {directory}")
        except ApiError as error:
            if error.status != http.client.NOT_FOUND:
                raise


def follow(client: ApiClient, path: str, handle: Callable[[Any], None]) -> None:
    """Lists, then watches, for ever: every present and future object reaches `handle`."""
    while True:
        try:
            listing = client.get(path)
            for item in listing["items"]:
                handle(item)
            for event in client.watch(path, listing["metadata"]["resourceVersion"]):
                if event["type"] in {"ADDED", "MODIFIED"}:
                    handle(event["object"])
                elif event["type"] == "ERROR":
                    break
        except (OSError, ValueError, http.client.HTTPException, ApiError) as error:
            print(f"{path}: {error}; listing again in {RETRY_SECONDS:.0f} s")
            time.sleep(RETRY_SECONDS)


def main(kubeconfig: str, directory: str) -> None:
    client = ApiClient(Path(kubeconfig))
    provisioner = Provisioner(client, Path(directory))
    volumes = threading.Thread(target=follow, args=(client, VOLUMES, provisioner.on_volume), daemon=True)
    volumes.start()
    follow(client, CLAIMS, provisioner.on_claim)


if __name__ == "__main__":
    main(*sys.argv[1:])
