"""What the node needs from its host: enough disk and memory, kernel settings, a bridge, three iptables rules.

Every change is printed and recorded before it is made, so that `down` can undo it even after a crash in between.
"""

import ipaddress
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from local_cluster import versions
from local_cluster.console import Refused, note, output_of
from local_cluster.layout import Layout, cache_root
from local_cluster.packages import find_program
from local_cluster.processes import boot_id

GIGABYTE = 1024**3
FIRST_BUILD_DISK_GIGABYTES = 11
"""Measured: Go's sources 3.0 GB, its object files 5.9 GB, the programs 0.7 GB; all but the last are removed after."""
FIRST_BUILD_MEMORY_GIGABYTES = 3
NODE_DISK_GIGABYTES = 25
"""Measured: the trainer and server images with torch take this much at their peak, while BuildKit exports them."""
RUNNING_DISK_GIGABYTES = 3
NODE_MEMORY_GIGABYTES = 8
"""Control plane and node 0.7 GB, vLLM with a tiny model 3 GB, a training Job 2 to 3 GB at the same time."""

BRIDGE_ADDRESS_MAC = "0a:58:0a:d5:00:01"
"""Fixed, since a bridge without an own address changes it with its ports, and pods would keep the old one."""
SYSTEM_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
}
KUBELET_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""Kubelet sets these by itself; they are recorded so that they can be put back."""
_COMMENT = ("-m", "comment", "--comment", "finetune-local-cluster")
IPTABLES_RULES = (
    ("filter", "FORWARD", ("-s", versions.POD_SUBNET, *_COMMENT, "-j", "ACCEPT")),
    ("filter", "FORWARD", ("-d", versions.POD_SUBNET, *_COMMENT, "-j", "ACCEPT")),
    ("nat", "POSTROUTING", ("-s", versions.POD_SUBNET, "!", "-d", versions.POD_SUBNET, *_COMMENT, "-j", "MASQUERADE")),
)


@dataclass(frozen=True)
class Resources:
    """Free space in gigabytes."""

    disk: float
    memory: float


def resources() -> Resources:
    directory = cache_root()
    directory.mkdir(parents=True, exist_ok=True)
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available_kilobytes = int(meminfo["MemAvailable"].split()[0])
    return Resources(shutil.disk_usage(directory).free / GIGABYTE, available_kilobytes * 1024 / GIGABYTE)


def shortage(found: Resources, disk_needed: float, memory_needed: float) -> str | None:
    """What is too little and what to do about it; None if it suffices."""
    if found.disk < disk_needed:
        return (
            f"{found.disk:.1f} GB are free where {cache_root()} lies, {disk_needed:.0f} GB are needed: free some, "
            f"or set FINETUNE_CACHE to a directory on a larger disk"
        )
    if found.memory < memory_needed:
        return (
            f"{found.memory:.1f} GB of memory are available, {memory_needed:.0f} GB are needed: stop other programs, "
            f"or use a larger machine"
        )
    return None


def require_resources(disk_needed: float, memory_needed: float) -> None:
    if problem := shortage(resources(), disk_needed, memory_needed):
        raise Refused(problem)


def require_root() -> None:
    if os.geteuid() != 0:
        raise Refused("a cluster with a node needs root (containers, network): run this with sudo")


def require_free_ports(ports: Iterable[int]) -> None:
    for port in ports:
        if not port_is_free(port):
            raise Refused(
                f"port {port} is taken by another program (see: ss -ltnp 'sport = :{port}'): stop it, or choose "
                f"other ports with --port"
            )


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this TCP port, on whatever address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 (never listens)
        except OSError:
            return False
    return True


def overlapping_route(routes: Iterable[str]) -> str | None:
    """The first of the host's routes (as `ip route` prints them) that our subnets would hide; None if there is none."""
    ours = [ipaddress.ip_network(subnet) for subnet in (versions.POD_SUBNET, versions.SERVICE_SUBNET)]
    for route in routes:
        words = route.split()
        if not words or words[0] == "default" or versions.BRIDGE in words:
            continue
        destination = words[1] if words[0] in {"blackhole", "unreachable", "prohibit"} else words[0]
        if any(ipaddress.ip_network(destination, strict=False).overlaps(subnet) for subnet in ours):
            return route
    return None


@dataclass(frozen=True)
class Recorded:
    """Kernel settings as they were before us, and the boot in which that was so."""

    boot_id: str
    settings: dict[str, str]


