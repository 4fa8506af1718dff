"""The newest comparisons of some namespaces, on both databases."""

from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

import pytest
from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import QueryContext

from finetune_operator.store import votes
from finetune_operator.store.experiment_tables import Comparison

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PLACES = ("a", "b", "a", "c", "b", "a")
CASES: dict[str, tuple[tuple[str, ...] | None, int, list[str]]] = {
    "of all": (None, 4, ["5", "4", "3", "2"]),
    "of one": (("a",), 2, ["5", "2"]),
    "of some": (("a", "b"), 4, ["5", "4", "2", "1"]),
    "of none": ((), 4, []),
    "of one that is empty": (("d",), 4, []),
}


@pytest.mark.parametrize(("namespaces", "limit", "expected"), CASES.values(), ids=CASES.keys())
async def test_the_newest_come_first(
    engine: AsyncEngine, namespaces: tuple[str, ...] | None, limit: int, expected: list[str]
) -> None:
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = dict.fromkeys(names, "x") | {"name": "t", "candidate_side": "a", "abtest_uid": "t", "evaluator": "ada"}
    rows = [
        {"id": str(number), "number": number, "namespace": place, "created_at": NOON + timedelta(seconds=number)}
        for number, place in enumerate(PLACES)
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(Comparison), [shown | row for row in rows])
    found = await votes.list_comparisons(engine, (), limit, namespaces)
    assert [comparison.id for comparison, _ in found] == expected


async def test_those_of_one_moment_come_by_their_ids(engine: AsyncEngine) -> None:
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = dict.fromkeys(names, "x") | {"name": "t", "candidate_side": "a", "abtest_uid": "t", "created_at": NOON}
    rows = [{"id": each, "number": 0, "evaluator": each, "namespace": each} for each in ("b", "a", "c")]
    async with engine.begin() as connection:
        await connection.execute(insert(Comparison), [shown | row for row in rows])
    for namespaces in (None, ("c", "b", "a")):
        found = await votes.list_comparisons(engine, (), 2, namespaces)
        assert [comparison.id for comparison, _ in found] == ["a", "b"]


async def test_of_many_namespaces_no_more_are_held_than_needed(engine: AsyncEngine) -> None:
    """Each has prompt and answers of any length."""
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = dict.fromkeys(names, "x") | {"name": "t", "candidate_side": "a", "abtest_uid": "t", "evaluator": "ada"}
    places, limit = [f"n{number}" for number in range(20)], 3
    rows = [
        {"id": f"{place}-{number}", "number": number, "namespace": place, "evaluator": place}
        | {"created_at": NOON + timedelta(seconds=number)}
        for place in places
        for number in range(limit)
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(Comparison), [shown | row for row in rows])
    held: WeakValueDictionary[str, Comparison] = WeakValueDictionary()
    most = 0

    def count(comparison: Comparison, _: QueryContext) -> None:
        nonlocal most
        held[comparison.id] = comparison
        most = max(most, len(held))

    event.listen(Comparison, "load", count)
    try:
        found = await votes.list_comparisons(engine, (), limit, places)
    finally:
        event.remove(Comparison, "load", count)
    assert [comparison.id for comparison, _ in found] == sorted(f"{place}-{limit - 1}" for place in places)[:limit]
    assert most <= 3 * limit
