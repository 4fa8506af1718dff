"""Blind comparisons and the votes on them. Every write is idempotent, so that a client may repeat what it sent."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Label, SQLColumnExpression, Subquery, case, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import Comparison, Vote


class Choice(StrEnum):
    """What a vote says once the sides are known."""

    FINE_TUNED = "fine_tuned"
    BASE = "base"
    TIE = "tie"
    BOTH_BAD = "both_bad"


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


def counted_votes(abtest_uid: str, max_votes: int | None) -> Subquery:
    """The votes that count, numbered in their order: the first `max_votes` of those from before the verdict, so that a
    test of a fixed size has it whenever it is looked at."""
    order = (Vote.created_at, Vote.comparison_id)
    number = func.row_number().over(order_by=order).label("number")
    return (
        select(Vote.comparison_id, Vote.evaluator, Vote.choice, Vote.created_at, number)
        .where(Vote.abtest_uid == abtest_uid, Vote.late.is_(False))
        .order_by(*order)
        .limit(max_votes)
        .subquery()
    )


def count_columns(choice: SQLColumnExpression[str]) -> list[Label[int]]:
    """Columns named as the fields of `VoteCounts`; who calls both bad prefers neither."""
    meant = {
        "fine_tuned": (Choice.FINE_TUNED,),
        "base": (Choice.BASE,),
        "tie": (Choice.TIE, Choice.BOTH_BAD),
        "both_bad": (Choice.BOTH_BAD,),
    }
    return [func.count(case((choice.in_(choices), 1))).label(name) for name, choices in meant.items()]


async def tally(engine: AsyncEngine, abtest_uid: str, max_votes: int | None = None) -> VoteCounts:
    """The votes that count. Each vote is answered with it, so that their order is asked for only where it matters."""
    in_time = select(*count_columns(Vote.choice)).where(Vote.abtest_uid == abtest_uid, Vote.late.is_(False))
    async with engine.connect() as connection:
        counts = VoteCounts.model_validate((await connection.execute(in_time)).one()._asdict())
        if max_votes is None or counts.total <= max_votes:
            return counts
        counted = counted_votes(abtest_uid, max_votes)
        row = (await connection.execute(select(*count_columns(counted.c.choice)))).one()
    return VoteCounts.model_validate(row._asdict())


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
