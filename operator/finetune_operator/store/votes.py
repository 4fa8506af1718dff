"""Blind comparisons and the votes on them. Every write is idempotent, so that a client may repeat what it sent."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import Comparison, Vote


class Choice(StrEnum):
    """What a vote says once the sides are known."""

    FINE_TUNED = "fine_tuned"
    BASE = "base"
    TIE = "tie"


async def last_comparison(
    engine: AsyncEngine, abtest_uid: str, evaluator: str
) -> tuple[Comparison, Vote | None] | None:
    """The evaluator's newest comparison with its vote, in one statement: the next number and what is still open
    must be of the same moment, or two requests at once would make two comparisons."""
    query = (
        select(Comparison, Vote)
        .outerjoin(Vote, _votes_of_its_evaluator())
        .where(Comparison.abtest_uid == abtest_uid, Comparison.evaluator == evaluator)
        .order_by(Comparison.number.desc())
        .limit(1)
    )
    async with AsyncSession(engine) as session:
        row = (await session.execute(query)).one_or_none()
    return (row[0], row[1]) if row else None


async def count_comparisons(engine: AsyncEngine, abtest_uid: str) -> int:
    query = select(func.count()).select_from(Comparison).where(Comparison.abtest_uid == abtest_uid)
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def add_comparison(engine: AsyncEngine, comparison: Comparison) -> Comparison:
    """Keep it, unless a request of the same evaluator was faster: then that one's comparison is returned."""
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        insert = upsert_dialect(engine.dialect).insert(Comparison).values(**_columns(comparison))
        await session.execute(insert.on_conflict_do_nothing())
        query = select(Comparison).where(
            Comparison.abtest_uid == comparison.abtest_uid,
            Comparison.evaluator == comparison.evaluator,
            Comparison.number == comparison.number,
        )
        return (await session.scalars(query)).one()


async def find_comparison(engine: AsyncEngine, comparison_id: str) -> Comparison | None:
    async with AsyncSession(engine) as session:
        return await session.get(Comparison, comparison_id)


async def cast_vote(engine: AsyncEngine, comparison: Comparison, choice: Choice, *, late: bool, now: datetime) -> Vote:
    """Keep the evaluator's first vote on this comparison, and return that one whatever is sent later."""
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        insert = (
            upsert_dialect(engine.dialect)
            .insert(Vote)
            .values(
                comparison_id=comparison.id,
                evaluator=comparison.evaluator,
                abtest_uid=comparison.abtest_uid,
                choice=choice.value,
                late=late,
                created_at=now,
            )
        )
        await session.execute(insert.on_conflict_do_nothing())
        return await session.get_one(Vote, (comparison.id, comparison.evaluator))


async def tally(engine: AsyncEngine, abtest_uid: str, max_votes: int | None = None) -> VoteCounts:
    """Votes that count: the first `max_votes` of those from before the verdict, so that a test of a fixed size has it
    whenever it is looked at."""
    first = (
        select(Vote.choice)
        .where(Vote.abtest_uid == abtest_uid, Vote.late.is_(False))
        .order_by(Vote.created_at, Vote.comparison_id)
        .limit(max_votes)
        .subquery()
    )
    query = select(first.c.choice, func.count()).group_by(first.c.choice)
    async with engine.connect() as connection:
        counts = {row[0]: row[1] for row in await connection.execute(query)}
    return VoteCounts(
        fine_tuned=counts.get(Choice.FINE_TUNED, 0), base=counts.get(Choice.BASE, 0), tie=counts.get(Choice.TIE, 0)
    )


async def count_late_votes(engine: AsyncEngine, abtest_uid: str) -> int:
    query = select(func.count()).select_from(Vote).where(Vote.abtest_uid == abtest_uid, Vote.late.is_(True))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def list_comparisons(
    engine: AsyncEngine, conditions: Sequence[ColumnElement[bool]], limit: int
) -> list[tuple[Comparison, Vote | None]]:
    """The newest first, each with its vote."""
    query = (
        select(Comparison, Vote)
        .outerjoin(Vote, _votes_of_its_evaluator())
        .where(*conditions)
        .order_by(Comparison.created_at.desc(), Comparison.id)
        .limit(limit)
    )
    async with AsyncSession(engine) as session:
        return [(comparison, vote) for comparison, vote in (await session.execute(query)).all()]


def _votes_of_its_evaluator() -> ColumnElement[bool]:
    return (Vote.comparison_id == Comparison.id) & (Vote.evaluator == Comparison.evaluator)


def _columns(comparison: Comparison) -> dict[str, object]:
    return {column.name: getattr(comparison, column.name) for column in Comparison.__table__.columns}