class HostChanges:
    """The record of what was changed on the host, and its undoing."""

    def __init__(self, layout: Layout) -> None:
        self._file = layout.state / "host-changes.json"

    def apply(self) -> None:
        """Idempotent: changes only what isn't so yet."""
        if route := overlapping_route(output_of([_program("ip"), "-4", "route", "show"]).splitlines()):
            raise Refused(
                f"the host's route `{route}` overlaps the cluster's {versions.POD_SUBNET} or "
                f"{versions.SERVICE_SUBNET}: remove it, or change the subnets in local_cluster/versions.py"
            )
        self._load_bridge_filter()
        self._record_settings()
        for key, value in SYSTEM_SETTINGS.items():
            if _setting(key) != value:
                note(f"host: sysctl {key.replace('/', '.')} = {value} (was {_setting(key)})")
                _setting_path(key).write_text(value)
        self._ensure_bridge()
        for table, chain, rule in IPTABLES_RULES:
            if not _rule_exists(table, chain, rule):
                note(f"host: iptables -t {table} -I {chain} {' '.join(rule)}")
                output_of([_program("iptables"), "-w", "-t", table, "-I", chain, *rule])

    def undo(self) -> None:
        """Removes rules and bridge, and puts recorded settings back unless the host was restarted since."""
        if find_program("iptables") is None and not self._file.exists():
            note("host: nothing to undo")  # an earlier `down` did, and the packages were removed after it
            return
        for table, chain, rule in IPTABLES_RULES:
            while _rule_exists(table, chain, rule):
                output_of([_program("iptables"), "-w", "-t", table, "-D", chain, *rule])
        if _bridge_exists():
            note(f"host: removing the bridge {versions.BRIDGE}")
            output_of([_program("ip"), "link", "delete", versions.BRIDGE])
        record = self._record()
        if record is not None and record.boot_id == boot_id():
            for key, value in record.settings.items():
                if _setting(key) != value:
                    note(f"host: sysctl {key.replace('/', '.')} back to {value}")
                    _setting_path(key).write_text(value)
        self._file.unlink(missing_ok=True)

    def _record(self) -> Recorded | None:
        return Recorded(**json.loads(self._file.read_text())) if self._file.exists() else None

    def _record_settings(self) -> None:
        record = self._record()
        if record is not None and record.boot_id == boot_id():
            return
        keys = [key for key in (*SYSTEM_SETTINGS, *KUBELET_SETTINGS) if _setting_path(key).exists()]
        settings = {key: _setting(key) for key in keys}
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps({"boot_id": boot_id(), "settings": settings}, indent=1))
        partial.replace(self._file)
        names = ", ".join(key.replace("/", ".") for key in KUBELET_SETTINGS)
        note(f"host: kubelet will set {names}; their present values are recorded for `down`")

    def _load_bridge_filter(self) -> None:
        if _setting_path("net/bridge/bridge-nf-call-iptables").exists():
            return
        note("host: loading the kernel module br_netfilter")
        output_of([_program("modprobe"), "br_netfilter"])

    def _ensure_bridge(self) -> None:
        ip = _program("ip")
        if not _bridge_exists():
            note(f"host: adding the bridge {versions.BRIDGE} with {versions.NODE_ADDRESS}")
            output_of([ip, "link", "add", versions.BRIDGE, "address", BRIDGE_ADDRESS_MAC, "type", "bridge"])
        prefix = ipaddress.ip_network(versions.POD_SUBNET).prefixlen
        output_of([ip, "address", "replace", f"{versions.NODE_ADDRESS}/{prefix}", "dev", versions.BRIDGE])
        output_of([ip, "link", "set", versions.BRIDGE, "up"])


def unmount_below(*directories: Path) -> int:
    """Unmounts everything below the directories, deepest first; returns how many mounts there were."""
    count = 0
    for target in reversed(mounts_below(directories)):
        done = subprocess.run(["umount", "--lazy", str(target)], capture_output=True, text=True, check=False)
        if done.returncode != 0 and "not mounted" not in done.stderr:
            raise Refused(f"can't unmount {target}: {done.stderr.strip()}")
        count += 1
    return count


def mounts_below(directories: Iterable[Path]) -> list[Path]:
    """Mount points below the directories, in the order in which they were mounted."""
    prefixes = tuple(f"{directory}/" for directory in directories)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split()[4].replace("\\040", " ") for line in lines]
    return [Path(target) for target in targets if target.startswith(prefixes)]


def remove_tree(directory: Path) -> None:
    """Removes a directory tree: first from its place, at once, so that an interruption leaves no half of it in use."""
    aside = directory.with_name(f".{directory.name}.removing")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        if directory.exists():
            directory.rename(aside)
            shutil.rmtree(aside)
    except OSError as error:
        raise Refused(f"can't remove {aside}: {error}; run the same command again") from error


def _program(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise Refused(f"the program `{name}` is missing: run `python3 -m local_cluster packages`")
    return found


def _setting_path(key: str) -> Path:
    return Path("/proc/sys") / key


def _setting(key: str) -> str:
    return _setting_path(key).read_text().strip()


def _bridge_exists() -> bool:
    return Path(f"/sys/class/net/{versions.BRIDGE}").exists()


def _rule_exists(table: str, chain: str, rule: tuple[str, ...]) -> bool:
    argv = [_program("iptables"), "-w", "-t", table, "-C", chain, *rule]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
