"""Two models side by side: each quantity with which of them is better, in words as well as in colour. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from finetune_operator.core.score_interval import Interval as Bounds
from finetune_operator.web.dashboard.rating_intervals import (
    average_rating,
    gold_star_rate,
    overlap,
    rating_deviation,
)
from finetune_operator.web.dashboard.templating import UNKNOWN, money, number, percent
from finetune_operator.web.dashboard.version_figures import Figures, Memory, Money

THIN_SPACE = "\u202f"
EVEN = 0.5
ALIKE = 1.1
"""Memory within this ratio may be the same engine's, asked earlier or later."""


class Direction(StrEnum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"


class Standing(StrEnum):
    """Of the right side against the left one."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    UNDECIDED = "undecided"
    """Measured, but not beyond doubt."""
    UNKNOWN = "unknown"


_MEASURED = (Standing.BETTER, Standing.WORSE, Standing.EQUAL, Standing.UNDECIDED)
MIRRORED = {Standing.BETTER: Standing.WORSE, Standing.WORSE: Standing.BETTER}


@dataclass(frozen=True)
class Interval:
    """What a share may truly be, at all looks together."""

    low: float
    high: float


@dataclass(frozen=True)
class Duel:
    """What votes said of the right side against the left one; `interval` is of the right side's win rate."""

    win_rate: float
    interval: Interval
    votes: int


@dataclass(frozen=True)
class Cell:
    """One side's value: as text, and as a share of a whole bar where it has a natural end."""

    text: str
    share: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity of both sides; `words` says the difference of the right side against the left one."""

    name: str
    explanation: str
    direction: Direction
    left: Cell
    right: Cell
    standing: Standing
    words: str

    @property
    def left_standing(self) -> Standing:
        return MIRRORED.get(self.standing, self.standing)


@dataclass(frozen=True)
class Group:
    """Quantities of one kind; `note` says how far they can be compared."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """How many quantities are better on the right side, of those that both have; `known` are those that are decided."""

    better: int
    worse: int
    equal: int
    undecided: int

    @property
    def known(self) -> int:
        return self.better + self.worse + self.equal


Show = Callable[[float], str]


def comparison(left: Figures, right: Figures, duel: Duel | None = None) -> tuple[Group, ...]:
    """Quality, speed and efficiency. `duel` is absent where nobody has voted on exactly these two."""
    return (
        Group("Quality", tuple(_quality(left, right, duel)), _quality_note(left, right)),
        Group("Speed", tuple(_speed(left, right))),
        Group("Size and cost", tuple(_efficiency(left, right))),
    )


def summary(groups: Iterable[Group]) -> Summary:
    standings = [row.standing for group in groups for row in group.rows]
    return Summary(*(standings.count(each) for each in _MEASURED))


def _quality(left: Figures, right: Figures, duel: Duel | None) -> Iterable[Row]:
    yield _duel_row(duel)
    yield _elo_row(left, right, duel)
    yield _row(
        "Gold-star rate",
        "Share of users' ratings of its answers that are 4 stars or more.",
        Direction.HIGHER,
        (left.gold_star_rate, right.gold_star_rate),
        percent,
        share=lambda value: value,
        notes=(_rated(left), _rated(right)),
        relative=False,
        doubt=_doubt_of_ratings(left, right, gold_star_rate),
    )
    yield _row(
        "Average rating",
        "Of 1 to 5 stars.",
        Direction.HIGHER,
        (left.average_rating, right.average_rating),
        lambda value: f"{number(value, 2)} ★",
        share=lambda value: value / 5,
        notes=(_rated(left), _rated(right)),
        doubt=_doubt_of_ratings(left, right, average_rating),
    )
    yield _row(
        "Consistency",
        "Standard deviation of the ratings: the smaller, the more even the answers.",
        Direction.LOWER,
        (left.rating_deviation, right.rating_deviation),
        lambda value: f"± {number(value, 2)} ★",
        doubt=_doubt_of_ratings(left, right, rating_deviation),
    )
    for name in sorted({*left.scores, *right.scores}):
        yield _row(
            name,
            "Of answers to held-out questions, from 0 to 1.",
            Direction.HIGHER,
            (left.scores.get(name), right.scores.get(name)),
            lambda value: number(value, 3),
            share=lambda value: value,
        )
    yield _row(
        "Loss on held-out rows",
        "How surprised it is by good answers that it never saw.",
        Direction.LOWER,
        (left.test_loss, right.test_loss),
        lambda value: number(value, 4),
    )


def _quality_note(left: Figures, right: Figures) -> str:
    digests = {left.dataset_digest, right.dataset_digest} - {None}
    if len(digests) > 1:
        return (
            "The two were trained on different data, so their scores and losses may be of different held-out rows; "
            "votes and ratings compare them fairly."
        )
    return ""


def _speed(left: Figures, right: Figures) -> Iterable[Row]:
    yield _row(
        "Tokens per second",
        "Of all answers together, measured on its engine.",
        Direction.HIGHER,
        (left.tokens_per_second, right.tokens_per_second),
        lambda value: number(value, 1),
        bars=True,
    )
    yield _row(
        "Time to first token",
        "How long one waits until the answer begins.",
        Direction.LOWER,
        (left.seconds_to_first_token, right.seconds_to_first_token),
        seconds,
        bars=True,
    )
    yield _row(
        "Time of an answer",
        "Until the whole answer is there, on average.",
        Direction.LOWER,
        (left.latency_seconds, right.latency_seconds),
        seconds,
        bars=True,
    )
    yield _row(
        "Slow answers",
        "19 of 20 answers were complete within this time.",
        Direction.LOWER,
        (left.p95_latency_seconds, right.p95_latency_seconds),
        seconds,
        bars=True,
    )
    yield _row(
        "Requests per second at saturation",
        "The most that its engine answers.",
        Direction.HIGHER,
        (left.requests_per_second, right.requests_per_second),
        lambda value: number(value, 1),
        bars=True,
    )


def _efficiency(left: Figures, right: Figures) -> Iterable[Row]:
    yield _row(
        "Model size",
        "Of the adapter's files, beside the base model's weights, or of the merged weights' where those are served.",
        Direction.LOWER,
        (left.model_megabytes, right.model_megabytes),
        lambda value: f"{number(value, 1)}{THIN_SPACE}MB",
        notes=(_without_adapter(left), _without_adapter(right)),
        bars=True,
    )
    yield _memory_row(left.memory, right.memory)
    yield _cost_row(
        "Cost per million tokens",
        "The price of the engine for the time in which it generates them.",
        left.cost_per_million_tokens,
        right.cost_per_million_tokens,
    )
    yield _cost_row("Cost per answer", "Of an average answer.", left.cost_per_answer, right.cost_per_answer)


def _duel_row(duel: Duel | None) -> Row:
    """Better or worse only where the band excludes a draw."""
    name, explanation = "Win rate", "By blind votes on exactly these two, a tie counting half."
    if duel is None:
        cells = (Cell(UNKNOWN), Cell(UNKNOWN))
        return Row(name, explanation, Direction.HIGHER, *cells, Standing.UNKNOWN, "nobody has voted on these two yet")
    interval = duel.interval
    votes = _counted(duel.votes, "vote")
    left = Cell(percent(1 - duel.win_rate), 1 - duel.win_rate, _band(1 - interval.high, 1 - interval.low))
    right = Cell(percent(duel.win_rate), duel.win_rate, _band(interval.low, interval.high))
    if interval.low > EVEN:
        standing, words = Standing.BETTER, f"preferred in {votes}, beyond doubt"
    elif interval.high < EVEN:
        standing, words = Standing.WORSE, f"less liked in {votes}, beyond doubt"
    else:
        standing, words = Standing.UNDECIDED, f"not decided by {votes}"
    return Row(name, explanation, Direction.HIGHER, left, right, standing, words)


def _elo_row(left: Figures, right: Figures, duel: Duel | None) -> Row:
    """It has no interval of its own: the votes between the two say whether they differ."""
    return _row(
        "Elo rating",
        "Strength by all votes on this model's versions: 400 points more win ten times as often.",
        Direction.HIGHER,
        (left.elo, right.elo),
        number,
        relative=False,
        doubt="" if _is_decided(duel, left.elo, right.elo) else _duel_row(duel).words,
    )


def _is_decided(duel: Duel | None, left: float | None, right: float | None) -> bool:
    """By the votes between the two, and as their ratings by all votes have it."""
    if duel is None or left is None or right is None:
        return False
    return duel.interval.low > EVEN if right > left else duel.interval.high < EVEN


def _doubt_of_ratings(left: Figures, right: Figures, interval_of: Callable[[Figures], Bounds | None]) -> str:
    """Why a difference may be chance; empty where it is none, or where nothing tells."""
    ours, theirs = interval_of(left), interval_of(right)
    if ours is None or theirs is None or not overlap(ours, theirs):
        return ""
    return f"not decided by {_counted(left.ratings, 'rating')} and {_counted(right.ratings, 'rating')}"


def _row(
    name: str,
    explanation: str,
    direction: Direction,
    values: tuple[float | None, float | None],
    show: Show,
    *,
    share: Callable[[float], float] | None = None,
    notes: tuple[str, str] = ("", ""),
    relative: bool = True,
    bars: bool = False,
    doubt: str = "",
) -> Row:
    """With `bars` each side's is relative to the larger of the two; `doubt` says why a difference may be chance."""
    left, right = values
    if bars and left is not None and right is not None and max(left, right) > 0:
        share = partial(_part_of, max(left, right))
    cells = (_cell(left, show, share, notes[0]), _cell(right, show, share, notes[1]))
    if left is None or right is None:
        missing = "neither was measured" if left is None and right is None else "one of them was not measured"
        return Row(name, explanation, direction, *cells, Standing.UNKNOWN, missing)
    if cells[0].text == cells[1].text:
        return Row(name, explanation, direction, *cells, Standing.EQUAL, "the same")
    is_higher = right > left
    standing = Standing.BETTER if is_higher == (direction is Direction.HIGHER) else Standing.WORSE
    way = "higher" if is_higher else "lower"
    if doubt:
        return Row(name, explanation, direction, *cells, Standing.UNDECIDED, f"{way}, but {doubt}")
    by = f"{number(100 * abs(right - left) / abs(left))}{THIN_SPACE}% " if relative and left else ""
    return Row(name, explanation, direction, *cells, standing, f"{by}{way}: {standing}")


def _part_of(whole: float, value: float) -> float:
    return value / whole


def _cell(value: float | None, show: Show, share: Callable[[float], float] | None, note: str) -> Cell:
    if value is None:
        return Cell(UNKNOWN, note=note)
    return Cell(show(value), share(value) if share else None, note)


def _cost_row(name: str, explanation: str, left: Money | None, right: Money | None) -> Row:
    if left and right and left.currency != right.currency:
        cells = (Cell(_amount(left)), Cell(_amount(right)))
        words = "different currencies can't be compared"
        return Row(name, explanation, Direction.LOWER, *cells, Standing.UNKNOWN, words)
    currency = next((side.currency for side in (left, right) if side), None)
    amounts = (left.amount if left else None, right.amount if right else None)
    return _row(name, explanation, Direction.LOWER, amounts, lambda value: money(value, currency), bars=True)


def _memory_row(left: Memory | None, right: Memory | None) -> Row:
    name, explanation = "Memory of its engine", "The most that one pod of it took while it answered."
    sizes = (left.gigabytes if left else None, right.gigabytes if right else None)
    are_alike = left is not None and right is not None and left.of is right.of
    row = _row(name, explanation, Direction.LOWER, sizes, _gigabytes, bars=are_alike)
    if left is None or right is None:
        return row
    if left.of is not right.of:
        words = "accelerators and containers can't be compared"
        return replace(row, standing=Standing.UNKNOWN, words=words)
    if row.standing is not Standing.EQUAL and max(left.gigabytes, right.gigabytes) < ALIKE * min(
        left.gigabytes, right.gigabytes
    ):
        return replace(row, standing=Standing.UNDECIDED, words="about the same: it also grows with an engine's age")
    return row


def _gigabytes(value: float) -> str:
    return f"{number(value, 1)}{THIN_SPACE}GB"


def _amount(cost: Money) -> str:
    return money(cost.amount, cost.currency)


def seconds(value: float) -> str:
    """Milliseconds below one second."""
    return f"{number(1000 * value)}{THIN_SPACE}ms" if value < 1 else f"{number(value, 2)}{THIN_SPACE}s"


def _band(low: float, high: float) -> str:
    return f"{percent(low, 0)} to {percent(high, 0)}"


def _without_adapter(side: Figures) -> str:
    return "needs no adapter" if side.is_base else ""


def _rated(side: Figures) -> str:
    return _counted(side.ratings, "rating") if side.ratings else ""


def _counted(count: int, word: str) -> str:
    return f"{number(count)} {word}" if count == 1 else f"{number(count)} {word}s"
