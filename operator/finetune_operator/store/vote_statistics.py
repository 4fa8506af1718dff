"""What the votes that count say besides their sum: who cast them, and how the win rate came about."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, SQLColumnExpression, and_, case, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute

from finetune_operator.contract.experiments import VoteCounts, VotersTally, WinRatePoint
from finetune_operator.store.experiment_tables import Comparison, TestCounts, VoteLog, VoterCounts
from finetune_operator.store.votes import Choice, count_columns, counted_of, counted_votes, opinions, tally


@dataclass(frozen=True)
class Voter:
    """One evaluator; `agreement` is how often the others said the same of the same prompts."""

    evaluator: str
    votes: VoteCounts
    agreement: float | None


@dataclass(frozen=True)
class Voters:
    """All of them in numbers, and those with the most votes by name."""

    evaluators: int = 0
    agreement: float | None = None
    heaviest: tuple[Voter, ...] = ()


class VoterMark(NamedTuple):
    """The last one of the page before."""

    votes: int
    evaluator: str


@dataclass(frozen=True)
class Cast:
    """The votes that count, how many people cast them, and those of who cast the most: of one moment."""

    votes: VoteCounts
    evaluators: int = 0
    heaviest: VoteCounts = field(default_factory=VoteCounts)
    second_opinions: int = 0

    def voters(self, agreement: float | None) -> VotersTally:
        return VotersTally(evaluators=self.evaluators, heaviest=self.heaviest, agreement=agreement)


async def cast(engine: AsyncEngine, abtest_uid: str, max_votes: int | None) -> Cast:
    """All that is counted as votes come; where there are more than count, what counts is looked up."""
    own = VoterCounts.abtest_uid == abtest_uid
    order = VoterCounts.votes.desc(), VoterCounts.evaluator
    heaviest = select(*_columns(VoterCounts)).where(own).order_by(*order).limit(1).subquery()
    evaluators = select(func.count()).select_from(VoterCounts).where(own).scalar_subquery()
    query = (
        select(*_columns(TestCounts), TestCounts.second_opinions, evaluators, *heaviest.c)
        .select_from(TestCounts)
        .outerjoin(heaviest, true())
        .where(TestCounts.abtest_uid == abtest_uid)
    )
    async with engine.connect() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        return Cast(VoteCounts())
    second_opinions, number = row[4:6]
    counted, most = counted_of(*row[:4]), counted_of(*(each or 0 for each in row[6:]))
    if max_votes is None or counted.total <= max_votes:
        return Cast(counted, number, most, second_opinions)
    counted = await tally(engine, abtest_uid, max_votes)
    found = await voters(engine, abtest_uid, counted.total, 1)
    most = found.heaviest[0].votes if found.heaviest else VoteCounts()
    return Cast(counted, found.evaluators, most, second_opinions)


async def heaviest_voters(engine: AsyncEngine, abtest_uid: str, limit: int, after: VoterMark | None = None) -> Voters:
    """Of all votes that count, without how well people agree."""
    own = VoterCounts.abtest_uid == abtest_uid
    evaluators = select(func.count()).select_from(VoterCounts).where(own).scalar_subquery()
    query = select(VoterCounts.evaluator, *_columns(VoterCounts), evaluators).where(own)
    if after is not None:
        query = query.where(_lighter(VoterCounts.votes, VoterCounts.evaluator, after))
    query = query.order_by(VoterCounts.votes.desc(), VoterCounts.evaluator).limit(limit)
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    if not rows:
        return Voters() if after is None else replace(await heaviest_voters(engine, abtest_uid, 1), heaviest=())
    return Voters(rows[0][-1], None, tuple(Voter(row[0], counted_of(*row[1:5]), None) for row in rows))


async def voters(
    engine: AsyncEngine, abtest_uid: str, max_votes: int | None, limit: int, after: VoterMark | None = None
) -> Voters:
    """The `limit` with the most votes first, and how often two people agreed on a prompt.

    Whether each has other answers to a prompt, made by the same two versions, or the same ones as those before: only
    the first vote of each on a prompt is compared, so that who votes often is no more than one voice; who calls both
    bad agrees with who sees a tie. Second opinions are compared, too, and count for nothing else.
    """
    given = opinions(abtest_uid, max_votes)
    preference = case((given.c.choice == Choice.BOTH_BAD, Choice.TIE.value), else_=given.c.choice)
    turn = func.row_number().over(
        partition_by=(given.c.evaluator, Comparison.prompt), order_by=(given.c.created_at, given.c.comparison_id)
    )
    ballots = (
        select(
            given.c.evaluator,
            case((given.c.second_opinion.is_(False), given.c.choice)).label("choice"),
            Comparison.prompt,
            preference.label("preference"),
            case((turn == 1, 1), else_=0).label("is_first"),
        )
        .join(Comparison, Comparison.id == given.c.comparison_id)
        .subquery()
    )
    first = ballots.c.is_first
    of_prompt = func.sum(first).over(partition_by=ballots.c.prompt)
    alike = func.sum(first).over(partition_by=(ballots.c.prompt, ballots.c.preference))
    judged = select(
        ballots.c.evaluator,
        ballots.c.choice,
        (first * (alike - 1)).label("agreeing"),
        (first * (of_prompt - 1)).label("pairs"),
    ).subquery()
    agreeing, pairs, votes = func.sum(judged.c.agreeing), func.sum(judged.c.pairs), func.count(judged.c.choice)
    each = (
        select(
            judged.c.evaluator,
            agreeing.label("agreeing"),
            pairs.label("pairs"),
            func.sum(case((votes > 0, 1), else_=0)).over().label("evaluators"),
            func.sum(agreeing).over().label("all_agreeing"),
            func.sum(pairs).over().label("all_pairs"),
            votes.label("votes"),
            *count_columns(judged.c.choice),
        )
        .group_by(judged.c.evaluator)
        .subquery()
    )
    query = select(each).order_by(each.c.votes.desc(), each.c.evaluator).limit(limit)
    if after is not None:
        query = query.where(_lighter(each.c.votes, each.c.evaluator, after))
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    if not rows:
        return Voters() if after is None else replace(await voters(engine, abtest_uid, max_votes, 1), heaviest=())
    _, _, _, evaluators, all_agreeing, all_pairs, *_ = rows[0]
    return Voters(
        evaluators,
        _share(all_agreeing, all_pairs),
        tuple(Voter(row[0], VoteCounts.model_validate(row._asdict()), _share(row[1], row[2])) for row in rows),
    )


def _lighter(
    votes: SQLColumnExpression[int], evaluator: SQLColumnExpression[str], mark: VoterMark
) -> ColumnElement[bool]:
    return and_(votes <= mark.votes, or_(votes < mark.votes, evaluator > mark.evaluator))


async def win_rates(
    engine: AsyncEngine, abtest_uid: str, max_votes: int | None, max_points: int
) -> tuple[WinRatePoint, ...]:
    """The votes after each of them, evenly thinned to `max_points` at most (2 or more), the last one kept.

    The log of all votes has each point in its place, but for what was before a vote was deleted.
    """
    ends = select(func.min(VoteLog.number), func.max(VoteLog.number)).where(VoteLog.abtest_uid == abtest_uid)
    async with engine.connect() as connection:
        first, last = (await connection.execute(ends)).one()
        if first == 1:
            total = last if max_votes is None else min(last, max_votes)
            numbers = {*range(0, total, _stride(total, max_points)), total} - {0}
            chosen = select(VoteLog).where(VoteLog.abtest_uid == abtest_uid, VoteLog.number.in_(numbers))
            rows = (await connection.execute(chosen.order_by(VoteLog.number))).all()
            points = [
                WinRatePoint(time=row.created_at, votes=counted_of(row.fine_tuned, row.base, row.tie, row.both_bad))
                for row in rows
            ]
            if points and total < last:
                # Logged as votes came, while of several apis those count that have the first times written on them.
                points[-1] = points[-1].model_copy(update={"votes": await tally(engine, abtest_uid, max_votes)})
            return tuple(points)
    return await _all_win_rates(engine, abtest_uid, max_votes, max_points)


async def _all_win_rates(
    engine: AsyncEngine, abtest_uid: str, max_votes: int | None, max_points: int
) -> tuple[WinRatePoint, ...]:
    counted = counted_votes(abtest_uid, max_votes)
    so_far = [
        count.element.over(order_by=counted.c.number, rows=(None, 0)).label(count.name)
        for count in count_columns(counted.c.choice)
    ]
    series = select(counted.c.number, counted.c.created_at, func.count().over().label("total"), *so_far).subquery()
    stride = _stride(series.c.total, max_points)
    query = (
        select(series)
        .where(or_(series.c.number % stride == 0, series.c.number == series.c.total))
        .order_by(series.c.number)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return tuple(WinRatePoint(time=row.created_at, votes=VoteCounts.model_validate(row._asdict())) for row in rows)


def _columns(table: type[TestCounts] | type[VoterCounts]) -> list[InstrumentedAttribute[int]]:
    """As `counted_of` takes them."""
    return [table.fine_tuned, table.base, table.tie, table.both_bad]


Number = TypeVar("Number", int, ColumnElement[int])


def _stride(total: Number, max_points: int) -> Number:
    """Every how many votes there is a point, so that with the last one there are not too many."""
    return (total + max_points - 2) // (max_points - 1)


def _share(part: int, whole: int) -> float | None:
    return float(part) / float(whole) if whole else None
