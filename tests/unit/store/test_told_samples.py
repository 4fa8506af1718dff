"""Sampled answers one by one, on both databases, with what feedback says of them and the texts that it gave."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import Sample, SampleBatch
from finetune_operator.store import feedback, samples
from finetune_operator.store.feedback import Texts
from finetune_operator.store.samples import SHOWN_MAX_CHARACTERS

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def record(engine: AsyncEngine, *minutes: int) -> None:
    found = (
        Sample(
            ab_test="test",
            arm="candidate",
            served_name="plato-v2",
            status=200,
            latency_ms=100,
            request_id=f"request-{minute}",
            time=NOON.replace(minute=minute),
        )
        for minute in minutes
    )
    await samples.record(engine, SampleBatch(samples=tuple(found)))


async def told(engine: AsyncEngine, *, with_texts: bool) -> list[tuple[object, ...]]:
    """The newest first, without the samples themselves."""
    found = await samples.newest(engine, "test", "candidate", 10, None, with_texts=with_texts)
    return [each[1:] for each in found]


async def test_texts_are_those_that_feedback_gave(engine: AsyncEngine) -> None:
    await record(engine, 1, 2, 3)
    await feedback.give(engine, "request-2", 4, None, NOON)
    texts = Texts("What is courage?", "Endurance. " * 1000, "Wise endurance.")
    await feedback.give(engine, "request-3", 1, texts, NOON)
    answer = texts.response[:SHOWN_MAX_CHARACTERS]
    (score,) = {each[1] for each in await told(engine, with_texts=True)} - {None}
    assert await told(engine, with_texts=True) == [
        (1, score, texts.prompt, answer, texts.reference),
        (4, None, None, None, None),
        (None, None, None, None, None),
    ]
    assert await told(engine, with_texts=False) == [
        (1, score, None, None, None),
        (4, None, None, None, None),
        (None, None, None, None, None),
    ]


async def test_one_answer_without_a_reference_has_none(engine: AsyncEngine) -> None:
    await record(engine, 1)
    await feedback.give(engine, "request-1", 5, Texts("What is courage?", "Endurance."), NOON)
    assert await told(engine, with_texts=True) == [(5, None, "What is courage?", "Endurance.", None)]
