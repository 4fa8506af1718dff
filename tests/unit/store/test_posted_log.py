"""A container's log reaches the api: whole lines, without secrets, also when it fails or the api is away."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.job_logs import LINE_MAX_CHARACTERS, LOG_MAX_BYTES, LOG_MAX_LINES, LogTail
from finetune_operator.contract.places import PROGRESS_LOG_PATH, PROGRESS_PATH
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.log_posts import LogPosts
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store.posted_log import posted_log
from tests.unit.store.prepare_pod import Pod
from tests.waiting import eventually

JOB = JobIdentity(namespace="finetune", name="plato", uid="uid")


class LogServer:
    """Takes what is posted, as the api does, or answers with an error."""

    def __init__(self) -> None:
        self.tails: list[LogTail] = []
        self.asked: list[tuple[str, str | None]] = []
        self.status = 204
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, self.headers.get("Authorization")))
                if outer.status == 204:
                    outer.tails.append(LogTail.model_validate_json(body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
                """Quiet: a test shows what was posted."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{PROGRESS_PATH}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[LogServer]:
    made = LogServer()
    yield made
    made.close()


def config(url: str | None) -> TrainingConfig:
    return TrainingConfig(
        job=JOB,
        model="plato",
        method="SFT",
        backend="HuggingFace",
        base_model_name="tiny",
        base_model_path="tiny",
        dataset=DatasetConfig(source=RatingsSource()),
        lora=LoraConfig(),
        training=TrainingParameters(),
        progress_url=url,
    )


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("one\ntwo", ["one", "two"]),
        ("\n".join(map(str, range(500))), [str(number) for number in range(300, 500)]),
        ("a" * (LINE_MAX_CHARACTERS + 1), ["a" * LINE_MAX_CHARACTERS + "..."]),
        ("\n".join(["\u20ac" * 4000] * 9), ["\u20ac" * 4000] * 5),
        ("NUL \0, half a pair \ud800", ["NUL \ufffd, half a pair ?"]),
    ],
    ids=["nothing", "all", "many lines", "a long line", "many bytes", "what can't be kept"],
)
def test_the_end_of_a_log_is_of_whole_lines(text: str, lines: list[str]) -> None:
    tail = LogTail.of(JOB, "trainer", text, datetime.now(UTC))
    assert tail.text.splitlines() == lines
    assert len(lines) <= LOG_MAX_LINES
    assert len(tail.text.encode()) <= LOG_MAX_BYTES
    assert LogTail.model_validate_json(tail.model_dump_json(by_alias=True)) == tail


async def test_what_is_logged_is_posted_while_it_lasts_and_at_the_end(server: LogServer) -> None:
    configure_logging()
    environment = {"FINETUNE_INTERNAL_TOKEN": "internal", "FINETUNE_PROVIDER_KEY": "sk-secret"}
    with posted_log(config(server.url), "trainer", environment, interval_seconds=0.05):
        get_logger("test").info("begins", key="sk-secret")
        await eventually(lambda: server.tails)
        get_logger("test").info("ends")
    get_logger("test").info("not of it")
    assert server.asked[0] == (PROGRESS_LOG_PATH, "Bearer internal")
    said = [json.loads(line) for line in server.tails[-1].text.splitlines()]
    assert [(line["event"], line.get("key")) for line in said] == [("begins", "***"), ("ends", None)]
    assert (server.tails[-1].job, server.tails[-1].container) == (JOB, "trainer")


def test_a_crash_is_the_last_that_is_told(server: LogServer) -> None:
    with pytest.raises(ZeroDivisionError), posted_log(config(server.url), "prepare", {}):
        _ = 1 / 0
    assert "ZeroDivisionError" in server.tails[-1].text


async def test_an_api_that_is_away_is_told_of_once_and_gets_it_later(server: LogServer) -> None:
    said: list[str] = []
    server.status = 503
    posts = LogPosts(config(server.url), "trainer", {}, lambda: "one\n", said.append, interval_seconds=0.02)
    await eventually(lambda: len(server.asked) > 2)
    server.status = 204
    await eventually(lambda: server.tails)
    posts.close()
    assert [tail.text for tail in server.tails] == ["one\n"], "and what is no news is not posted again"
    assert len(said) == 1
    assert "503" in said[0]


@pytest.mark.parametrize("token", ["s3cret\n", "s3cr\u00e9t", "s3cr\u20act"], ids=["line feed", "Latin", "Unicode"])
async def test_a_token_that_no_header_can_have_is_told_of_without_it(server: LogServer, token: str) -> None:
    said: list[str] = []
    environment = {"FINETUNE_INTERNAL_TOKEN": token}
    posts = LogPosts(config(server.url), "trainer", environment, lambda: "one\n", said.append)
    posts.close()
    assert not server.asked
    (words,) = said
    assert "internal-token" in words
    assert "s3cr" not in words


def test_the_password_of_the_database_is_blanked_also_by_itself(server: LogServer) -> None:
    configure_logging()
    environment = {"FINETUNE_DATABASE_URL": "postgresql://ada:hunt%20er2@db/ratings?sslpassword=swordfish"}
    with posted_log(config(server.url), "prepare", environment):
        get_logger("test").info("refused", of="hunt er2", also="hunt%20er2", key="swordfish")
    (line,) = [json.loads(line) for line in server.tails[-1].text.splitlines()]
    assert (line["of"], line["also"], line["key"]) == ("***", "***", "***")


async def test_what_a_library_logs_wrongly_ends_no_work(server: LogServer) -> None:
    configure_logging()
    with posted_log(config(server.url), "prepare", {}):
        logging.getLogger("library").warning("of %d", "no number")
        logging.getLogger("library").warning("goes on")
    assert [json.loads(line)["event"] for line in server.tails[-1].text.splitlines()] == ["goes on"]


def test_without_an_api_nothing_is_posted() -> None:
    with posted_log(config(None), "prepare", {}):
        get_logger("test").info("alone")


def test_why_a_dataset_was_refused_is_told(server: LogServer, pod: Pod) -> None:
    assert pod.ratings().run(config(server.url)) == EXIT_CODES[FailureReason.DATASET_EMPTY]
    assert "dataset refused" in server.tails[-1].text
    assert server.tails[-1].container == "prepare"
