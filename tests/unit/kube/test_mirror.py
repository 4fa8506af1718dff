"""The mirror against a source that is told, step by step, what to answer."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from finetune_operator.kube import mirror as mirror_module
from finetune_operator.kube.errors import Gone, Unavailable
from finetune_operator.kube.mirror import Mirror
from tests.waiting import eventually


def item(name: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"namespace": "finetune", "name": name, "resourceVersion": version}}


class Script:
    """Lists and watches are taken one after the other; an error among them is raised, the last watch never ends."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self._lists = lists
        self._watches = watches
        self.listed_at: list[float] = []
        self.watched_from: list[str] = []

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> tuple[list[dict[str, Any]], str]:
        self.listed_at.append(time.monotonic())
        answer = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, "7"

    async def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = ""
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        self.watched_from.append(resource_version)
        if not self._watches:
            await asyncio.Event().wait()
        for event in self._watches.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "BACKOFF_FIRST_SECONDS", 0.01)


@asynccontextmanager
async def mirroring(script: Script) -> AsyncIterator[Mirror]:
    mirror = Mirror(script, "modelversions", "finetune", lambda: None)
    running = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def names(mirror: Mirror) -> set[str]:
    return {name for _, name in mirror.objects}


async def test_each_change_is_told() -> None:
    seen: list[set[str]] = []
    script = Script([[item("a")]], [[("ADDED", item("b", "8")), ("DELETED", item("a", "9"))]])
    mirror = Mirror(script, "modelversions", "finetune", lambda: seen.append(names(mirror)))
    running = asyncio.create_task(mirror.run())
    await eventually(lambda: seen == [{"a"}, {"a", "b"}, {"b"}])
    running.cancel()


async def test_events_change_what_was_listed() -> None:
    events = [
        ("ADDED", item("b", "8")),
        ("MODIFIED", item("a", "9")),
        ("DELETED", item("b", "10")),
        ("BOOKMARK", {"metadata": {"resourceVersion": "11"}}),
    ]
    script = Script([[item("a")]], [events])
    async with mirroring(script) as mirror:
        await eventually(lambda: script.watched_from == ["7", "11"])
        assert mirror.objects == {("finetune", "a"): item("a", "9")}
    assert len(script.listed_at) == 1


@pytest.mark.parametrize("failure", [Gone("too old", 410), Unavailable("reset")])
async def test_an_interrupted_watch_lists_anew_and_forgets_what_is_gone(failure: Exception) -> None:
    script = Script([[item("a"), item("b")], [item("a")]], [[("ADDED", item("c", "8")), failure]])
    async with mirroring(script) as mirror:
        await eventually(lambda: len(script.watched_from) == 2)
        assert names(mirror) == {"a"}


async def test_a_failed_list_keeps_what_is_known_and_is_repeated() -> None:
    script = Script([[item("a")], *[Unavailable("down")] * 3, [item("b")]], [[Unavailable("reset")]])
    async with mirroring(script) as mirror:
        await mirror.listed.wait()
        seen = {frozenset(names(mirror))}
        while "b" not in names(mirror):
            seen.add(frozenset(names(mirror)))
            await asyncio.sleep(0)
    assert seen == {frozenset({"a"})}


async def test_a_watch_that_worked_makes_the_next_repetition_quick_again() -> None:
    failures = [[Unavailable("down")] for _ in range(6)]
    worked = [("ADDED", item("b", "8")), Unavailable("reset")]
    script = Script([[item("a")]], [*failures, worked])
    async with mirroring(script):
        await eventually(lambda: len(script.listed_at) == 8)
    pauses = [after - before for before, after in pairwise(script.listed_at)]
    assert pauses[-1] < max(pauses) / 2
