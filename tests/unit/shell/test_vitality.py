"""The liveness probe: what proves that a process has to be replaced, and what does not."""

import asyncio
from typing import Any

from finetune_operator.shell.queue import WorkQueue
from finetune_operator.shell.vitality import QUEUE_GRACE_SECONDS, WATCH_GRACE_SECONDS, Vitality
from tests.waiting import eventually

AGAIN = 2 * WATCH_GRACE_SECONDS


def pod(version: int, uid: str = "pod-uid") -> dict[str, Any]:
    return {"metadata": {"namespace": "finetune", "name": "pod", "uid": uid, "resourceVersion": str(version)}}


def listed(vitality: Vitality, now: float, *bodies: dict[str, Any]) -> str | None:
    vitality.listed("pods", "finetune", bodies, now)
    return vitality.complaint(0.0)


def test_a_watch_that_has_nothing_to_tell_is_alive() -> None:
    vitality = Vitality()
    vitality.brought("pods", pod(7))
    for hour in range(48):
        assert listed(vitality, hour * 3600.0, pod(7)) is None


def test_a_watch_that_does_not_bring_what_two_listings_tell_is_dead() -> None:
    vitality = Vitality()
    vitality.brought("pods", pod(7))
    assert listed(vitality, 0, pod(8)) is None
    assert listed(vitality, WATCH_GRACE_SECONDS - 1, pod(8)) is None
    complaint = listed(vitality, AGAIN, pod(9))
    assert complaint == "the watch of pods in finetune does not bring what listings tell of pod-uid"
    vitality.brought("pods", pod(9))
    assert vitality.complaint(0.0) is None


def test_an_object_that_no_watch_ever_brought_counts_too() -> None:
    vitality = Vitality()
    assert listed(vitality, 0, pod(8)) is None
    assert listed(vitality, AGAIN, pod(8)) is not None


def test_a_watch_that_is_only_late_is_alive() -> None:
    vitality = Vitality()
    for second in range(0, 10_000, 600):
        assert listed(vitality, second, pod(second + 2)) is None
        vitality.brought("pods", pod(second + 1))


def test_what_has_gone_between_two_listings_accuses_nobody() -> None:
    vitality = Vitality()
    assert listed(vitality, 0, pod(8)) is None
    assert listed(vitality, AGAIN) is None
    assert listed(vitality, 2 * AGAIN, pod(8, "a-later-one")) is None
    vitality.listed("pods", "finetune", (pod(8, "a-later-one"),), 3 * AGAIN)
    vitality.gone("pods", pod(8, "a-later-one"))
    assert vitality.complaint(0.0) is None


def test_a_queue_that_ends_nothing_is_dead() -> None:
    assert Vitality().complaint(QUEUE_GRACE_SECONDS) is None
    assert "no reconcile has come to an end for 3601 s" in (Vitality().complaint(QUEUE_GRACE_SECONDS + 1) or "")


async def test_a_queue_tells_how_long_nothing_has_ended_while_something_was_to_be_done() -> None:
    now, release, failures, ended = 0.0, asyncio.Event(), list[str](), set[str]()

    async def handle(key: str) -> None:
        if key == "slow":
            await release.wait()
        if key == "broken" and not failures:
            raise ValueError(key)
        ended.add(key)

    queue = WorkQueue[str](lambda key, _error, _seconds: failures.append(key), clock=lambda: now)
    work = asyncio.create_task(queue.run(handle, 2))
    try:
        now = 1000.0
        assert queue.unfinished_seconds() == 0
        queue.add("slow")
        now += 50
        assert queue.unfinished_seconds() == 50
        # What fails has come to an end, too.
        queue.add("broken")
        await eventually(lambda: failures == ["broken"] and queue.unfinished_seconds() == 0)
        now += 7
        assert queue.unfinished_seconds() == 7
        release.set()
        await eventually(lambda: ended == {"slow", "broken"})
        now += 5000
        assert queue.unfinished_seconds() == 0
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
