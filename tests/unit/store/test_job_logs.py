"""Logs that are kept, in both databases."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.job_logs import LogTail
from finetune_operator.contract.training import JobIdentity
from finetune_operator.store import job_logs

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def tail(seconds: int, text: str, uid: str = "uid") -> LogTail:
    job = JobIdentity(namespace="finetune", name="plato", uid=uid)
    return LogTail.of(job, "trainer", text, NOON + timedelta(seconds=seconds))


async def test_what_is_told_takes_the_place_of_what_was_told_before(engine: AsyncEngine) -> None:
    for each in (tail(1, "one"), tail(3, "three\0"), tail(2, "two")):
        await job_logs.record(engine, each)
    assert await job_logs.of_job(engine, "uid") == [tail(3, "three\ufffd")]
    assert await job_logs.of_job(engine, "another") == []


async def test_the_oldest_give_way(engine: AsyncEngine) -> None:
    for number in range(5):
        await job_logs.record(engine, tail(number, "x", f"uid-{number}"), most_logs=3)
    kept = [bool(await job_logs.of_job(engine, f"uid-{number}")) for number in range(5)]
    assert kept == [False, False, True, True, True]
