"""How much memory there is left, and how a process keeps below it: beyond, the kernel kills the whole container."""

import ctypes
import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failures import log

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def available_memory_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """What can still be taken before the kernel kills: of the machine, and of the container's limit."""
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except FileNotFoundError:
        return available
    # Cached files are given up before anything is killed.
    left = available if limit == "max" else int(limit) - used + int(statistics["inactive_file"])
    return max(0, min(available, left))


@contextmanager
def within_memory() -> Iterator[None]:
    """An allocation beyond what is left fails with an error that can be told.

    Not with a GPU: CUDA maps far more than it uses, and the weights are not here.
    """
    if has_gpu():
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = data_bytes() + available_memory_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def data_bytes(proc: Path = PROC) -> int:
    """What RLIMIT_DATA counts of this process."""
    fields = dict(line.split(":", 1) for line in (proc / "self" / "status").read_text().splitlines())
    return int(fields["VmData"].split()[0]) * 1024


def give_back() -> None:
    """To the machine and to the GPU, what a training had whose model nobody holds any more."""
    gc.collect()
    if has_gpu():
        torch = sys.modules["torch"]
        torch.cuda.empty_cache()
        log("memory given back", gpu_bytes_kept=torch.cuda.memory_allocated())
    ctypes.CDLL(None).malloc_trim(0)


def has_gpu() -> bool:
    """Whether this process has one; without torch it has none."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())
