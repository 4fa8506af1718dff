"""The default StorageClass `standard`: a directory of the node for each claim, made by our own small provisioner.

The controller manager's host-path provisioner won't do: its directories lie in /tmp and only root can write to them.
"""

import sys
from pathlib import Path

from local_cluster.api_client import ApiClient, grant
from local_cluster.layout import PACKAGE_DIRECTORY, Layout
from local_cluster.processes import Processes, Service
from local_cluster.volume_provisioner import PROVISIONER, STORAGE_CLASS

USER = "local-cluster:volume-provisioner"
RULES = [
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["list", "watch", "create", "delete"]},
]


class Storage:
    """The storage class and the process behind it."""

    def __init__(self, layout: Layout, processes: Processes) -> None:
        self._layout = layout
        self._processes = processes

    def start(self) -> None:
        client = ApiClient(self._layout.kubeconfig)
        grant(client, USER, USER, rules=RULES)
        client.apply(f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}", _storage_class())
        self.write_files()
        for service in self.services():
            self._processes.ensure(service)

    def write_files(self) -> None:
        self._layout.volumes.mkdir(parents=True, exist_ok=True)

    def services(self) -> list[Service]:
        module = PACKAGE_DIRECTORY / "volume_provisioner.py"
        argv = (sys.executable, "-m", "local_cluster.volume_provisioner")
        arguments = (str(self._layout.kubeconfig_of("volume-provisioner")), str(self._layout.volumes))
        environment = {"PYTHONPATH": str(PACKAGE_DIRECTORY.parent), "PYTHONUNBUFFERED": "1"}
        files: tuple[Path, ...] = (module,)
        return [Service("volume-provisioner", (*argv, *arguments), config_files=files, environment=environment)]

    def stop(self) -> None:
        self._processes.stop("volume-provisioner")


def _storage_class() -> dict[str, object]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
