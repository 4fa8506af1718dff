"""The first answers of batches, in both databases."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.batch_answers import BatchAnswer, BatchAnswers
from finetune_operator.contract.training import JobIdentity
from finetune_operator.store import batch_answers
from finetune_operator.store.batch_answers import KeptRow

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def answer(number: int, name: str = "plato-v2", text: str = "two") -> BatchAnswer:
    return BatchAnswer(number=number, served_name=name, custom_id=f"row-{number}", prompt="1+1?", answer=text)


def sent(*answers: BatchAnswer, uid: str = "uid") -> BatchAnswers:
    return BatchAnswers(batch=JobIdentity(namespace="finetune", name="sums", uid=uid), answers=answers)


async def test_rows_have_the_answers_of_all_models_in_their_order(engine: AsyncEngine) -> None:
    failed = answer(1, "tiny").model_copy(update={"answer": None, "error": "too long"})
    await batch_answers.record(engine, sent(answer(2), answer(1), failed), NOON)
    assert await batch_answers.rows(engine, "uid", 0, 10) == [
        KeptRow(1, (answer(1), failed)),
        KeptRow(2, (answer(2),)),
    ]
    assert await batch_answers.rows(engine, "another", 0, 10) == []


async def test_a_page_goes_on_after_the_one_before(engine: AsyncEngine) -> None:
    await batch_answers.record(engine, sent(*(answer(number) for number in range(1, 6))), NOON)
    pages = [await batch_answers.rows(engine, "uid", after, 2) for after in (0, 2, 4, 5)]
    assert [[row.number for row in page] for page in pages] == [[1, 2], [3, 4], [5], []]
    assert await batch_answers.count(engine, "uid") == 5


async def test_what_is_told_again_takes_the_place(engine: AsyncEngine) -> None:
    for text in ("one", "two"):
        await batch_answers.record(engine, sent(answer(1, text=text)), NOON)
    assert await batch_answers.rows(engine, "uid", 0, 10) == [KeptRow(1, (answer(1, text="two"),))]


async def test_the_oldest_give_way(engine: AsyncEngine) -> None:
    for number in range(5):
        told = sent(answer(1), answer(2), uid=f"uid-{number}")
        await batch_answers.record(engine, told, NOON + timedelta(seconds=number), most_answers=6)
    kept = [await batch_answers.count(engine, f"uid-{number}") for number in range(5)]
    assert kept == [0, 0, 2, 2, 2]


async def test_those_of_one_batch_are_forgotten(engine: AsyncEngine) -> None:
    for uid in ("uid", "another"):
        await batch_answers.record(engine, sent(answer(1), uid=uid), NOON)
    await batch_answers.forget(engine, "uid")
    assert [await batch_answers.count(engine, uid) for uid in ("uid", "another")] == [0, 1]
