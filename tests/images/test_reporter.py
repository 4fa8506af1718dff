"""What waits to be posted while the api is away; on the trainer's own module, without a training."""

import importlib
import socketserver
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.training import JobIdentity, Progress
from tests.images.ml_environment import REPOSITORY
from tests.images.training import progress_server
from tests.waiting import eventually

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
JOB = JobIdentity(namespace="finetune", name="plato", uid="uid")


@pytest.fixture(scope="module")
def reporter() -> ModuleType:
    sys.path.insert(0, str(REPOSITORY / "trainer_image"))
    try:
        return importlib.import_module("reporter")
    finally:
        sys.path.pop(0)


def point(step: int, seconds: float | None = None, **measured: Any) -> Progress:
    """The point of a step, by default a second after the one before."""
    at = NOON + timedelta(seconds=step if seconds is None else seconds)
    return Progress(job=JOB, attempt="a", step=step, total_steps=10**6, epoch=0, total_epochs=1, time=at, **measured)


def steps(points: tuple[Progress, ...]) -> list[int]:
    return [each.step for each in points]


def test_points_are_an_interval_apart_and_the_first_and_the_newest_are_kept(reporter: ModuleType) -> None:
    series = reporter.Series(interval_seconds=10)
    for step in range(36):
        series.add(point(step))

    assert steps(series.take(100)) == [0, 10, 20, 30, 35]
    assert not series


def test_a_step_told_again_replaces_the_one_before(reporter: ModuleType) -> None:
    series = reporter.Series(interval_seconds=0)
    for each in (point(1), point(1, eval_loss=2.0), point(2)):
        series.add(each)

    assert [each.eval_loss for each in series.take(10)] == [2.0, None]


def test_what_could_not_be_posted_comes_first_again(reporter: ModuleType) -> None:
    series = reporter.Series(interval_seconds=1)
    for step in range(5):
        series.add(point(step))
    taken = series.take(3)
    series.add(point(5))
    series.put_back(taken)

    assert steps(series.take(10)) == [0, 1, 2, 3, 4, 5]


@given(added=st.integers(min_value=1, max_value=3000), most=st.integers(min_value=2, max_value=50))
def test_a_full_series_is_thinned_evenly_and_never_grows(reporter: ModuleType, added: int, most: int) -> None:
    series = reporter.Series(interval_seconds=1, most_points=most)
    for step in range(added):
        series.add(point(step))

    kept = steps(series.take(10**6))
    gaps = [after - before for before, after in pairwise(kept)]
    assert len(kept) <= most + 1
    assert kept[0] == 0
    assert kept[-1] == added - 1
    assert kept == sorted(set(kept))
    # The two newest are kept however near they are; apart from them no gap is much larger than another.
    if len(gaps) > 3:
        assert max(gaps) <= 4 * min(gaps[:-2])


async def test_a_gap_is_closed_in_batches_once_the_api_is_back(
    reporter: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(reporter, "log", lambda message, **fields: told.append(message))
    with progress_server() as away:
        port, url = away.port, away.url
    sending = reporter.Reporter(url, "token", 0.001)
    for step in range(1200):
        sending.offer(point(step))
    await eventually(lambda: "progress can't be reported; the training goes on" in told)

    with progress_server(port) as back:
        sending.close(wait_seconds=60)

    assert steps(tuple(back.received)) == list(range(1200))
    assert max(back.batches) == 500
    assert told[-1] == "progress is reported again"


def test_an_api_that_stays_away_does_not_hold_up_the_end(reporter: ModuleType) -> None:
    with progress_server() as away:
        url = away.url
    sending = reporter.Reporter(url, "token", 0.001)
    sending.offer(point(1))
    started = time.monotonic()

    sending.close()

    assert time.monotonic() - started < 5


def test_an_answer_that_is_no_http_is_an_error_like_any_other(reporter: ModuleType) -> None:
    class Babbler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"what?\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Babbler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        posting = reporter.Reporter(f"http://127.0.0.1:{server.server_address[1]}/progress", None, 0.01)
        try:
            assert "BadStatusLine" in posting._post((point(1),))
        finally:
            posting.close()
            server.shutdown()


def test_a_token_that_no_header_can_have_is_told_of_without_it(reporter: ModuleType) -> None:
    with progress_server() as server:
        posting = reporter.Reporter(server.url, "s3cret\n", 0.01)
        try:
            words = posting._post((point(1),))
        finally:
            posting.close()
    assert "internal-token" in words
    assert "s3cret" not in words
