"""Starts and stops long-running processes, and recognises its own after a crash or a reboot.

A process identifier alone proves nothing: it may belong to another program by now. A record therefore holds the
kernel's start time and boot identifier too, and no process is trusted or killed unless all three agree.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.console import Refused, note, tail

POLL_INTERVAL_SECONDS = 0.05
LOG_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Service:
    """One program to keep running, and the files whose change calls for its restart."""

    name: str
    argv: tuple[str, ...]
    config_files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    """TCP ports that must be free before it starts."""

    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([self.argv, sorted(self.environment.items())]).encode())
        for path in self.config_files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Record:
    """What identifies a started process for ever."""

    pid: int
    start_ticks: int
    boot_id: str
    fingerprint: str

    def alive(self) -> bool:
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat); None if it has ended, zombies included."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command name may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def command(program: Path | str, flags: Mapping[str, str]) -> tuple[str, ...]:
    """A program with `--name=value` flags."""
    return (str(program), *(f"--{name}={value}" for name, value in flags.items()))


class Processes:
    """The processes of one cluster, with their records and logs."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs

    def record(self, name: str) -> Record | None:
        path = self._records / f"{name}.json"
        try:
            return Record(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            note(f"{name}: its record was cut off by a crash; removed")
            path.unlink()
            return None

    def alive(self, name: str) -> bool:
        record = self.record(name)
        return record is not None and record.alive()

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._records.glob("*.json"))

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def ensure(self, service: Service) -> bool:
        """Starts the service unless it runs with the same arguments and files already; True if it started it."""
        record = self.record(service.name)
        if record is not None and record.alive():
            if record.fingerprint == service.fingerprint():
                return False
            note(f"{service.name}: its configuration changed, restarting it")
            self.stop(service.name)
        elif record is not None:
            note(f"{service.name}: process {record.pid} is gone, starting it again")
        self._start(service)
        return True

    def _start(self, service: Service) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self.log(service.name)
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".previous.log"))
        with log.open("ab") as output:
            process = subprocess.Popen(
                service.argv,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **service.environment},
                cwd="/",
            )
        ticks = start_ticks(process.pid)
        if ticks is None:
            raise Refused(f"{service.name} ended at once; the end of {log}:\n{tail(log)}")
        record = Record(process.pid, ticks, boot_id(), service.fingerprint())
        path = self._records / f"{service.name}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record.__dict__))
        partial.replace(path)

    def reviving(
        self, service: Service, times: int, pause_seconds: float, ready: Callable[[], bool]
    ) -> Callable[[], bool]:
        """`ready` for `wait_for`, which first starts the service again where it ended, at most so many times."""
        left = times

        def ready_or_started_again() -> bool:
            nonlocal left
            if left and not self.alive(service.name):
                left -= 1
                time.sleep(pause_seconds)
                self.ensure(service)
            return ready()

        return ready_or_started_again

    def stop(self, name: str, timeout_seconds: float = 15.0) -> bool:
        """Ends a process that is proven to be ours, kindly, then by force; True if there was one."""
        record = self.record(name)
        if record is None:
            return False
        was_alive = record.alive()
        for stop_signal, seconds in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 5.0)):
            if not record.alive():
                break
            try:
                os.kill(record.pid, stop_signal)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + seconds
            while record.alive() and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL_SECONDS)
        (self._records / f"{name}.json").unlink(missing_ok=True)
        return was_alive

    def wait_for(
        self, what: str, ready: Callable[[], bool], timeout_seconds: float, services: tuple[str, ...] = ()
    ) -> None:
        """Waits until `ready`; Refused at once if one of the services ends meanwhile, or at the deadline."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            for name in services:
                if not self.alive(name):
                    raise Refused(f"{name} ended; the end of {self.log(name)}:\n{tail(self.log(name))}")
            if time.monotonic() > deadline:
                logs = ", ".join(str(self.log(name)) for name in services)
                raise Refused(f"{what}: not within {timeout_seconds:.0f} s; see {logs or self._logs}")
            time.sleep(POLL_INTERVAL_SECONDS)
