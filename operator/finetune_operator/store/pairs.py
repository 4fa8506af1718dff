"""Pairs of answers that a BatchInference or users' requests bring to an ABTest, and which an evaluator judges next."""

import json
import uuid

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import AnswerPair, AnswerPairs
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.experiment_tables import VOTES_THAT_COUNT, Comparison, StoredPair, Vote


async def record(engine: AsyncEngine, abtest_uid: str, sent: AnswerPairs) -> None:
    """Keep these pairs, as far as there is room for them; one that is known already stays as it is."""
    names = sent.model_dump(include={"baseline_served_name", "candidate_served_name"})
    found = sent.pairs if sent.keep_max is None else await _fitting(engine, abtest_uid, sent, sent.keep_max)
    if not found:
        return
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(StoredPair).on_conflict_do_nothing()
        rows = [names | pair.model_dump() | {"abtest_uid": abtest_uid} for pair in found]
        await connection.execute(insert, rows)


async def _fitting(engine: AsyncEngine, abtest_uid: str, sent: AnswerPairs, keep_max: int) -> tuple[AnswerPair, ...]:
    """The new ones, each once, as many as there is room for.

    Read before anything is written: two gateways at once may find the same room, and so a few too many are kept, where
    a transaction that begins by reading would fail on SQLite for a vote that comes between.
    """
    of_test = StoredPair.abtest_uid == abtest_uid
    pairs = {pair.id: pair for pair in sent.pairs}
    async with engine.connect() as connection:
        count = (await connection.execute(select(func.count()).where(of_test))).scalar_one()
        known = set((await connection.scalars(select(StoredPair.id).where(of_test, StoredPair.id.in_(pairs)))).all())
    return tuple(pair for id_, pair in pairs.items() if id_ not in known)[: max(0, keep_max - count)]


async def next_pair(engine: AsyncEngine, abtest_uid: str, evaluator: str, *, judged: bool) -> StoredPair | None:
    """Of those that this evaluator has not got yet, one that the fewest others have: votes spread over all rows.

    `judged` ones have a vote that counts, so that another one is no more than a second opinion.
    """
    own = select(Comparison.id).where(Comparison.pair_id == StoredPair.id, Comparison.evaluator == evaluator)
    others = select(func.count(Comparison.id)).where(Comparison.pair_id == StoredPair.id).correlate(StoredPair)
    counting = select(Vote.pair_id).where(Vote.pair_id == StoredPair.id, VOTES_THAT_COUNT)
    query = (
        select(StoredPair)
        .where(
            StoredPair.abtest_uid == abtest_uid,
            ~own.exists(),
            counting.exists() if judged else ~counting.exists(),
        )
        .order_by(others.scalar_subquery(), StoredPair.id)
        .limit(1)
    )
    async with AsyncSession(engine) as session:
        return (await session.scalars(query)).one_or_none()


def pair_id(abtest_uid: str, prompt: str, baseline_answer: str, candidate_answer: str) -> str:
    """Of answers that were asked for anew: where they come out as before, they are the same pair."""
    words = json.dumps((abtest_uid, prompt, baseline_answer, candidate_answer))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://finetune.dev/pairs?{words}"))
