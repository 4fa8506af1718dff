"""Where everything lies: the cache shared by all clusters, one cluster's files, and one cluster's ports."""

import os
from dataclasses import dataclass
from pathlib import Path

from local_cluster import versions

PACKAGE_DIRECTORY = Path(__file__).resolve().parent
FULL_CLUSTER_PORT = 26443
FIRST_CONTROL_PLANE_PORT = 27000
PORTS_PER_CLUSTER = 11
LAST_PORT = 31990


def cache_root() -> Path:
    """The one directory outside the repository that holds binaries, images and the clusters' state."""
    configured = os.environ.get("FINETUNE_CACHE")
    return Path(configured).resolve() if configured else Path.home() / ".cache" / "finetune-operator"


@dataclass(frozen=True)
class Ports:
    """Consecutive ports of one cluster, counted from the API server's."""

    apiserver: int

    @property
    def etcd_client(self) -> int:
        return self.apiserver + 1

    @property
    def etcd_peer(self) -> int:
        return self.apiserver + 2

    @property
    def controller_manager(self) -> int:
        return self.apiserver + 3

    @property
    def scheduler(self) -> int:
        return self.apiserver + 4

    @property
    def kubelet(self) -> int:
        return self.apiserver + 5

    @property
    def kubelet_health(self) -> int:
        return self.apiserver + 6

    @property
    def proxy_health(self) -> int:
        return self.apiserver + 7

    @property
    def proxy_metrics(self) -> int:
        return self.apiserver + 8

    @property
    def dns(self) -> int:
        return self.apiserver + 9

    @property
    def dns_health(self) -> int:
        return self.apiserver + 10


@dataclass(frozen=True)
class Layout:
    """One cluster's names, directories and addresses."""

    name: str
    control_plane_only: bool
    ports: Ports

    @property
    def state(self) -> Path:
        """What must survive a restart: etcd, images, volumes, certificates, logs."""
        return cache_root() / "clusters" / self.name

    @property
    def runtime(self) -> Path:
        """Sockets and the container runtime's mounts; short, since a socket path has at most 108 bytes."""
        return Path("/run/finetune-local-cluster") / self.name

    @property
    def address(self) -> str:
        """Where the API server listens: never on the host's own network."""
        return "127.0.0.1" if self.control_plane_only else versions.NODE_ADDRESS

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:{self.ports.apiserver}"

    @property
    def certificates(self) -> Path:
        return self.state / "certificates"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def processes(self) -> Path:
        return self.state / "processes"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def kubeconfig(self) -> Path:
        return self.kubeconfig_of("admin")

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.jsonl"

    @property
    def authentication_file(self) -> Path:
        """Issuers of OpenID Connect that the API server trusts; it reads the file again when that changes."""
        return self.state / "authentication.json"

    @property
    def containerd_socket(self) -> Path:
        return self.runtime / "containerd.sock"

    def kubeconfig_of(self, user: str) -> Path:
        return self.state / f"{user}.kubeconfig"
