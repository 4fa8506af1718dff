"""One cluster, put together: what `up` and `down` do, in which order, and what they promise."""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from local_cluster import host, packages, toolchain, versions
from local_cluster.api_client import ApiClient
from local_cluster.base_image import ensure_base_image
from local_cluster.certificates import ensure_certificates
from local_cluster.console import Refused, note, step
from local_cluster.control_plane import ControlPlane
from local_cluster.image_build import ImageBuilder, build_lock
from local_cluster.layout import (
    FIRST_CONTROL_PLANE_PORT,
    FULL_CLUSTER_PORT,
    LAST_PORT,
    PORTS_PER_CLUSTER,
    Layout,
    Ports,
    cache_root,
)
from local_cluster.network import Network
from local_cluster.node import Node
from local_cluster.processes import Processes, Service
from local_cluster.storage import Storage

DEFAULT_NAME = "default"
NAME = re.compile("[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Choice:
    """What is remembered about a cluster from its first `up` on."""

    control_plane_only: bool
    port: int


class Part(Protocol):
    """One group of processes that starts and stops together."""

    def write_files(self) -> None:
        """Writes their configuration, which is idempotent and needs no process."""

    def services(self) -> list[Service]:
        """The processes; their configuration is written already."""

    def start(self) -> None:
        """Starts what isn't running and waits until it is ready."""

    def stop(self) -> None:
        """Stops the processes and removes what they left outside the cluster's own directories."""


class Cluster:
    """A local Kubernetes by name; the same name is the same cluster, its objects, images and volumes included."""

    def __init__(self, name: str = DEFAULT_NAME, *, control_plane_only: bool = False, port: int | None = None) -> None:
        if not NAME.fullmatch(name):
            raise Refused(f"a cluster's name is 1 to 40 lower-case letters, digits and dashes, not {name!r}")
        self.name = name
        with _locked(_clusters_directory() / ".lock"):
            self._choice = _remembered_choice(name, control_plane_only, port)
        self.layout = Layout(name, self._choice.control_plane_only, Ports(self._choice.port))
        self.processes = Processes(self.layout.processes, self.layout.logs)

    @classmethod
    def known(cls, name: str = DEFAULT_NAME) -> "Cluster":
        """A cluster that `up` made before; Refused if there is none of this name."""
        if not _choice_file(name).exists():
            raise Refused(f"there is no cluster {name}: run `python3 -m local_cluster up --name {name}` first")
        return cls(name)

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        return self.layout.audit_log

    @property
    def authentication_file(self) -> Path:
        return self.layout.authentication_file

    @property
    def bin_dir(self) -> Path:
        return toolchain.bin_dir()

    @property
    def node(self) -> Node:
        """The node of a full cluster, with its image store."""
        if self._choice.control_plane_only:
            raise Refused(f"cluster {self.name} has no node: it was made with --control-plane-only")
        return Node(self.layout, self.bin_dir, self.processes)

    def up(self) -> None:
        """Brings the cluster up, whatever state it is in; quick, and without any change, if it is healthy."""
        with _locked(self.layout.state / ".lock"):
            if self.healthy():
                return
            self._require()
            with step(f"Start the cluster {self.name}"):
                self._up()

    def healthy(self) -> bool:
        """Whether every process is alive with the configuration of today, and the API server says it is ready."""
        if not toolchain.is_built(self._tools) or not self.kubeconfig.exists() or packages.missing(self._packages):
            return False
        for part in self._parts():
            part.write_files()
        services = self._services()
        return all(self._is_current(service) for service in services) and ApiClient(self.kubeconfig).reachable()

    def down(self, *, purge: bool = False) -> None:
        """Stops everything and undoes the changes to the host; keeps objects, images and volumes unless `purge`."""
        with _locked(self.layout.state / ".lock"), self._no_build(), step(f"Stop the cluster {self.name}"):
            if not self._choice.control_plane_only:
                host.require_root()
            for part in reversed(self._parts()):
                part.stop()
            for name in self.processes.names():
                self.processes.stop(name)
            if not self._choice.control_plane_only:
                host.HostChanges(self.layout).undo()
            if purge:
                note(f"removing {self.layout.state} with its objects, images and volumes")
                host.unmount_below(self.layout.state)
                host.remove_tree(self.layout.state)

    def ensure_base_image(self) -> None:
        """Makes the Debian base image if need be and imports it into the node."""
        ensure_base_image(self._running_node().images)

    def build_image(self, tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> bool:
        """Builds an image into the node's store unless it is up to date; True if it built."""
        self._running_node()
        builder = ImageBuilder(self.layout, self.bin_dir, self.processes)
        return builder.build(tag, dockerfile.resolve(), context.resolve(), arguments)

    def _running_node(self) -> Node:
        node = self.node
        if not self.processes.alive("containerd"):
            raise Refused(f"cluster {self.name} isn't up: run `python3 -m local_cluster up --name {self.name}`")
        return node

    @contextmanager
    def _no_build(self) -> Iterator[None]:
        """Someone else's image build would die with the node's containerd: it must end first."""
        with build_lock(self.layout).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    f"an image build is running in cluster {self.name}: wait for it, then run this again"
                ) from error
            yield

    def status(self) -> dict[str, str]:
        """Each process and whether it is alive."""
        return {name: "running" if self.processes.alive(name) else "gone" for name in self.processes.names()}

    @property
    def _tools(self) -> tuple[toolchain.Tool, ...]:
        return toolchain.CONTROL_PLANE_TOOLS if self._choice.control_plane_only else toolchain.TOOLS

    def _is_current(self, service: Service) -> bool:
        record = self.processes.record(service.name)
        return record is not None and record.alive() and record.fingerprint == service.fingerprint()

    @property
    def _packages(self) -> tuple[packages.Package, ...]:
        return packages.CONTROL_PLANE_PACKAGES if self._choice.control_plane_only else packages.NODE_PACKAGES

    def _parts(self) -> tuple[Part, ...]:
        """What the cluster consists of, in the order in which it starts."""
        control_plane = ControlPlane(self.layout, self.bin_dir, self.processes)
        if self._choice.control_plane_only:
            return (control_plane,)
        network = Network(self.layout, self.bin_dir, self.processes)
        return (control_plane, self.node, network, Storage(self.layout, self.processes))

    def _services(self) -> list[Service]:
        return [service for part in self._parts() for service in part.services()]

    def _require(self) -> None:
        """Everything that can be refused is refused before anything is changed."""
        full = not self._choice.control_plane_only
        if full:
            host.require_root()
            _require_single_node(self.name)
        first = not (self.layout.state / "etcd").exists()
        host.require_resources(
            host.NODE_DISK_GIGABYTES if full and first else host.RUNNING_DISK_GIGABYTES,
            host.NODE_MEMORY_GIGABYTES if full and not self.processes.alive("kubelet") else 0.5,
        )
        packages.install(self._packages)
        toolchain.build(self._tools)
        absent = [service for service in self._services() if not self.processes.alive(service.name)]
        host.require_free_ports(port for service in absent for port in service.ports)

    def _up(self) -> None:
        layout = self.layout
        layout.state.mkdir(parents=True, exist_ok=True)
        layout.logs.mkdir(parents=True, exist_ok=True)
        if not self._choice.control_plane_only:
            host.HostChanges(layout).apply()
        ensure_certificates(layout)
        for part in self._parts():
            part.start()


def _clusters_directory() -> Path:
    return cache_root() / "clusters"


def _choice_file(name: str) -> Path:
    return _clusters_directory() / name / "cluster.json"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One `up` or `down` of a cluster at a time; the kernel frees the lock when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remembered_choice(name: str, control_plane_only: bool, port: int | None) -> Choice:
    """The cluster's kind and ports: as asked, as remembered, or the next free ones."""
    file = _choice_file(name)
    known = Choice(**json.loads(file.read_text())) if file.exists() else None
    if known and control_plane_only and not known.control_plane_only:
        raise Refused(f"cluster {name} has a node already: choose another --name for a control plane only")
    if known and (port is None or port == known.port):
        return known
    kind = known.control_plane_only if known else control_plane_only
    choice = Choice(kind, port or _free_port(kind))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(choice.__dict__))
    return choice


def _free_port(control_plane_only: bool) -> int:
    taken = {json.loads(file.read_text())["port"] for file in _clusters_directory().glob("*/cluster.json")}
    first = FIRST_CONTROL_PLANE_PORT if control_plane_only else FULL_CLUSTER_PORT
    for port in range(first, LAST_PORT, PORTS_PER_CLUSTER):
        if port not in taken and all(host.port_is_free(port + k) for k in range(PORTS_PER_CLUSTER)):
            return port
    raise Refused("no free block of ports: choose one with --port")


def _require_single_node(name: str) -> None:
    """Bridge, subnets and iptables chains exist once on a host."""
    for file in _clusters_directory().glob("*/cluster.json"):
        other = file.parent.name
        if other == name or json.loads(file.read_text())["control_plane_only"]:
            continue
        if Processes(file.parent / "processes", file.parent / "logs").alive("kubelet"):
            raise Refused(
                f"cluster {other} has a node on this host already, and there can be only one ({versions.BRIDGE}): "
                f"stop it first with `python3 -m local_cluster down --name {other}`"
            )
