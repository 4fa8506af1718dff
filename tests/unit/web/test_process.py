"""The process as a pod runs it: ready once it can work, finishing its requests at SIGTERM, plain about mistakes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.contract.places import PROGRESS_PATH
from tests.unit.kubeconfig import kubeconfig
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.test_internal import point

DEADLINE_SECONDS = 30.0


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
    """The api in a process of its own."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        (directory / "kubeconfig").write_text(kubeconfig("https://127.0.0.1:1"))
        self.log = directory / "log"
        variables = ENVIRONMENT | {
            "FINETUNE_DATABASE_URL": f"sqlite+aiosqlite:///{directory}/api.db",
            "FINETUNE_API_HOST": "127.0.0.1",
            "FINETUNE_API_PORT": str(self.port),
            "KUBECONFIG": str(directory / "kubeconfig"),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetune_operator", "api"],
                env=os.environ | variables | environment,
                stdout=log,
                stderr=log,
            )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECONDS)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
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


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
            process.wait()


def test_a_request_that_is_under_way_is_finished_at_sigterm(tmp_path: Path, processes: list[Process]) -> None:
    processes.append(api := Process(tmp_path))
    api.wait_until_ready()
    body = json.dumps(point(1, 1.0)).encode()
    with api.connect() as connection:
        connection.sendall(request("POST", PROGRESS_PATH, len(body)) + body[:10])
        # The server has surely read the first half once it has answered a later request.
        api.wait_until_ready()
        api.process.send_signal(signal.SIGTERM)
        api.wait_until_refusing()
        assert exchange(connection, body[10:]).startswith(b"HTTP/1.1 204")
    assert api.wait() == 0
    for line in api.log.read_text().splitlines():
        assert {"event", "level", "time"} <= json.loads(line).keys()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FINETUNE_API_TOKEN": ""}, "set FINETUNE_API_TOKEN, or FINETUNE_API_OPEN=true"),
        ({"FINETUNE_DATABASE_URL": "mysql://u:hunter2@h/d"}, "'mysql' are not supported"),
    ],
)
def test_a_wrong_environment_is_told_and_ends_the_process(
    tmp_path: Path, processes: list[Process], environment: dict[str, str], message: str
) -> None:
    processes.append(api := Process(tmp_path, **environment))
    assert api.wait() == 2
    assert message in api.log.read_text()
    assert "hunter2" not in api.log.read_text()


def test_an_open_api_says_so(tmp_path: Path, processes: list[Process]) -> None:
    processes.append(api := Process(tmp_path, FINETUNE_API_TOKEN="", FINETUNE_API_OPEN="true"))
    api.wait_until_ready()
    api.process.send_signal(signal.SIGTERM)
    assert api.wait() == 0
    assert "RUNNING OPEN" in api.log.read_text()
