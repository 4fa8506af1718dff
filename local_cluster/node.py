"""The node: containerd, the pod network's configuration and kubelet; also what a crash of them leaves behind."""

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

from local_cluster import host, versions
from local_cluster.api_client import ApiClient, Json
from local_cluster.console import Refused, note
from local_cluster.image_store import ImageStore, pause_image
from local_cluster.layout import Layout
from local_cluster.packages import cni_directory, find_program
from local_cluster.processes import Processes, Service, boot_id, command

READY_TIMEOUT_SECONDS = 90.0
KUBELET_REVIVALS, KUBELET_PAUSE_SECONDS = 5, 2.0
STOP_GRACE_SECONDS = 5.0
CGROUP_ROOT = Path("/sys/fs/cgroup")
POD_LOG_LINKS = Path("/var/log/containers")
DEVICE_PLUGIN_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
CNI_RESULTS = Path("/var/lib/cni/results")
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{versions.NODE_NAME}"
NETWORK_NAME = "finetune-pods"


class Node:
    """One kubelet with its container runtime."""

    def __init__(self, layout: Layout, bin_dir: Path, processes: Processes) -> None:
        self._layout = layout
        self._bin_dir = bin_dir
        self._processes = processes
        self.images = ImageStore(layout.containerd_socket)

    def start(self) -> None:
        self.start_runtime()
        started = datetime.now(UTC)
        former = self._processes.record("kubelet")
        self._processes.ensure(self._kubelet())
        client = ApiClient(self._layout.kubeconfig)

        def node_ready() -> bool:
            # After a restart the API still shows what the last kubelet reported: only a newer lease proves this one.
            lease = client.find(LEASE)
            node = client.find(f"/api/v1/nodes/{versions.NODE_NAME}")
            is_another = self._processes.record("kubelet") != former
            if lease is None or node is None or (is_another and lease_time(lease) < started):
                return False
            conditions = node["status"].get("conditions", [])
            return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

        # containerd opens its socket before its CRI plugin has recovered, and kubelet ends if it asks in between.
        ready = self._processes.reviving(self._kubelet(), KUBELET_REVIVALS, KUBELET_PAUSE_SECONDS, node_ready)
        self._processes.wait_for("node Ready", ready, READY_TIMEOUT_SECONDS, ("kubelet", "containerd"))

    def start_runtime(self) -> None:
        """Starts containerd, after clearing what a crash or a reboot left behind, and imports the pause image."""
        if not self._processes.alive("containerd"):
            self._recover()
        self._layout.runtime.mkdir(parents=True, exist_ok=True)
        (self._layout.runtime / "boot-id").write_text(boot_id())
        self.write_files()
        self._processes.ensure(self._containerd())
        self._processes.wait_for("containerd ready", self.images.ready, READY_TIMEOUT_SECONDS, ("containerd",))
        if not self.images.digest(versions.PAUSE_IMAGE):
            self.images.load(pause_image(self._bin_dir / "pause", self._layout.state / "pause.tar"))

    def services(self) -> list[Service]:
        return [self._containerd(), self._kubelet()]

    def stop(self) -> None:
        """Ends every container, then containerd, and leaves no mount, network namespace, lease or cgroup behind."""
        self._processes.stop("kubelet")
        if self._processes.alive("containerd"):
            self.images.remove_containers(STOP_GRACE_SECONDS)
        self._processes.stop("containerd")
        self._end_survivors()
        host.unmount_below(self._layout.runtime, self._layout.state)
        host.remove_tree(self._layout.runtime)
        host.remove_tree(self._leases)
        _remove_traces()

    def _recover(self) -> None:
        """What survived is kept only if its shims did: a container without one can't be supervised any more."""
        state = self._layout.runtime / "containerd"
        if not state.exists() and not self._leases.exists():
            return
        marker = self._layout.runtime / "boot-id"
        same_boot = marker.exists() and marker.read_text() == boot_id()
        if same_boot and (shims := self._shims()):
            note(f"recovery: {len(shims)} pods outlived containerd, which takes them over")
            return
        orphans = _pod_processes()
        self._end_survivors()
        unmounted = host.unmount_below(state, self._layout.state / "kubelet")
        host.remove_tree(state)
        leases = len(list(self._leases.glob("*/*.*.*.*")))
        host.remove_tree(self._leases)
        cause = "its shims are gone too" if same_boot else "the host was restarted"
        note(
            f"recovery: containerd is gone and {cause}: ended {len(orphans)} orphaned processes, removed {unmounted} "
            f"stale mounts and {leases} address leases; kubelet starts the pods again. Images and volumes are kept"
        )

    def _end_survivors(self) -> None:
        """Kills the shims of our containerd and every process in a pod's cgroup, then removes the cgroups."""
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        while survivors := {*self._shims(), *_pod_processes()}:
            for pid in survivors:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise Refused(f"processes {sorted(survivors)} of ended pods can't be killed")
            time.sleep(0.1)
        _remove_empty_cgroups()

    def _shims(self) -> list[int]:
        """Process identifiers of the containerd shims that serve our containerd's socket."""
        socket = str(self._layout.containerd_socket).encode()
        return [pid for pid, argv in _command_lines() if b"containerd-shim" in argv[0] and socket in argv]

    @property
    def _leases(self) -> Path:
        return self._layout.state / "cni" / "leases"

    def write_files(self) -> None:
        network = self._layout.state / "cni" / "net.d" / "10-finetune-pods.conflist"
        network.parent.mkdir(parents=True, exist_ok=True)
        network.write_text(json.dumps(self._network(), indent=1))
        self._containerd_file.write_text(self._containerd_config())
        self._kubelet_file.write_text(json.dumps(self._kubelet_config(), indent=1))

    @property
    def _containerd_file(self) -> Path:
        return self._layout.state / "containerd.toml"

    @property
    def _kubelet_file(self) -> Path:
        return self._layout.state / "kubelet-configuration.json"

    def _network(self) -> dict[str, object]:
        addresses = {
            "type": "host-local",
            "dataDir": str(self._leases),
            "ranges": [[{"subnet": versions.POD_SUBNET, "gateway": versions.NODE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        bridge = {
            "type": "bridge",
            "bridge": versions.BRIDGE,
            "isGateway": True,
            "hairpinMode": True,
            "ipam": addresses,
        }
        return {"cniVersion": "1.0.0", "name": NETWORK_NAME, "plugins": [bridge]}

    def _containerd_config(self) -> str:
        plugin = 'plugins."io.containerd.grpc.v1.cri"'
        # Where root lacks CAP_SYS_RESOURCE, runc can't lower oom_score_adj and dies without this switch.
        return f"""version = 2
root = "{self._layout.state}/containerd"
state = "{self._layout.runtime}/containerd"
[plugins."io.containerd.internal.v1.opt"]
path = "{self._layout.state}/containerd-opt"
[grpc]
address = "{self._layout.containerd_socket}"
[{plugin}]
sandbox_image = "{versions.PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[{plugin}.cni]
bin_dir = "{cni_directory()}"
conf_dir = "{self._layout.state}/cni/net.d"
"""

    def _kubelet_config(self) -> dict[str, object]:
        layout = self._layout
        resolved = Path("/run/systemd/resolve/resolv.conf")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": versions.NODE_ADDRESS,
            "port": layout.ports.kubelet,
            "healthzPort": layout.ports.kubelet_health,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.certificates / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(layout.certificates / "kubelet.crt"),
            "tlsPrivateKeyFile": str(layout.certificates / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "failCgroupV1": False,
            "makeIPTablesUtilChains": False,
            "clusterDNS": [versions.DNS_SERVICE_ADDRESS],
            "clusterDomain": versions.CLUSTER_DOMAIN,
            "resolvConf": str(resolved if resolved.exists() else "/etc/resolv.conf"),
            "podLogsDir": str(layout.state / "pod-logs"),
            "volumePluginDir": str(layout.state / "volume-plugins"),
            # There is no registry to pull a collected image from again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        }

    def _containerd(self) -> Service:
        return Service(
            "containerd",
            (find_program("containerd") or "containerd", "--config", str(self._containerd_file)),
            config_files=(self._containerd_file,),
        )

    def _kubelet(self) -> Service:
        layout = self._layout
        flags = {
            "config": str(self._kubelet_file),
            "kubeconfig": str(layout.kubeconfig_of("kubelet")),
            "root-dir": str(layout.state / "kubelet"),
            "hostname-override": versions.NODE_NAME,
            "node-ip": versions.NODE_ADDRESS,
        }
        return Service(
            "kubelet",
            command(self._bin_dir / "kubelet", flags),
            config_files=(self._kubelet_file,),
            ports=(layout.ports.kubelet, layout.ports.kubelet_health),
        )


def lease_time(lease: Json) -> datetime:
    """When kubelet last said that it lives."""
    return datetime.fromisoformat(lease["spec"]["renewTime"])


def _command_lines() -> list[tuple[int, list[bytes]]]:
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            argv = (directory / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append((int(directory.name), argv))
    return found


def _pod_cgroups() -> list[Path]:
    """Kubelet's cgroup in every hierarchy of cgroup v1, or the one of cgroup v2."""
    return [*CGROUP_ROOT.glob("kubepods"), *CGROUP_ROOT.glob("*/kubepods")]


def _pod_processes() -> set[int]:
    pids: set[int] = set()
    for cgroup in _pod_cgroups():
        for file in cgroup.rglob("cgroup.procs"):
            try:
                pids.update(int(line) for line in file.read_text().split())
            except (FileNotFoundError, OSError):
                continue
    return pids


def _remove_empty_cgroups() -> None:
    for cgroup in (*_pod_cgroups(), *CGROUP_ROOT.glob("buildkit"), *CGROUP_ROOT.glob("*/buildkit")):
        for directory, _, _ in os.walk(cgroup, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                note(f"the cgroup {directory} stays: {error.strerror}")


def _remove_traces() -> None:
    """Removes what kubelet and the network plugins write to places that can't be configured."""
    if POD_LOG_LINKS.is_dir():
        for link in POD_LOG_LINKS.iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink()
    for result in CNI_RESULTS.glob(f"{NETWORK_NAME}-*-eth0"):
        container = result.name.removeprefix(f"{NETWORK_NAME}-").removesuffix("-eth0")
        result.unlink()
        (CNI_RESULTS / f"cni-loopback-{container}-lo").unlink(missing_ok=True)
    DEVICE_PLUGIN_SOCKET.unlink(missing_ok=True)
    for directory in (POD_LOG_LINKS, CNI_RESULTS, CNI_RESULTS.parent, *list(DEVICE_PLUGIN_SOCKET.parents)[:2]):
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
