"""A process beside the trainer, really started: every way in which it can end, and what it may not do."""

import asyncio
import importlib
import json
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.images.ml_environment import REPOSITORY
from tests.waiting import eventually

TRAINER_IMAGE = str(REPOSITORY / "trainer_image")
MEBIBYTE = 1 << 20


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TRAINER_IMAGE)
    return importlib.import_module("child")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TRAINER_IMAGE)
    return importlib.import_module("memory")


ENDINGS = {
    "killed": ("import os; os.kill(os.getpid(), 9)", "was killed, as the kernel does where memory runs out"),
    "a native crash": ("import os; os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"),
    "an exit code": ("raise SystemExit(3)", "ended with 3"),
    "a hang": ("import time; time.sleep(600)", "was stopped after 1 s"),
}


@pytest.mark.parametrize(("code", "words"), ENDINGS.values(), ids=ENDINGS.keys())
def test_how_it_ended_is_told(child: ModuleType, tmp_path: Path, code: str, words: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)

    with pytest.raises(child.ChildFailed) as failed:
        child.run_child(script, [], timeout_seconds=1)

    assert str(failed.value) == words


def test_it_is_no_process_of_torchrun_and_the_first_to_be_killed(
    child: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import json, os, sys
sys.path.insert(0, {TRAINER_IMAGE!r})
from pathlib import Path
from child import subordinate
subordinate()
facts = {{"environment": sorted(os.environ), "score": Path("/proc/self/oom_score_adj").read_text().strip()}}
Path(sys.argv[1]).write_text(json.dumps(facts))
"""
    )

    child.run_child(script, [str(tmp_path / "facts.json")], timeout_seconds=60)

    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["score"] == "1000"
    assert "OMP_NUM_THREADS" in facts["environment"]
    assert not [name for name in facts["environment"] if "RANK" in name or "TORCH" in name or "WORLD" in name]


async def test_it_ends_with_the_trainer_however_that_ends(tmp_path: Path) -> None:
    script, parent, pid_file = tmp_path / "script.py", tmp_path / "parent.py", tmp_path / "pid"
    beginning = f"import sys; sys.path.insert(0, {TRAINER_IMAGE!r}); from pathlib import Path; import child, os, time\n"
    script.write_text(
        beginning + f"child.subordinate(); Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    parent.write_text(beginning + f"child.run_child({str(script)!r}, [], 600)")
    trainer = await asyncio.create_subprocess_exec(sys.executable, str(parent))
    await eventually(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())

    trainer.send_signal(signal.SIGKILL)
    await trainer.wait()

    await eventually(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """A zombie, whose new parent has not yet looked, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_memory_that_is_not_there_is_an_error_and_no_kill(memory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "has_gpu", lambda: False)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 64 * MEBIBYTE)

    with memory.within_memory():
        assert len(bytearray(16 * MEBIBYTE)) == 16 * MEBIBYTE
        with pytest.raises(MemoryError):
            bytearray(512 * MEBIBYTE)

    assert len(bytearray(512 * MEBIBYTE)) == 512 * MEBIBYTE
