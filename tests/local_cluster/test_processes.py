"""A process is trusted or killed only if it is proven to be the one that was started."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from local_cluster.console import Refused
from local_cluster.processes import Processes, Service, boot_id, start_ticks

SLEEPER = Service("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"))
IGNORES_TERMINATION = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
STUBBORN = Service("stubborn", (sys.executable, "-c", IGNORES_TERMINATION))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    manager = Processes(tmp_path / "processes", tmp_path / "logs")
    yield manager
    for name in manager.names():
        manager.stop(name, timeout_seconds=0.2)


def pid_of(processes: Processes, name: str) -> int:
    record = processes.record(name)
    assert record is not None
    return record.pid


def test_a_second_ensure_leaves_a_running_service_alone(processes: Processes) -> None:
    assert processes.ensure(SLEEPER)
    first = pid_of(processes, "sleeper")
    assert not processes.ensure(SLEEPER)
    assert pid_of(processes, "sleeper") == first


@pytest.mark.parametrize("what", ["argument", "environment", "file"])
def test_a_change_of_configuration_restarts_the_service(processes: Processes, tmp_path: Path, what: str) -> None:
    config = tmp_path / "config"
    config.write_text("one")
    service = replace(SLEEPER, config_files=(config,))
    processes.ensure(service)
    first = pid_of(processes, "sleeper")
    if what == "argument":
        service = replace(service, argv=(*service.argv, "more"))
    elif what == "environment":
        service = replace(service, environment={"MORE": "1"})
    else:
        config.write_text("two")
    assert processes.ensure(service)
    assert pid_of(processes, "sleeper") != first
    assert start_ticks(first) is None


def test_a_killed_service_is_started_again(processes: Processes) -> None:
    processes.ensure(SLEEPER)
    first = pid_of(processes, "sleeper")
    os.kill(first, 9)
    processes.wait_for("end of the first", lambda: not processes.alive("sleeper"), 5)
    assert processes.ensure(SLEEPER)
    assert pid_of(processes, "sleeper") != first


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"start_ticks": 1}, "the number was given to a later process"), ({"boot_id": "other"}, "the host was restarted")],
)
def test_a_foreign_process_is_neither_trusted_nor_killed(
    processes: Processes, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    with subprocess.Popen(SLEEPER.argv) as foreign:
        ticks = start_ticks(foreign.pid)
        record = {"pid": foreign.pid, "start_ticks": ticks, "boot_id": boot_id(), "fingerprint": "x", **changes}
        (tmp_path / "processes").mkdir()
        (tmp_path / "processes" / "sleeper.json").write_text(json.dumps(record))
        assert not processes.alive("sleeper"), reason
        assert not processes.stop("sleeper")
        assert foreign.poll() is None
        foreign.kill()


def test_a_service_that_ignores_the_kind_signal_is_killed(processes: Processes) -> None:
    processes.ensure(STUBBORN)
    pid = pid_of(processes, "stubborn")
    processes.wait_for("its handler", lambda: "ready" in processes.log("stubborn").read_text(), 10)
    assert processes.stop("stubborn", timeout_seconds=0.2)
    assert start_ticks(pid) is None


def test_a_record_cut_off_by_a_crash_is_removed(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "processes" / "sleeper.json").write_text('{"pid": 1')
    assert processes.record("sleeper") is None
    assert processes.names() == []


def test_waiting_ends_as_soon_as_the_service_ends_and_shows_its_words(processes: Processes) -> None:
    script = "import time; print('no such flag', flush=True); time.sleep(0.3)"
    processes.ensure(Service("broken", (sys.executable, "-c", script)))
    with pytest.raises(Refused, match="no such flag"):
        processes.wait_for("broken ready", lambda: False, 30, ("broken",))


@pytest.mark.parametrize(("times", "comes_up"), [(1, False), (2, True)])
def test_a_service_that_ends_until_another_is_ready_is_started_again_as_often_as_allowed(
    processes: Processes, tmp_path: Path, times: int, comes_up: bool
) -> None:
    script = f"""
import pathlib, time
starts = pathlib.Path({str(tmp_path / "starts")!r})
starts.open("a").write("x")
if len(starts.read_text()) < 3:
    time.sleep(0.3)
    raise SystemExit("the other is not ready yet")
pathlib.Path({str(tmp_path / "up")!r}).touch()
time.sleep(600)
"""
    service = Service("hasty", (sys.executable, "-c", script))
    processes.ensure(service)
    ready = processes.reviving(service, times, 0.0, (tmp_path / "up").exists)
    if comes_up:
        processes.wait_for("hasty ready", ready, 30, ("hasty",))
    else:
        with pytest.raises(Refused, match="the other is not ready yet"):
            processes.wait_for("hasty ready", ready, 30, ("hasty",))
