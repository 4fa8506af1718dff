"""The work queue: unique keys, one worker per key, backoff after failures."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from finetune_operator.shell import queue as module
from finetune_operator.shell.queue import WorkQueue
from tests.waiting import eventually

Handle = Callable[[str], Awaitable[float | None]]


class Errors:
    """What the queue reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, float]] = []

    def __call__(self, key: str, error: Exception, again_after: float) -> None:
        self.seen.append((key, str(error), again_after))


@asynccontextmanager
async def working(queue: WorkQueue[str], handle: Handle, workers: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(handle, workers))
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_each_key_is_worked_on_once_however_often_it_was_added() -> None:
    done: list[str] = []

    async def handle(key: str) -> None:
        done.append(key)

    queue = WorkQueue[str](Errors())
    for key in ("a", "b", "a", "a", "b"):
        queue.add(key)
    async with working(queue, handle):
        await eventually(lambda: len(done) == 2)
        queue.add("c")
        await eventually(lambda: "c" in done)
    assert sorted(done) == ["a", "b", "c"]


async def test_a_key_that_changes_while_it_is_worked_on_comes_again_afterwards() -> None:
    running, most_at_once, rounds = 0, 0, 0
    release = asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal running, most_at_once, rounds
        running, rounds = running + 1, rounds + 1
        most_at_once = max(most_at_once, running)
        await release.wait()
        running -= 1

    queue = WorkQueue[str](Errors())
    async with working(queue, handle):
        queue.add("a")
        await eventually(lambda: running == 1)
        for _ in range(5):
            queue.add("a")
        release.set()
        await eventually(lambda: rounds == 2 and running == 0)
        queue.add("last")
        await eventually(lambda: rounds == 3)
    assert most_at_once == 1


async def test_other_keys_go_on_while_one_is_busy() -> None:
    stuck, done = asyncio.Event(), []

    async def handle(key: str) -> None:
        if key == "slow":
            await stuck.wait()
        done.append(key)

    queue = WorkQueue[str](Errors())
    async with working(queue, handle, workers=2):
        queue.add("slow")
        queue.add("quick")
        await eventually(lambda: done == ["quick"])


async def test_a_key_comes_again_after_the_time_that_it_asked_for() -> None:
    times: list[float] = []

    async def handle(key: str) -> float | None:
        times.append(asyncio.get_running_loop().time())
        return 0.05 if len(times) == 1 else None

    queue = WorkQueue[str](Errors())
    async with working(queue, handle):
        queue.add("a")
        await eventually(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.045


@pytest.mark.parametrize("delays", [(0.02, 30.0), (30.0, 0.02)], ids=["nearer first", "nearer last"])
async def test_of_two_times_the_nearer_one_counts(delays: tuple[float, float]) -> None:
    done: list[str] = []

    async def handle(key: str) -> None:
        done.append(key)

    queue = WorkQueue[str](Errors())
    async with working(queue, handle):
        for delay in delays:
            queue.add_after("a", delay)
        await eventually(lambda: done == ["a"], timeout_seconds=5)


async def test_a_failing_key_is_reported_and_comes_again_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 0.004)
    monkeypatch.setattr(module, "BACKOFF_MAX_SECONDS", 0.016)
    errors = Errors()

    async def handle(key: str) -> None:
        raise ValueError("no")

    queue = WorkQueue[str](errors)
    async with working(queue, handle):
        queue.add("a")
        await eventually(lambda: len(errors.seen) >= 5)
    for delay, longest in zip((seen[2] for seen in errors.seen), (0.004, 0.008, 0.016, 0.016, 0.016), strict=False):
        assert longest / 2 <= delay <= longest
    assert {(key, message) for key, message, _ in errors.seen} == {("a", "no")}


async def test_after_a_success_the_backoff_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 0.004)
    errors, rounds = Errors(), 0

    async def handle(key: str) -> None:
        nonlocal rounds
        rounds += 1
        if rounds != 3:
            raise ValueError("no")

    queue = WorkQueue[str](errors)
    async with working(queue, handle):
        queue.add("a")
        await eventually(lambda: rounds >= 3)
        queue.add("a")
        await eventually(lambda: len(errors.seen) >= 3)
    assert errors.seen[2][2] <= 0.004


async def test_a_failing_key_that_changes_meanwhile_still_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of changes must not become a storm of tries."""
    monkeypatch.setattr(module, "BACKOFF_FIRST_SECONDS", 30.0)
    errors, started, release = Errors(), asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def handle(key: str) -> None:
        if key == "other":
            done.append(key)
            return
        started.set()
        await release.wait()
        raise ValueError("no")

    queue = WorkQueue[str](errors)
    async with working(queue, handle, workers=1):
        queue.add("a")
        await started.wait()
        queue.add("a")
        release.set()
        await eventually(lambda: len(errors.seen) == 1)
        queue.add("other")
        await eventually(lambda: done == ["other"])
    assert len(errors.seen) == 1
