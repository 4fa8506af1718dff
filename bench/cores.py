"""The engine on a core of its own: in earnest a GPU does what here would take the core of the control plane.

Only root on the cluster's own node can do so.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROCESSES = Path("/proc")
PODS = "kubepods"
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kubelet", "containerd", "kube-proxy")


@contextmanager
def cores_apart(pod_uids: Iterable[str]) -> Iterator[bool]:
    """While the block lasts, these pods have the last core, and the cluster's other processes and this one the others.

    Yields False, and changes nothing, where this machine is not the pods' node, has one core or another owner.
    """
    threads = {uid: list(_threads_of(uid)) for uid in pod_uids}
    cores = os.sched_getaffinity(0)
    if not all(threads.values()) or len(cores) < 2 or os.geteuid():
        yield False
        return
    own = {max(cores)}
    inside = {thread for of_pod in threads.values() for thread in of_pod}
    outside = {*_threads_of(PODS), *_control_plane(), *_thread_ids(os.getpid())} - inside
    before: dict[int, set[int]] = {}
    try:
        for thread in inside | outside:
            # It may have ended since it was seen.
            with suppress(ProcessLookupError):
                before[thread] = os.sched_getaffinity(thread)
                os.sched_setaffinity(thread, own if thread in inside else cores - own)
        yield True
    finally:
        for thread, affinity in before.items():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, affinity)


def _threads_of(group: str) -> Iterator[int]:
    """Of all processes with this word in the path of their control group; systemd writes a uid with underscores."""
    words = (group, group.replace("-", "_"))
    for process in _processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            path = (PROCESSES / str(process) / "cgroup").read_text()
            if any(word in path for word in words):
                yield from _thread_ids(process)


def _control_plane() -> Iterator[int]:
    for process in _processes():
        with suppress(FileNotFoundError, ProcessLookupError):
            if (PROCESSES / str(process) / "comm").read_text().startswith(CONTROL_PLANE):
                yield from _thread_ids(process)


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in PROCESSES.iterdir() if entry.name.isdigit())


def _thread_ids(process: int) -> Iterator[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        yield from (int(entry.name) for entry in (PROCESSES / str(process) / "task").iterdir())
