"""How much memory this pod takes just now: of its accelerators, or of its container where it has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from finetune_operator.contract.evaluation import EngineMemory, MemoryOf

CGROUP = Path("/sys/fs/cgroup")


class DeviceMemory(Protocol):
    """What NVML tells of one device."""

    used: int
    """Bytes, of all processes."""


class Nvml(Protocol):
    """The part of NVIDIA's management library that is asked; unlike CUDA it takes no memory of the device."""

    NVMLError: type[Exception]
    NVMLError_LibraryNotFound: type[Exception]
    NVMLError_DriverNotLoaded: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802 - NVML's names
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> DeviceMemory: ...  # noqa: N802


def memory_in_use(nvml: Nvml, cgroup: Path = CGROUP) -> EngineMemory | None:
    """None where it can't be known: an accelerator that does not tell, or a kernel without memory control groups."""
    try:
        used: int | None = accelerator_bytes(nvml)
    except nvml.NVMLError:
        return None
    if used:
        return EngineMemory(of=MemoryOf.ACCELERATORS, size_bytes=used)
    used = container_bytes(cgroup)
    return None if used is None else EngineMemory(of=MemoryOf.CONTAINER, size_bytes=used)


def accelerator_bytes(nvml: Nvml) -> int:
    """Of all devices that the container sees; 0 without a driver."""
    with _initialised(nvml) as has_driver:
        if not has_driver:
            return 0
        handles = (nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount()))
        return sum(nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles)


@contextmanager
def _initialised(nvml: Nvml) -> Iterator[bool]:
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        yield False
        return
    try:
        yield True
    finally:
        nvml.nvmlShutdown()


def container_bytes(cgroup: Path) -> int | None:
    """The working set as the kubelet counts it: without file pages that nobody has used lately. Control groups of
    version 2, then of version 1 (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory)."""
    for current, stat, inactive in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            used = int((cgroup / current).read_text())
            statistics = dict(line.split() for line in (cgroup / stat).read_text().splitlines())
        except FileNotFoundError:
            continue
        return max(0, used - int(statistics[inactive]))
    return None
