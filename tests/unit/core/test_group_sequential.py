"""The test of votes for a stated minimum effect: how often it errs, what it finds, and how many votes it takes.

All courses of a series of ties are counted one vote at a time, with nothing of the code under test but the lead that a
look needs. Errors are counted for each series of ties by itself, so that no rate of ties and no order of them matters;
power is the mean over series drawn at a rate.
"""

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from math import comb
from typing import NamedTuple

import pytest

from finetune_operator.core import group_sequential
from finetune_operator.core.group_sequential import (
    POWER,
    horizon,
    horizon_bounds,
    lead_needed,
    looked,
    most_votes,
    next_look,
    votes_bound,
)
from finetune_operator.resources.abtest import Look, Votes
from finetune_operator.resources.abtest_decision import DEFAULT_MAX_VOTES, VOTE_LOOKS, Decision
from tests.unit.core.test_error_rates import fixed_size

ALPHA = 0.05
TIE_RATES = (0.0, 0.2, 0.6)
WIN_RATES = (0.55, 0.6, 0.7)
EVEN = 0.5


class Outcome(NamedTuple):
    """Probabilities that the candidate wins, and that either does; votes taken on average."""

    won: float
    decided: float
    votes: float


def count_courses(decision: Decision, is_tie: Sequence[bool], share: float, late: Callable[[], int]) -> Outcome:
    """Of votes of which `share` of those that are no ties are for the candidate; each look comes `late` votes late."""
    looks: tuple[Look, ...] = ()
    chances, decisive, won, lost, taken = [1.0], 0, 0.0, 0.0, 0.0
    look_at = (next_look(decision, ()) or 0) + late()
    for number, tie in enumerate(is_tie, start=1):
        if not tie:
            decisive += 1
            more, same = [0.0, *chances], [*chances, 0.0]
            chances = [share * a + (1 - share) * b for a, b in zip(more, same, strict=True)]
        if number < min(look_at, len(is_tie)):
            continue
        even = Votes(fine_tuned=decisive // 2, base=decisive - decisive // 2, total=number)
        before, looks = looks, looked(decision, looks, even)
        assert len(looks) == len(before) + 1, "the next look has to be due"
        needed = looks[-1].lead_needed
        # The course that goes on is one that was not significant.
        looks = (*before, looks[-1].model_copy(update={"fine_tuned": decisive // 2, "base": decisive - decisive // 2}))
        now_won = sum(chance for wins, chance in enumerate(chances) if 2 * wins - decisive >= needed)
        now_lost = sum(chance for wins, chance in enumerate(chances) if decisive - 2 * wins >= needed)
        chances = [chance if abs(2 * wins - decisive) < needed else 0.0 for wins, chance in enumerate(chances)]
        won, lost, taken = won + now_won, lost + now_lost, taken + number * (now_won + now_lost)
        look_at = (next_look(decision, looks) or len(is_tie)) + late()
    return Outcome(won, won + lost, taken + len(is_tie) * sum(chances))


def at_once() -> int:
    return 0


def series(rng: random.Random, votes: int, tie_rate: float) -> list[bool]:
    return [rng.random() < tie_rate for _ in range(votes)]


def decision_of(max_votes: int, alpha: float = ALPHA) -> Decision:
    return Decision(min_votes=1, max_votes=max_votes, min_effect="0.1", alpha=str(alpha))


@pytest.mark.parametrize("tie_rate", TIE_RATES)
@pytest.mark.parametrize("max_votes", [12, 54, 223, 902])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_false_verdicts(max_votes: int, tie_rate: float, alpha: float) -> None:
    """However the ties fall, and whether each look comes when it is due or some votes later."""
    rng = random.Random(max_votes)
    for late in (at_once, lambda: rng.randrange(1 + max_votes // 4)):
        for _ in range(3):
            ties = series(rng, max_votes, tie_rate)
            assert count_courses(decision_of(max_votes, alpha), ties, EVEN, late).decided <= alpha + 1e-12


ORDERS = {
    "ties first": [True] * 100 + [False] * 100,
    "ties last": [False] * 100 + [True] * 100,
    "ties only": [True] * 200,
    "one decisive vote a look": [number % 20 != 0 for number in range(200)],
}


@pytest.mark.parametrize("ties", ORDERS.values(), ids=ORDERS.keys())
def test_false_verdicts_in_odd_orders(ties: list[bool]) -> None:
    assert count_courses(decision_of(200), ties, EVEN, at_once).decided <= ALPHA


def test_alpha_is_used() -> None:
    """A test that never decides would not err either."""
    assert count_courses(decision_of(902), [False] * 902, EVEN, at_once).decided > 0.9 * ALPHA


@cache
def found(win_rate: float, tie_rate: float) -> Outcome:
    """With 1.15 times the votes of a test whose size was fixed knowing the win rate."""
    votes, rng = int(1.15 * fixed_size(win_rate, tie_rate)), random.Random(5)
    share = EVEN + (win_rate - EVEN) / (1 - tie_rate)
    drawn = [series(rng, votes, tie_rate) for _ in range(40 if tie_rate else 1)]
    outcomes = [count_courses(decision_of(votes), ties, share, at_once) for ties in drawn]
    won, decided, taken = (sum(column) / len(drawn) for column in zip(*outcomes, strict=True))
    return Outcome(won, decided, taken)


# At 60 % ties no vote would be for the baseline if the win rate were 0.7.
TRUTHS = [
    (win_rate, tie_rate) for tie_rate in TIE_RATES for win_rate in WIN_RATES if (win_rate, tie_rate) != (0.7, 0.6)
]


@pytest.mark.parametrize(("win_rate", "tie_rate"), TRUTHS)
def test_a_stated_effect_is_found_with_1_15_times_the_fixed_sample(win_rate: float, tie_rate: float) -> None:
    assert found(win_rate, tie_rate).won >= POWER


@pytest.mark.parametrize(("win_rate", "tie_rate"), TRUTHS)
def test_it_takes_fewer_votes_than_the_fixed_sample_on_average(win_rate: float, tie_rate: float) -> None:
    assert found(win_rate, tie_rate).votes <= 0.88 * fixed_size(win_rate, tie_rate)


@pytest.mark.parametrize("alpha", ["0.1", "0.05", "0.01", "0.001"])
@pytest.mark.parametrize(
    "effect", ["0.04", "0.05", "0.08", "0.1", "0.15", "0.2", "0.25", "0.3", "0.35", "0.4", "0.499"]
)
def test_the_horizon_of_an_effect_finds_it(effect: str, alpha: str) -> None:
    decision = Decision(min_votes=1, min_effect=effect, alpha=alpha)
    votes = most_votes(decision)
    found = count_courses(decision, [False] * votes, EVEN + float(effect), at_once)
    assert found.won >= POWER


@pytest.mark.parametrize("win_rate", WIN_RATES)
def test_the_horizon_is_at_most_1_15_times_the_fixed_sample(win_rate: float) -> None:
    assert most_votes(Decision(min_effect=f"{win_rate - EVEN:.2f}")) <= 1.15 * fixed_size(win_rate, 0)


def exact_tail(votes: int, lead: int) -> float:
    """Probability that one of two equals leads by so much."""
    return float(Fraction(2 * sum(comb(votes, wins) for wins in range((votes + lead) // 2, votes + 1)), 2**votes))


def test_a_tiny_alpha_is_not_lost_in_rounding() -> None:
    """The second look needs no more than what the first one did not spend pays for, whatever the first one found."""
    allowed, alpha = 1e-10 * 0.2**3, 1e-10
    first = lead_needed((), 2000, alpha * 0.1**3)
    second = lead_needed(((2000, first),), 4000, allowed)
    assert exact_tail(4000, second) <= allowed
    assert exact_tail(4000, second - 4) > allowed - exact_tail(2000, first)


EFFECTS = ("0.02", "0.05", "0.1", "0.2", "0.3", "0.4", "0.4999999999")


@pytest.mark.parametrize("alpha", ["0.0000000001", "0.001", "0.05", "0.5", "0.999999"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_a_horizon_lies_within_its_bounds(effect: str, alpha: str) -> None:
    """Within which alone it is searched, so that the search ends; what is there is found."""
    least, most = horizon_bounds(float(effect), float(alpha))
    assert least <= horizon(float(effect), float(alpha)) < most


MOST = {
    "nothing said": (Decision(), DEFAULT_MAX_VOTES),
    "most votes": (Decision(max_votes=50), 50),
    "an effect": (Decision(min_effect="0.1"), 214),
    "an effect and most votes": (Decision(min_effect="0.1", max_votes=50), 50),
    "an effect and many at least": (Decision(min_effect="0.1", min_votes=3000), 3000),
}


@pytest.mark.parametrize(("decision", "expected"), MOST.values(), ids=MOST.keys())
def test_most_votes(decision: Decision, expected: int) -> None:
    assert most_votes(decision) == expected
    assert expected <= votes_bound(decision) <= 1.2 * expected


def test_a_horizon_is_worked_out_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a second, for which a gateway's streams would stand still."""
    monkeypatch.setattr(group_sequential, "horizon", None)
    decision = Decision(min_effect="0.01", alpha="0.001")
    assert votes_bound(decision) >= 46952
    assert most_votes(decision.model_copy(update={"max_votes": 500})) == 500


class TestLooks:
    DECISION = decision_of(200)

    def test_one_is_due_each_tenth_of_the_way(self) -> None:
        looks: tuple[Look, ...] = ()
        seen = []
        for total in range(1, 201):
            before, looks = (
                looks,
                looked(self.DECISION, looks, Votes(base=total // 2, fine_tuned=total // 2, total=total)),
            )
            seen += [total] if looks != before else []
        assert seen == list(range(20, 201, 20))
        assert len(looks) == VOTE_LOOKS
        assert next_look(self.DECISION, looks) is None

    def test_looking_between_them_changes_nothing(self) -> None:
        first = looked(self.DECISION, (), Votes(fine_tuned=11, base=9, total=20))
        assert looked(self.DECISION, first, Votes(fine_tuned=30, base=9, total=39)) == first

    def test_one_that_comes_late_stands_for_those_it_missed(self) -> None:
        looks = looked(self.DECISION, (), Votes(fine_tuned=40, base=35, tie=10, total=85))
        assert [look.votes for look in looks] == [85]
        assert next_look(self.DECISION, looks) == 100

    def test_none_follows_a_significant_one(self) -> None:
        looks = looked(self.DECISION, (), Votes(fine_tuned=100, base=10, total=110))
        assert looks[-1].is_significant
        assert looked(self.DECISION, looks, Votes(fine_tuned=100, base=100, total=200)) == looks

    def test_fewer_votes_than_before_are_no_look(self) -> None:
        looks = looked(self.DECISION, (), Votes(fine_tuned=10, base=10, total=20))
        assert looked(self.DECISION, looks, Votes(fine_tuned=5, base=5, tie=40, total=50)) == looks

    def test_none_comes_before_the_least_votes(self) -> None:
        decision = Decision(min_votes=50, max_votes=200, min_effect="0.1")
        assert next_look(decision, ()) == 50

    def test_the_last_one_needs_little_more_than_a_test_of_fixed_size(self) -> None:
        looks: tuple[Look, ...] = ()
        for total in range(20, 201, 20):
            looks = looked(self.DECISION, looks, Votes(fine_tuned=total // 2, base=total // 2, total=total))
        assert 28 <= looks[-1].lead_needed <= 34
