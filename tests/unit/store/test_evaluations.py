"""Evaluations in both databases: whole or not at all, and once by their id."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from finetune_operator.store.evaluations import of_version, record

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCORE = RecordedValue(name="RougeL", base=0.12, fine_tuned=0.41)


def evaluation(*values: RecordedValue, minute: int = 0, version: str = "plato-v2") -> RecordedEvaluation:
    return RecordedEvaluation(
        source=EvaluationSource.SERVED,
        namespace="finetune",
        model_version=version,
        model="plato",
        base_model="tiny",
        adapter_digest="sha256:" + "a" * 64,
        examples=12,
        message="2 rows were left out",
        currency="EUR",
        measured_at=NOON + timedelta(minutes=minute),
        values=values,
    )


async def test_what_is_recorded_is_read_back_whole(engine: AsyncEngine) -> None:
    await record(engine, "e1", evaluation(SCORE))
    assert await of_version(engine, "finetune", "plato-v2", 10) == [("e1", evaluation(SCORE))]


async def test_the_same_id_replaces_with_all_its_values(engine: AsyncEngine) -> None:
    other = RecordedValue(name="F1", base=0.1, fine_tuned=0.2)
    await record(engine, "e1", evaluation(SCORE, other))
    await record(engine, "e1", evaluation(other, minute=1))
    await record(engine, "e1", evaluation(other, minute=1))
    assert await of_version(engine, "finetune", "plato-v2", 10) == [("e1", evaluation(other, minute=1))]


async def test_a_row_that_is_refused_leaves_what_was_there(engine: AsyncEngine) -> None:
    await record(engine, "e1", evaluation(SCORE))
    with pytest.raises(IntegrityError):
        await record(engine, "e1", evaluation(SCORE, SCORE, minute=1))
    assert await of_version(engine, "finetune", "plato-v2", 10) == [("e1", evaluation(SCORE))]


async def test_the_newest_of_one_version_come_first(engine: AsyncEngine) -> None:
    for identity, minute, version in (("old", 0, "plato-v2"), ("new", 5, "plato-v2"), ("other", 9, "plato-v3")):
        await record(engine, identity, evaluation(minute=minute, version=version))
    found = await of_version(engine, "finetune", "plato-v2", 10)
    assert [identity for identity, _ in found] == ["new", "old"]
    assert [identity for identity, _ in await of_version(engine, "finetune", "plato-v2", 1)] == ["new"]
