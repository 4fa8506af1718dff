"""Samples in both databases: once by their id, and copies apart from requests."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import ArmTally, Sample, SampleBatch
from finetune_operator.store import migrations
from finetune_operator.store.migrations import MIGRATIONS, migrate
from finetune_operator.store.samples import record, tally

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BEFORE_COPIES = 4
BEFORE_SUBJECTS = 17
"""The last schema that knew no copies."""


def sample(number: int, **fields: Any) -> Sample:
    values = {"ab_test": "uid", "arm": "candidate", "served_name": "plato-v2", "status": 200, "latency_ms": 100}
    return Sample.model_validate(values | {"request_id": f"request-{number}", "time": NOON} | fields)


async def test_requests_and_copies_are_summed_up_apart(engine: AsyncEngine) -> None:
    batch = SampleBatch(
        samples=(sample(1, latency_ms=70, prompt_tokens=7, completion_tokens=42), sample(2, status=502)),
        shadows=(
            sample(3, latency_ms=100, completion_tokens=9),
            sample(4, latency_ms=301),
            sample(5, status=500, latency_ms=9000),
            sample(6, status=404),
        ),
    )
    assert await record(engine, batch) == 6
    assert await record(engine, batch) == 0
    arms = await tally(engine, "uid")
    assert arms.candidate == ArmTally(
        samples=2,
        errors=1,
        mean_latency_ms=70,
        latency_subjects=1,
        standard_error_latency_ms=0,
        samples_with_tokens=1,
        mean_prompt_tokens=7,
        mean_completion_tokens=42,
        token_subjects=1,
        standard_error_completion_tokens=0,
        shadow_samples=4,
        shadow_errors=1,
        shadow_mean_latency_ms=167,
    )
    assert arms.baseline == ArmTally()


async def test_how_much_answers_differ(engine: AsyncEngine) -> None:
    """Of those that did not fail, with numbers whose squares are beyond PostgreSQL's integers."""
    lengths = (None, 10, 20)
    answers = tuple(
        sample(number, latency_ms=latency_ms, completion_tokens=tokens)
        for number, (latency_ms, tokens) in enumerate(zip((100_000, 200_000, 300_000), lengths, strict=True))
    )
    await record(engine, SampleBatch(samples=(*answers, sample(9, status=500, latency_ms=9)), shadows=(sample(10),)))
    candidate = (await tally(engine, "uid")).candidate
    assert candidate.mean_latency_ms == 200_000
    assert candidate.standard_error_latency_ms == pytest.approx(100_000 * (2 / 3) ** 0.5 / 3**0.5)
    assert candidate.standard_error_completion_tokens == pytest.approx(5 / 2**0.5)


async def test_answers_of_one_subject_count_as_one(engine: AsyncEngine) -> None:
    """However often somebody asks, how far the mean may be off depends on how many others there are."""
    asked = {"ada": (100,) * 50, "ben": (300,) * 50, "cleo": (500,) * 2}
    answers = tuple(
        sample(100 * person + number, subject=subject, candidate_percent=50, latency_ms=latency_ms)
        for person, (subject, latencies) in enumerate(asked.items())
        for number, latency_ms in enumerate(latencies)
    )
    await record(engine, SampleBatch(samples=answers))
    candidate = (await tally(engine, "uid")).candidate
    mean = sum(map(sum, asked.values())) / 102
    residuals = sum((sum(latencies) - mean * len(latencies)) ** 2 for latencies in asked.values())
    assert candidate.latency_subjects == 3
    assert candidate.standard_error_latency_ms == pytest.approx(residuals**0.5 / 102)


async def test_what_was_sampled_before_subjects_were_counted_counts(
    empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS[:BEFORE_SUBJECTS])
    await migrate(empty_engine)
    by_two = tuple(sample(number, subject=f"s{number % 2}", candidate_percent=50) for number in range(10))
    await record(empty_engine, SampleBatch(samples=(*by_two, sample(10), sample(11, status=500))))
    monkeypatch.undo()
    await migrate(empty_engine)
    assert (await tally(empty_engine, "uid")).candidate.latency_subjects == 3


async def test_what_was_recorded_before_there_were_copies_is_of_requests(
    empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", MIGRATIONS[:BEFORE_COPIES])
    await migrate(empty_engine)
    async with empty_engine.begin() as connection:
        columns = "abtest_uid, request_id, arm, served_name, status, latency_ms, time"
        values = "'uid', 'request-1', 'baseline', 'plato-v1', 200, 50, '2026-11-20 12:00:00'"
        await connection.execute(text(f"INSERT INTO abtest_samples ({columns}) VALUES ({values})"))  # noqa: S608
    monkeypatch.undo()
    await migrate(empty_engine)
    baseline = (await tally(empty_engine, "uid")).baseline
    assert (baseline.samples, baseline.mean_latency_ms, baseline.shadow_samples) == (1, 50, 0)
