"""What versions have answered, in both databases."""

from datetime import date
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import DayOfUsage, UsageReport
from finetune_operator.store.migrations import migrate
from finetune_operator.store.usage import Used, of_versions, record

MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)


def day(uid: str = "v1", when: date = MONDAY, **counts: int) -> DayOfUsage:
    return DayOfUsage(version_uid=uid, day=when, **counts)


def report(reporter: str, *days: DayOfUsage) -> UsageReport:
    return UsageReport(reporter=reporter, days=days)


async def test_sums_of_gateways_and_days_add_up(engine: AsyncEngine) -> None:
    counts: dict[str, Any] = {"calls_with_tokens": 2, "prompt_tokens": 10, "completion_tokens": 20}
    await record(engine, report("a", day(calls=3, failed=1, **counts), day(when=TUESDAY, calls=1), day("v2", calls=9)))
    await record(engine, report("b", day(calls=5, **counts)))
    found = await of_versions(engine, ["v1", "v2", "v3"])
    assert found["v1"] == Used(9, 1, 4, 20, 40, MONDAY, TUESDAY)
    assert found["v2"] == Used(9, 0, 0, 0, 0, MONDAY, MONDAY)
    assert "v3" not in found


async def test_batches_are_in_the_sums_and_not_in_the_days(engine: AsyncEngine) -> None:
    batch = report("batch-of-a-night", day(calls=1000, calls_with_tokens=1000, completion_tokens=5), day("v2", calls=7))
    for _ in range(2):
        await record(engine, batch)
    await record(engine, report("a", day(when=TUESDAY, calls=3)))
    found = await of_versions(engine, ["v1", "v2"])
    assert found["v1"] == Used(1003, 0, 1000, 0, 5, TUESDAY, TUESDAY, 1000)
    assert found["v2"] == Used(7, 0, 0, 0, 0, MONDAY, MONDAY, 7)


async def test_a_report_that_comes_twice_or_late_changes_nothing(engine: AsyncEngine) -> None:
    early, newer = report("a", day(calls=1, completion_tokens=5)), report("a", day(calls=2, completion_tokens=9))
    for each in (early, newer, newer, early):
        await record(engine, each)
    assert (await of_versions(engine, ["v1"]))["v1"].calls == 2
    assert (await of_versions(engine, ["v1"]))["v1"].completion_tokens == 9


async def test_numbers_beyond_32_bits_add_up(engine: AsyncEngine) -> None:
    await record(engine, report("a", day(calls=1, calls_with_tokens=1, completion_tokens=2**53)))
    await record(engine, report("b", day(calls=1, calls_with_tokens=1, completion_tokens=2**53)))
    assert (await of_versions(engine, ["v1"]))["v1"].completion_tokens == 2**54


async def test_nothing_is_asked_for_nobody(engine: AsyncEngine) -> None:
    await migrate(engine)
    assert await of_versions(engine, []) == {}
