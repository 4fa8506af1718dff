"""How often the always-valid test errs, and how many votes it takes: simulated, and exactly by counting all courses."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import ceil, exp, lgamma, log, sqrt
from statistics import NormalDist

import pytest

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.sequential import p_value

ALPHA, POWER = 0.05, 0.8
TESTS, MOST_VOTES = 10_000, 2000
TIE_RATES = (0.0, 0.2, 0.6)


@cache
def significant_leads() -> Sequence[int]:
    """By the number of decisive votes, the least lead that is significant; p falls with each vote for the leader."""
    leads: list[int] = []
    for decisive in range(MOST_VOTES + 1):
        lead = max(leads[-1] - 1, 0) if leads else 0
        while p_value(VoteCounts(fine_tuned=(decisive + lead) // 2, base=(decisive - lead) // 2)) > ALPHA:
            lead += 1 if (decisive + lead) % 2 else 2
            if lead > decisive:
                break
        leads.append(lead)
    return leads


def test_ten_thousand_tests_of_equals() -> None:
    """Looked at after every vote, at most alpha of them ever look significant; ties only put that off."""
    rng = random.Random(20260101)
    alarms = [alarm for _ in range(TESTS) if (alarm := first_alarm(rng)) is not None]
    for tie_rate in TIE_RATES:
        in_time = sum(votes_until(rng, decisive, tie_rate) <= MOST_VOTES for decisive in alarms)
        assert 0.02 < in_time / TESTS <= ALPHA


def first_alarm(rng: random.Random) -> int | None:
    """After how many decisive votes, if ever; each is for the candidate if its byte is odd."""
    walk = accumulate(byte % 2 * 2 - 1 for byte in rng.randbytes(MOST_VOTES))
    looks = enumerate(zip(map(abs, walk), significant_leads()[1:], strict=True), start=1)
    return next((number for number, (lead, significant) in looks if lead >= significant), None)


def votes_until(rng: random.Random, decisive: int, tie_rate: float) -> int:
    votes = 0
    while decisive:
        votes += 1
        decisive -= rng.random() >= tie_rate
    return votes


@pytest.mark.parametrize(("pairs", "people"), [(20, 10), (50, 5), (400, 5)])
def test_ten_thousand_tests_of_equals_by_people_who_agree(pairs: int, people: int) -> None:
    """Nine of ten say of two answers what the others say: only the first vote on them may count."""
    rng = random.Random(20261123)
    by_chance = {"first votes": 0, "all votes": 0}
    for _ in range(TESTS if pairs < 100 else TESTS // 10):
        ballots = [(pair, rng.random() < 0.5) for pair in range(pairs)]
        votes = [(pair, better if rng.random() < 0.9 else not better) for pair, better in ballots * people]
        by_chance["first votes"] += is_significant_at_some_look([vote for _, vote in votes[:pairs]])
        rng.shuffle(votes)
        by_chance["all votes"] += is_significant_at_some_look([vote for _, vote in votes])
    tests = TESTS if pairs < 100 else TESTS // 10
    assert by_chance["first votes"] / tests <= ALPHA
    assert by_chance["all votes"] / tests > 2 * ALPHA, "what the rule is there for"


def is_significant_at_some_look(for_the_candidate: Sequence[bool]) -> bool:
    walk = accumulate(1 if vote else -1 for vote in for_the_candidate)
    return any(abs(lead) >= least for lead, least in zip(walk, significant_leads()[1:], strict=False))


@pytest.mark.parametrize("tie_rate", TIE_RATES)
def test_all_tests_of_equals(tie_rate: float) -> None:
    assert 0.03 < 2 * probability_of_winning(0.5, tie_rate, MOST_VOTES) <= ALPHA


@pytest.mark.parametrize(
    ("win_rate", "tie_rate"),
    [
        (win_rate, tie_rate)
        for tie_rate in TIE_RATES
        for win_rate in (0.55, 0.6, 0.7)
        if (win_rate, tie_rate) != (0.7, 0.6)
    ],
)
def test_a_real_difference_is_found_without_saying_how_large_it_is(win_rate: float, tie_rate: float) -> None:
    """With 1.8 times the votes of a test whose size was fixed knowing the win rate; a tie counts half in it.

    At 60 % ties no vote would be for the baseline if the win rate were 0.7.
    """
    votes = int(1.8 * fixed_size(win_rate, tie_rate))
    assert probability_of_winning(win_rate, tie_rate, votes) >= POWER


def fixed_size(win_rate: float, tie_rate: float) -> int:
    """Votes of the usual two-sided test of a mean (Fleiss, Statistical Methods for Rates and Proportions, 2.14)."""
    effect, between_equals = win_rate - 0.5, (1 - tie_rate) / 4
    normal = NormalDist()
    deviations = normal.inv_cdf(1 - ALPHA / 2) * sqrt(between_equals) + normal.inv_cdf(POWER) * sqrt(
        between_equals - effect**2
    )
    return ceil((deviations / effect) ** 2)


def probability_of_winning(win_rate: float, tie_rate: float, votes: int) -> float:
    """That so many votes find the candidate significantly better at one of all looks."""
    won = chances_of_having_won(0.5 + (win_rate - 0.5) / (1 - tie_rate), votes)
    if tie_rate == 0:
        return won[votes]
    return sum(won[decisive] * binomial(decisive, votes, 1 - tie_rate) for decisive in range(votes + 1))


def binomial(successes: int, trials: int, share: float) -> float:
    ways = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
    return exp(ways + successes * log(share) + (trials - successes) * log(1 - share))


@cache
def chances_of_having_won(share: float, most: int) -> Sequence[float]:
    """By the number of decisive votes: courses that reached a significant lead have ended there."""
    leads, going_on, chances = significant_leads(), [1.0], [0.0]
    for decisive in range(1, most + 1):
        against, in_favour = [*going_on, 0.0], [0.0, *going_on]
        going_on = [share * more + (1 - share) * same for more, same in zip(in_favour, against, strict=True)]
        won = 0.0
        if leads[decisive] <= decisive:
            wins_needed = (decisive + leads[decisive]) // 2
            won = sum(going_on[wins_needed:])
            ended = decisive + 1 - wins_needed
            going_on[wins_needed:] = [0.0] * ended
            going_on[:ended] = [0.0] * ended
        chances.append(chances[-1] + won)
    return chances
