"""A real PostgreSQL server of the distribution, in a directory of its own, on a free port of the loopback interface.

The package is installed where it is missing, which needs root on Debian or Ubuntu; elsewhere the tests that need a
server fail and say so. A server does not run as root, so that root hands it to the user that the package makes.
"""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from local_cluster import packages

SERVER_USER = "postgres"
LOCALE = "C.UTF-8"
LOOPBACK = "127.0.0.1"
DEATH_SECONDS = 30.0
_numbers = itertools.count(1)


class PostgresPackage(packages.Package):
    """Present where its programs are, whatever their version."""

    def present(self) -> bool:
        return programs() is not None


def programs() -> Path | None:
    """The directory of the newest version's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in found), key=lambda path: float(path.parent.name), default=None)


@dataclass(frozen=True)
class PostgresServer:
    """A server, and the directory that holds all it has."""

    port: int
    programs: Path
    root: Path
    addresses: tuple[str, ...] = (LOOPBACK,)

    @property
    def user(self) -> str | None:
        """Whom it runs as, where that is somebody else."""
        return SERVER_USER if os.geteuid() == 0 else None

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{SERVER_USER}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Returns once it answers, after a crash hence with what it had committed."""
        listening = f"-c port={self.port} -c listen_addresses={','.join(self.addresses)}"
        options = f"{listening} -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(self.root / "log"), "-o", options)

    def stop(self) -> None:
        """Nothing where it has crashed and was not started again."""
        if Path(self._data, "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._data)

    def create(self) -> None:
        self._run("initdb", "-D", self._data, "-U", SERVER_USER, "-A", "trust", "-E", "UTF8", f"--locale={LOCALE}")

    def admit(self, subnet: str, password: str) -> None:
        """Whoever comes from there, by the password; the loopback interface needs none."""
        with Path(self._data, "pg_hba.conf").open("a") as rules:
            rules.write(f"host all {SERVER_USER} {subnet} scram-sha-256\n")
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER USER {} PASSWORD {}").format(sql.Identifier(SERVER_USER), password))
            connection.execute("SELECT pg_reload_conf()")

    def crash(self) -> None:
        """SIGKILL for every process of it at once, as when its machine's memory runs out; it stays down."""
        marker = Path(self._data, "postmaster.pid")
        postmaster = int(marker.read_text().splitlines()[0])
        # Stopped, it neither begins nor reaps a process meanwhile.
        os.kill(postmaster, signal.SIGSTOP)
        processes = (*_children(postmaster), postmaster)
        for process in processes:
            _kill(process)
        deadline = time.monotonic() + DEATH_SECONDS
        while alive := [process for process in processes if _is_alive(process)]:
            assert time.monotonic() < deadline, f"not dead yet: {alive}"
            time.sleep(0.02)
        # Where nobody reaps orphans, a server that starts would take the dead one for a running one.
        marker.unlink()

    def crash_session(self, database: str) -> bool:
        """SIGKILL for one of the database's sessions, after which the server throws out all and recovers by itself."""
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() LIMIT 1"
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(query, (database,)).fetchone()
            if found:
                _kill(int(found[0]))
        return found is not None

    @property
    def _data(self) -> str:
        return str(self.root / "data")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        environment = {"LC_ALL": LOCALE}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self.user, cwd=self.root, env=environment)


@contextmanager
def running(*further_addresses: str) -> Iterator[PostgresServer]:
    """On the loopback interface, and on further addresses of this machine."""
    packages.install((PostgresPackage("postgresql"),))
    directory = programs()
    assert directory is not None
    root = Path(tempfile.mkdtemp(prefix="postgres-"))
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    server = PostgresServer(port, directory, root, (LOOPBACK, *further_addresses))
    if server.user:
        os.chown(root, pwd.getpwnam(server.user).pw_uid, -1)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _children(process: int) -> tuple[int, ...]:
    return tuple(int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split())


def _kill(process: int) -> None:
    """As good where it has just ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
