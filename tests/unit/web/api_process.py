"""The api in a process of its own, as a pod runs it."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.unit.kubeconfig import kubeconfig
from tests.unit.web.conftest import ENVIRONMENT

DEADLINE_SECONDS = 30.0
START_SECONDS = 120.0
"""A start is two seconds of a core, which other tests may have."""
NO_CLUSTER = "https://127.0.0.1:1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(65_536)


def request(method: str, path: str, length: int = 0) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer internal-token\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


class Process:
    """Started at once, and again by `start`, on the same port and database."""

    def __init__(self, directory: Path, cluster: str = NO_CLUSTER, **environment: str) -> None:
        self.port = free_port()
        (directory / "kubeconfig").write_text(kubeconfig(cluster))
        self.log = directory / "log"
        self._variables = {
            **ENVIRONMENT,
            "FINETUNE_DATABASE_URL": f"sqlite+aiosqlite:///{directory}/api.db",
            "FINETUNE_API_HOST": "127.0.0.1",
            "FINETUNE_API_PORT": str(self.port),
            "KUBECONFIG": str(directory / "kubeconfig"),
            **environment,
        }
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetune_operator", "api"],
                env=os.environ | self._variables,
                stdout=log,
                stderr=log,
            )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECONDS)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.connect() as connection:
                    if exchange(connection, request("GET", "/readyz")).startswith(b"HTTP/1.1 200"):
                        return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def wait_until_refusing(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return
            time.sleep(0.05)
        raise AssertionError("still accepts connections")

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """SIGKILL, whatever it is doing; nothing where it has ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.wait()
