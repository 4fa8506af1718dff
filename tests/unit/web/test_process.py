"""The process as a pod runs it: ready once it can work, finishing its requests at SIGTERM, plain about mistakes."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_operator.contract.places import PROGRESS_PATH
from tests.unit.web.api_process import Process, exchange, request
from tests.unit.web.test_internal import point


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()


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
