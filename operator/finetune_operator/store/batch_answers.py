"""The first answers of batch inferences, as their pods told them; of the newest batches alone."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.batch_answers import BatchAnswer, BatchAnswers
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import StoredAnswer

MOST_ANSWERS = 20_000
"""Of two texts of 4,000 characters at most, mostly of a tenth of that; what is new takes the place of the oldest."""


class KeptRow(NamedTuple):
    """One row, and what each model that was asked so far has answered, by name."""

    number: int
    answers: tuple[BatchAnswer, ...]


async def record(engine: AsyncEngine, sent: BatchAnswers, now: datetime, most_answers: int = MOST_ANSWERS) -> None:
    """Keep them, in place of what was told before."""
    if not sent.answers:
        return
    place = {"batch_uid": sent.batch.uid, "namespace": sent.batch.namespace, "name": sent.batch.name, "time": now}
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(StoredAnswer)
        changed = ("custom_id", "prompt", "answer", "error", "shortened", "time")
        statement = insert.on_conflict_do_update(
            index_elements=["batch_uid", "number", "served_name"],
            set_={name: getattr(insert.excluded, name) for name in changed},
        )
        await connection.execute(statement, [place | answer.model_dump() for answer in sent.answers])
        key = tuple_(StoredAnswer.batch_uid, StoredAnswer.number, StoredAnswer.served_name)
        newest = (StoredAnswer.time.desc(), StoredAnswer.batch_uid, StoredAnswer.number, StoredAnswer.served_name)
        over = (
            select(StoredAnswer.batch_uid, StoredAnswer.number, StoredAnswer.served_name)
            .order_by(*newest)
            .limit(most_answers)
            .offset(most_answers)
        )
        await connection.execute(delete(StoredAnswer).where(key.in_(over)))


async def rows(engine: AsyncEngine, batch_uid: str, after: int, limit: int) -> list[KeptRow]:
    """At most `limit` rows after this number, in their order."""
    of_batch = (StoredAnswer.batch_uid == batch_uid, StoredAnswer.number > after)
    numbers = select(StoredAnswer.number).where(*of_batch).distinct().order_by(StoredAnswer.number).limit(limit)
    query = select(StoredAnswer).where(StoredAnswer.batch_uid == batch_uid, StoredAnswer.number.in_(numbers))
    found: dict[int, list[BatchAnswer]] = {}
    async with AsyncSession(engine) as session:
        for row in await session.scalars(query.order_by(StoredAnswer.number, StoredAnswer.served_name)):
            answer = BatchAnswer(
                number=row.number,
                served_name=row.served_name,
                custom_id=row.custom_id,
                prompt=row.prompt,
                answer=row.answer,
                error=row.error,
                shortened=row.shortened,
            )
            found.setdefault(row.number, []).append(answer)
    return [KeptRow(number, tuple(answers)) for number, answers in found.items()]


async def count(engine: AsyncEngine, batch_uid: str) -> int:
    """How many rows there are."""
    query = select(func.count(StoredAnswer.number.distinct())).where(StoredAnswer.batch_uid == batch_uid)
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def forget(engine: AsyncEngine, batch_uid: str) -> None:
    """All of one batch."""
    async with engine.begin() as connection:
        await connection.execute(delete(StoredAnswer).where(StoredAnswer.batch_uid == batch_uid))
