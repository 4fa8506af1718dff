"""What the votes that count say besides their sum: who cast them, and how the win rate came about."""

from dataclasses import dataclass

from sqlalchemy import case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.experiments import VoteCounts, VotersTally, WinRatePoint
from finetune_operator.store.tables import Comparison
from finetune_operator.store.votes import Choice, count_columns, counted_votes


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

    def tally(self) -> VotersTally:
        heaviest = self.heaviest[0].votes if self.heaviest else VoteCounts()
        return VotersTally(evaluators=self.evaluators, heaviest=heaviest, agreement=self.agreement)


async def voters(engine: AsyncEngine, abtest_uid: str, max_votes: int | None, limit: int) -> Voters:
    """The `limit` with the most votes first, and how often two people agreed on a prompt.

    Each has other answers to a prompt, made by the same two versions. Only the first vote of each on a prompt is
    compared, so that who votes often is no more than one voice; who calls both bad agrees with who sees a tie.
    """
    counted = counted_votes(abtest_uid, max_votes)
    preference = case((counted.c.choice == Choice.BOTH_BAD, Choice.TIE.value), else_=counted.c.choice)
    turn = func.row_number().over(partition_by=(counted.c.evaluator, Comparison.prompt), order_by=counted.c.number)
    ballots = (
        select(
            counted.c.evaluator,
            counted.c.choice,
            Comparison.prompt,
            preference.label("preference"),
            case((turn == 1, 1), else_=0).label("is_first"),
        )
        .join(Comparison, Comparison.id == counted.c.comparison_id)
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
    agreeing, pairs = func.sum(judged.c.agreeing), func.sum(judged.c.pairs)
    query = (
        select(
            judged.c.evaluator,
            agreeing,
            pairs,
            func.count().over(),
            func.sum(agreeing).over(),
            func.sum(pairs).over(),
            *count_columns(judged.c.choice),
        )
        .group_by(judged.c.evaluator)
        .order_by(func.count().desc(), judged.c.evaluator)
        .limit(limit)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    if not rows:
        return Voters()
    _, _, _, evaluators, all_agreeing, all_pairs, *_ = rows[0]
    return Voters(
        evaluators,
        _share(all_agreeing, all_pairs),
        tuple(Voter(row[0], VoteCounts.model_validate(row._asdict()), _share(row[1], row[2])) for row in rows),
    )


async def win_rates(
    engine: AsyncEngine, abtest_uid: str, max_votes: int | None, max_points: int
) -> tuple[WinRatePoint, ...]:
    """The votes after each of them, evenly thinned to `max_points` at most (2 or more), the last one kept."""
    counted = counted_votes(abtest_uid, max_votes)
    so_far = [
        count.element.over(order_by=counted.c.number, rows=(None, 0)).label(count.name)
        for count in count_columns(counted.c.choice)
    ]
    series = select(counted.c.number, counted.c.created_at, func.count().over().label("total"), *so_far).subquery()
    stride = (series.c.total + max_points - 2) // (max_points - 1)
    query = (
        select(series)
        .where(or_(series.c.number % stride == 0, series.c.number == series.c.total))
        .order_by(series.c.number)
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return tuple(WinRatePoint(time=row.created_at, votes=VoteCounts.model_validate(row._asdict())) for row in rows)


def _share(part: int, whole: int) -> float | None:
    return float(part) / float(whole) if whole else None
