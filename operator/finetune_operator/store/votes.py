"""Blind comparisons and the votes on them. Every write is idempotent, so that a client may repeat what it sent."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Label, Select, SQLColumnExpression, Subquery, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.experiment_tables import Comparison, TestCounts, Vote


class Standing(NamedTuple):
    """What is counted of an ABTest: the votes that count, those that do not, and the comparisons."""

    votes: VoteCounts
    late_votes: int
    second_opinions: int
    comparisons: int

    @property
    def opinions(self) -> int:
        return self.votes.total + self.second_opinions


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
    """Keep the evaluator's first vote on this comparison, and return that one whatever is sent later.

    Where a vote on the same two answers counts already, it is kept as a second opinion.
    """
    values = {
        "comparison_id": comparison.id,
        "evaluator": comparison.evaluator,
        "abtest_uid": comparison.abtest_uid,
        "choice": choice.value,
        "late": late,
        "created_at": now,
        "pair_id": comparison.pair_id or comparison.id,
    }
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        insert = upsert_dialect(engine.dialect).insert(Vote).on_conflict_do_nothing()
        # Whichever of two at once comes second finds the first one's pair taken.
        for second_opinion in (False, True):
            await session.execute(insert.values(**values, second_opinion=second_opinion))
        return await session.get_one(Vote, (comparison.id, comparison.evaluator))


def counted_votes(abtest_uid: str, max_votes: int | None) -> Subquery:
    """The votes that count, numbered in their order: the first `max_votes` of those from before the verdict that are
    the first of their pair, so that a test of a fixed size has it whenever it is looked at."""
    order = (Vote.created_at, Vote.comparison_id)
    number = func.row_number().over(order_by=order).label("number")
    return (
        select(Vote.comparison_id, Vote.evaluator, Vote.choice, Vote.created_at, number)
        .where(*_counting(abtest_uid))
        .order_by(*order)
        .limit(max_votes)
        .subquery()
    )


def opinions(abtest_uid: str, max_votes: int | None) -> Subquery:
    """The votes that count, with the second opinions."""
    is_second, order = Vote.second_opinion, (Vote.created_at, Vote.comparison_id)
    number = func.row_number().over(partition_by=is_second, order_by=order).label("number")
    of_test = (
        select(Vote.comparison_id, Vote.evaluator, Vote.choice, Vote.created_at, is_second, number)
        .where(Vote.abtest_uid == abtest_uid, Vote.late.is_(False))
        .subquery()
    )
    if max_votes is None:
        return of_test
    return select(of_test).where(or_(of_test.c.second_opinion, of_test.c.number <= max_votes)).subquery()


def count_columns(choice: SQLColumnExpression[str]) -> list[Label[int]]:
    """Columns named as the fields of `VoteCounts`; who calls both bad prefers neither."""
    meant = {
        "fine_tuned": (Choice.FINE_TUNED,),
        "base": (Choice.BASE,),
        "tie": (Choice.TIE, Choice.BOTH_BAD),
        "both_bad": (Choice.BOTH_BAD,),
    }
    return [func.count(case((choice.in_(choices), 1))).label(name) for name, choices in meant.items()]


async def standing(engine: AsyncEngine, abtest_uid: str, max_votes: int | None = None) -> Standing:
    """All of one moment. Each vote is answered with it, so that nothing is counted but what goes beyond `max_votes`."""
    counts = select(*TestCounts.__table__.columns).where(TestCounts.abtest_uid == abtest_uid)
    async with engine.connect() as connection:
        row = (await connection.execute(counts)).one_or_none()
        if row is None:
            return Standing(VoteCounts(), 0, 0, 0)
        votes = counted_of(row.fine_tuned, row.base, row.tie, row.both_bad)
        if max_votes is not None and votes.total > max_votes:
            fine_tuned, base, tie, both_bad = (await connection.execute(_without_the_last(abtest_uid, max_votes))).one()
            votes = counted_of(fine_tuned, base, tie, both_bad)
    return Standing(votes, row.late, row.second_opinions, row.comparisons)


async def tally(engine: AsyncEngine, abtest_uid: str, max_votes: int | None = None) -> VoteCounts:
    """The votes that count."""
    return (await standing(engine, abtest_uid, max_votes)).votes


def _without_the_last(abtest_uid: str, max_votes: int) -> Select[int, int, int, int]:
    """The counts without the votes that came after the first `max_votes`, as one statement and hence of one moment."""
    counts = aliased(TestCounts)
    total = counts.fine_tuned + counts.base + counts.tie + counts.both_bad
    excess = (
        select(case((total > max_votes, total - max_votes), else_=0))
        .where(counts.abtest_uid == abtest_uid)
        .scalar_subquery()
    )
    last = (
        select(Vote.choice)
        .where(*_counting(abtest_uid))
        .order_by(Vote.created_at.desc(), Vote.comparison_id.desc())
        .limit(excess)
        .subquery()
    )

    def kept(choice: Choice, count: InstrumentedAttribute[int]) -> Label[int]:
        beyond = select(func.count()).select_from(last).where(last.c.choice == choice.value).scalar_subquery()
        return (count - beyond).label(count.key)

    return select(
        kept(Choice.FINE_TUNED, TestCounts.fine_tuned),
        kept(Choice.BASE, TestCounts.base),
        kept(Choice.TIE, TestCounts.tie),
        kept(Choice.BOTH_BAD, TestCounts.both_bad),
    ).where(TestCounts.abtest_uid == abtest_uid)


def counted_of(fine_tuned: int, base: int, tie: int, both_bad: int) -> VoteCounts:
    """Who calls both bad prefers neither."""
    return VoteCounts(fine_tuned=fine_tuned, base=base, tie=tie + both_bad, both_bad=both_bad)


async def list_comparisons(
    engine: AsyncEngine, conditions: Sequence[ColumnElement[bool]], limit: int, namespaces: Iterable[str] | None = None
) -> list[tuple[Comparison, Vote | None]]:
    """The newest first, each with its vote; of these namespaces, or of all."""
    query = (
        select(Comparison, Vote)
        .outerjoin(Vote, _votes_of_its_evaluator())
        .where(*conditions)
        .order_by(Comparison.created_at.desc(), Comparison.id)
        .limit(limit)
    )
    # An index has each namespace in this order; of several at once all would be sorted.
    of_each = [query.where(Comparison.namespace == each) for each in namespaces] if namespaces is not None else [query]
    found: list[tuple[Comparison, Vote | None]] = []
    async with AsyncSession(engine) as session:
        for each in of_each:
            found += [(comparison, vote) for comparison, vote in (await session.execute(each)).all()]
            found.sort(key=lambda row: row[0].id)
            found.sort(key=lambda row: row[0].created_at, reverse=True)
            # Prompts and answers may be long, and namespaces many.
            del found[limit:]
    return found


def _counting(abtest_uid: str) -> tuple[ColumnElement[bool], ...]:
    return Vote.abtest_uid == abtest_uid, Vote.late.is_(False), Vote.second_opinion.is_(False)


def _votes_of_its_evaluator() -> ColumnElement[bool]:
    return (Vote.comparison_id == Comparison.id) & (Vote.evaluator == Comparison.evaluator)


def _columns(comparison: Comparison) -> dict[str, object]:
    return {column.name: getattr(comparison, column.name) for column in Comparison.__table__.columns}
