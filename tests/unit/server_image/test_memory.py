"""What an engine's pod says that it takes: by NVML where there is a driver, else by the kernel's control groups."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_operator.contract.evaluation import EngineMemory, MemoryOf
from tests.unit.server_image.modules import load_server_module

server_memory = load_server_module("memory")


class NvmlError(Exception):
    """Of any kind."""


class DriverNotLoadedError(NvmlError):
    """There is none."""


class Driver:
    """NVML over devices that have so many bytes in use; without any there is no driver either."""

    NVMLError = NvmlError
    NVMLError_DriverNotLoaded = NVMLError_LibraryNotFound = DriverNotLoadedError

    def __init__(self, *used_bytes: int, breaks: bool = False, refuses: bool = False) -> None:
        self._used_bytes = used_bytes
        self._breaks = breaks
        self._refuses = refuses
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self._refuses:
            raise NvmlError("Driver/library version mismatch")
        if not self._used_bytes:
            raise DriverNotLoadedError
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._used_bytes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        if self._breaks:
            raise NvmlError("GPU is lost")
        return SimpleNamespace(used=self._used_bytes[handle])


VERSION_2 = {"memory.current": "9000\n", "memory.stat": "anon 100\ninactive_file 2000\nactive_file 5\n"}
VERSION_1 = {
    "memory/memory.usage_in_bytes": "900\n",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
}
CASES: dict[str, tuple[Driver, dict[str, str], EngineMemory | None]] = {
    "control groups of version 2": (Driver(), VERSION_2, EngineMemory(of=MemoryOf.CONTAINER, size_bytes=7000)),
    "control groups of version 1": (Driver(), VERSION_1, EngineMemory(of=MemoryOf.CONTAINER, size_bytes=700)),
    "more file pages than are counted as used": (
        Driver(),
        {"memory.current": "10", "memory.stat": "inactive_file 20"},
        EngineMemory(of=MemoryOf.CONTAINER, size_bytes=0),
    ),
    "neither": (Driver(), {}, None),
    "several accelerators": (
        Driver(70_000, 80_000),
        VERSION_2,
        EngineMemory(of=MemoryOf.ACCELERATORS, size_bytes=150_000),
    ),
    "a driver that does not answer": (Driver(70_000, refuses=True), VERSION_2, None),
    "a lost accelerator": (Driver(70_000, breaks=True), VERSION_2, None),
}


@pytest.mark.parametrize(("driver", "files", "expected"), CASES.values(), ids=CASES)
def test_memory_in_use(tmp_path: Path, driver: Driver, files: dict[str, str], expected: EngineMemory | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert server_memory.memory_in_use(driver, tmp_path) == expected
    assert driver.open == 0


def test_control_groups_that_cannot_be_read_are_no_zero(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("max\n")
    (tmp_path / "memory.stat").write_text("")
    with pytest.raises(ValueError, match="max"):
        server_memory.memory_in_use(Driver(), tmp_path)
