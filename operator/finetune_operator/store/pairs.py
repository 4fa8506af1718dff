"""Pairs of answers that a BatchInference brings to an ABTest, and which of them an evaluator judges next."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import AnswerPairs
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import Comparison, StoredPair


async def record(engine: AsyncEngine, abtest_uid: str, sent: AnswerPairs) -> None:
    """Keep these pairs, all or none; one that is known already stays as it is."""
    if not sent.pairs:
        return
    names = sent.model_dump(exclude={"pairs"})
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(StoredPair).on_conflict_do_nothing()
        rows = [names | pair.model_dump() | {"abtest_uid": abtest_uid} for pair in sent.pairs]
        await connection.execute(insert, rows)


async def next_pair(engine: AsyncEngine, abtest_uid: str, evaluator: str) -> StoredPair | None:
    """Of those that this evaluator has not got yet, one that the fewest others have: votes spread over all rows."""
    own = select(Comparison.id).where(Comparison.pair_id == StoredPair.id, Comparison.evaluator == evaluator)
    others = select(func.count(Comparison.id)).where(Comparison.pair_id == StoredPair.id).correlate(StoredPair)
    query = (
        select(StoredPair)
        .where(StoredPair.abtest_uid == abtest_uid, ~own.exists())
        .order_by(others.scalar_subquery(), StoredPair.id)
        .limit(1)
    )
    async with AsyncSession(engine) as session:
        return (await session.scalars(query)).one_or_none()
