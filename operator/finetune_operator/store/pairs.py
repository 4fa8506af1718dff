"""Pairs of answers that a BatchInference or users' requests bring to an ABTest, and which an evaluator judges next."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import AnswerPairs
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import Comparison, StoredPair


async def record(engine: AsyncEngine, abtest_uid: str, sent: AnswerPairs) -> None:
    """Keep these pairs, as far as there is room for them; one that is known already stays as it is."""
    names = sent.model_dump(include={"baseline_served_name", "candidate_served_name"})
    async with engine.begin() as connection:
        found = sent.pairs
        if sent.keep_max is not None:
            # Two gateways at once may both find the same room, and so a few pairs too many are kept.
            known = select(func.count()).select_from(StoredPair).where(StoredPair.abtest_uid == abtest_uid)
            found = found[: max(0, sent.keep_max - (await connection.execute(known)).scalar_one())]
        if not found:
            return
        insert = upsert_dialect(connection.dialect).insert(StoredPair).on_conflict_do_nothing()
        rows = [names | pair.model_dump() | {"abtest_uid": abtest_uid} for pair in found]
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
