"""Files of the api on their way to a training: broken off, damaged, gone, too large."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, StoredSource
from finetune_operator.contract.failures import EXIT_CODES, FailureReason, Refused
from finetune_operator.contract.places import INTERNAL_TOKEN_VARIABLE
from finetune_operator.store.datasets import stored
from finetune_operator.store.datasets.export import Export

CONTENT = b"".join(
    json.dumps({"prompt": f"What is {number}, then?", "response": "A number, of course: and a natural one."}).encode()
    + b"\n"
    for number in range(20)
)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PATH = f"file-{DIGEST[:32]}/data.jsonl"
BREAKS, DAMAGES = -1, -2


@dataclass
class Api:
    """A server of one file, and how it answers its next requests before it answers well."""

    url: str = ""
    content: bytes = CONTENT
    answers: list[int] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(stored, "BACKOFF_FIRST_SECONDS", 0.0)
    made = Api()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            made.ranges.append(wanted)
            made.tokens.add(self.headers["Authorization"])
            answer = made.answers.pop(0) if made.answers else 200
            begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if answer > 0 and answer != 200:
                self.send_response(answer)
                self.end_headers()
                return
            rest = made.content[begin:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("ETag", f'"{hashlib.sha256(made.content).hexdigest()}"')
            self.end_headers()
            self.wfile.write(
                rest[: len(rest) // 2] if answer == BREAKS else rest[:-1] + b"x" if answer == DAMAGES else rest
            )

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}/file"
    yield made
    server.shutdown()
    server.server_close()


def exported(api: Api, directory: Path, path: str = PATH, **changes: Any) -> Any:
    source = StoredSource(path=path, url=api.url)
    config = DatasetConfig(source=source, format="RawJSONL", test_fraction=0.1, **changes)
    return Export(config, "ChatML", Path(), {INTERNAL_TOKEN_VARIABLE: "secret"}, directory).write()


def test_a_file_of_the_api_becomes_a_dataset(api: Api, tmp_path: Path) -> None:
    report = exported(api, tmp_path)
    assert (report.rows, report.test_rows) == (18, 2)
    assert api.tokens == {"Bearer secret"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["dropped.jsonl", "test.jsonl", "train.jsonl"]


def test_what_broke_off_goes_on(api: Api, tmp_path: Path) -> None:
    api.answers = [503, BREAKS, BREAKS]
    assert exported(api, tmp_path).rows == 18
    half = len(CONTENT) // 2
    assert api.ranges == ["", "", f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]


def test_what_arrived_damaged_is_fetched_anew(api: Api, tmp_path: Path) -> None:
    api.answers = [DAMAGES]
    assert exported(api, tmp_path).rows == 18
    assert api.ranges == ["", ""]


def test_another_content_than_the_id_says_is_no_training(api: Api, tmp_path: Path) -> None:
    api.content = CONTENT.replace(b"natural", b"unnatural")
    with pytest.raises(Refused, match="it arrived damaged") as caught:
        exported(api, tmp_path)
    assert caught.value.failure.reason == FailureReason.DATASET_UNAVAILABLE
    exported(api, tmp_path, path=f"rawjsonl-{'0' * 32}/train.jsonl")


def test_a_file_to_evaluate_by(api: Api, tmp_path: Path) -> None:
    validation = StoredSource(path=PATH, url=api.url)
    report = exported(api, tmp_path, validation=validation)
    assert (report.rows, report.test_rows) == (20, 20)
    assert (tmp_path / "test.jsonl").read_bytes() == (tmp_path / "train.jsonl").read_bytes()
    assert report.digest != exported(api, tmp_path).digest
    assert report == exported(api, tmp_path, validation=validation)


FINAL: dict[str, tuple[int, FailureReason, str]] = {
    "gone": (404, FailureReason.DATASET_INVALID, "does not keep"),
    "another token": (401, FailureReason.DATASET_UNAVAILABLE, "refused this namespace's internal token"),
}


@pytest.mark.parametrize("case", FINAL)
def test_what_stays_as_it_is_is_not_tried_again(api: Api, tmp_path: Path, case: str) -> None:
    status, reason, words = FINAL[case]
    api.answers = [status]
    with pytest.raises(Refused, match=words) as caught:
        exported(api, tmp_path)
    assert caught.value.failure.reason == reason
    assert len(api.ranges) == 1


def test_an_api_that_stays_away_is_for_kubernetes_to_try_again(api: Api, tmp_path: Path) -> None:
    api.answers = [503] * stored.TRIES
    with pytest.raises(Refused, match="the api answered with 503") as caught:
        exported(api, tmp_path)
    assert caught.value.failure.reason not in EXIT_CODES
    assert len(api.ranges) == stored.TRIES


def test_too_much(api: Api, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"dataset.maxBytes"):
        exported(api, tmp_path, max_bytes=1000)


def test_rows_are_named_by_their_number(api: Api, tmp_path: Path) -> None:
    api.content = CONTENT + b"{}\n"
    path = f"rawjsonl-{'0' * 32}/train.jsonl"
    with pytest.raises(Refused, match=f"row 21 of {path} is not a RawJSONL record"):
        exported(api, tmp_path, path=path)


def test_an_operator_that_knows_no_api(tmp_path: Path) -> None:
    config = DatasetConfig(source=StoredSource(path=PATH), format="RawJSONL")
    with pytest.raises(Refused, match="this operator knows none"):
        Export(config, "ChatML", Path(), {}, tmp_path).write()
