"""CPU time beside wall time: of pods by their cgroups, where this machine is their node, and of processes."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT, PROC_ROOT = Path("/sys/fs/cgroup"), Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PARENT, OWN_AND_ENDED_CHILDRENS_TICKS = 1, slice(11, 15)
"""Fields of /proc/<pid>/stat after the name of the program."""


def pod_seconds(uid: str, root: Path = CGROUP_ROOT) -> float | None:
    """Of all that has ever run in the pod; None where its cgroup is not on this machine."""
    for cgroup in _cgroups(uid, root):
        if (usage := cgroup / "cpuacct.usage").exists():
            return int(usage.read_text()) / 1e9
        if (stat := cgroup / "cpu.stat").exists():
            told = dict(line.split(maxsplit=1) for line in stat.read_text().splitlines())
            if "usage_usec" in told:
                return int(told["usage_usec"]) / 1e6
    return None


def _cgroups(uid: str, root: Path) -> Iterator[Path]:
    """As kubelet names them by either driver, in version 1 and 2 of cgroups."""
    by_cgroupfs, by_systemd = f"pod{uid}", f"kubepods*-pod{uid.replace('-', '_')}.slice"
    for hierarchy in (root / "cpuacct", root):
        for pattern in (
            f"kubepods/{by_cgroupfs}",
            f"kubepods/*/{by_cgroupfs}",
            f"kubepods.slice/{by_systemd}",
            f"kubepods.slice/*/{by_systemd}",
        ):
            yield from hierarchy.glob(pattern)


def process_seconds(pid: int, root: Path = PROC_ROOT) -> float:
    """Of a process and of all that it has begun, ended or not."""
    parents = {process: int(fields[PARENT]) for process, fields in _stats(root)}
    ticks, family = 0, {pid}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    for process, fields in _stats(root):
        if process in family:
            ticks += sum(int(each) for each in fields[OWN_AND_ENDED_CHILDRENS_TICKS])
    return ticks / TICKS_PER_SECOND


def _stats(root: Path) -> Iterator[tuple[int, list[str]]]:
    for directory in root.iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            text = (directory / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            # It has just ended.
            continue
        yield int(directory.name), text.rsplit(")", 1)[1].split()
