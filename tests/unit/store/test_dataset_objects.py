"""A store that fails: what may pass is tried again, and what the store refused is not."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource
from finetune_operator.contract.failures import EXIT_CODES, FailureReason, Refused
from finetune_operator.store.datasets import objects
from finetune_operator.store.datasets.export import Export

ROW = {"prompt": "What is justice?", "response": "Everyone doing their own work."}
OBJECT = json.dumps(ROW).encode()
CUT_OFF, RESET = -1, -2


class Store(NamedTuple):
    """A server of one object, and how it answers its next requests before it answers well."""

    address: str
    answers: list[int]
    asked: list[int]


@pytest.fixture
def store() -> Iterator[Store]:
    answers: list[int] = []
    asked: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self, body: bytes) -> None:
            status = answers.pop(0) if answers else 200
            asked.append(status)
            if status == RESET:
                self.connection.close()
                return
            if status == CUT_OFF and not body:
                answers.insert(0, CUT_OFF)
            self.send_response(status if status > 0 else 206 if body else 200)
            self.send_header("Content-Length", str(len(OBJECT) if status in {200, CUT_OFF} else 0))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Sat, 21 Nov 2026 12:00:00 GMT")
            self.end_headers()
            if status in {200, CUT_OFF}:
                self.wfile.write(body[: 5 if status == CUT_OFF else None])
            self.close_connection = True

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(OBJECT)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Store(f"http://127.0.0.1:{server.server_port}", answers, asked)
    server.shutdown()
    thread.join()
    server.server_close()


def exported(store: Store, tmp_path: Path, **changes: int) -> int:
    source = ObjectSource(url="s3://data/rows", endpoint=store.address)
    config = DatasetConfig(source=source, format="RawJSONL", test_fraction=0.0, **changes)
    return Export(config, "ChatML", tmp_path, {}, tmp_path).write().rows


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BACKOFF_FIRST_SECONDS", 0.001)


PASSING = {
    "unavailable": [503],
    "slow down": [429],
    "an error of its own": [500, 200, 500],
    "a connection that is reset": [RESET, RESET],
    "an object that is cut off": [CUT_OFF],
}


@pytest.mark.parametrize("answers", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(store: Store, tmp_path: Path, answers: list[int]) -> None:
    store.answers.extend(answers)
    assert exported(store, tmp_path) == 1
    assert not store.answers


def test_an_outage_that_lasts_is_left_to_kubernetes(store: Store, tmp_path: Path) -> None:
    store.answers.extend([503] * 100)
    with pytest.raises(Refused, match="can't be fetched") as caught:
        exported(store, tmp_path)
    assert caught.value.failure.reason == FailureReason.DATASET_UNAVAILABLE
    assert caught.value.failure.reason not in EXIT_CODES
    assert len(store.asked) == objects.TRIES


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can't be fetched") as caught:
        exported(Store("http://127.0.0.1:9", [], []), tmp_path)
    assert caught.value.failure.reason == FailureReason.DATASET_UNAVAILABLE


FINAL = {
    "forbidden": (403, "may not be read with these credentials"),
    "absent": (404, "does not exist"),
    "not understood": (400, "is refused by the store"),
}


@pytest.mark.parametrize(("status", "message"), FINAL.values(), ids=FINAL)
def test_what_the_store_refuses_is_asked_once(store: Store, tmp_path: Path, status: int, message: str) -> None:
    store.answers.extend([status] * 100)
    with pytest.raises(Refused, match=message) as caught:
        exported(store, tmp_path)
    assert caught.value.failure.reason in EXIT_CODES
    assert len(store.asked) <= 2  # s3fs looks for a directory where it finds no object


def test_an_object_larger_than_the_dataset_may_be_is_not_fetched(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than 10 bytes"):
        exported(store, tmp_path, max_bytes=10)
    assert len(store.asked) == 1
