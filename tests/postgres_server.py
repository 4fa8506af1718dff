"""A real PostgreSQL server of the distribution, in a directory of its own, on a free port of the loopback interface.

The package is installed where it is missing, which needs root on Debian or Ubuntu; elsewhere the tests that need a
server fail and say so. A server does not run as root, so that root hands it to the user that the package makes.
"""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from local_cluster import packages

SERVER_USER = "postgres"
LOCALE = "C.UTF-8"
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
    """A running server."""

    port: int

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{SERVER_USER}@127.0.0.1:{self.port}/{database}"


@contextmanager
def running() -> Iterator[PostgresServer]:
    packages.install((PostgresPackage("postgresql"),))
    directory = programs()
    assert directory is not None
    root = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = SERVER_USER if os.geteuid() == 0 else None
    if user:
        os.chown(root, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(root / "data")

    def run(program: str, *arguments: str) -> None:
        command = [str(directory / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=user, cwd=root, env={"LC_ALL": LOCALE})

    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={root} -c fsync=off"
    try:
        run("initdb", "-D", data, "-U", SERVER_USER, "-A", "trust", "-E", "UTF8", f"--locale={LOCALE}")
        run("pg_ctl", "start", "-w", "-D", data, "-l", str(root / "log"), "-o", options)
        try:
            yield PostgresServer(port)
        finally:
            run("pg_ctl", "stop", "-m", "immediate", "-D", data)
    finally:
        shutil.rmtree(root, ignore_errors=True)
