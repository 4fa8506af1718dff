"""The always-valid test of paired votes, and what is told of it."""

from math import exp, isclose, log, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.sequential import log_evidence, p_value, preference_interval, printed, votes_still_needed

COUNTS = st.integers(min_value=0, max_value=500)
ALPHA = 0.05


def votes(fine_tuned: int, base: int, tie: int = 0) -> VoteCounts:
    return VoteCounts(fine_tuned=fine_tuned, base=base, tie=tie)


def test_a_tie_counts_half_in_the_win_rate() -> None:
    assert votes(12, 5, 3).win_rate == 0.675
    assert votes(0, 0, 4).win_rate == 0.5
    assert votes(0, 0).win_rate is None


def test_the_evidence_is_the_beta_mixture_of_likelihood_ratios() -> None:
    """For whole numbers the Beta functions are products: 3 wins and 1 loss under Beta(8, 8) against a fair coin."""
    mixture = prod([8, 9, 10, 8]) / prod([16, 17, 18, 19])
    assert isclose(exp(log_evidence(3, 1)), mixture / 0.5**4)


P_VALUES = {
    "no votes": (votes(0, 0), 1.0, 1.0),
    "a draw": (votes(20, 20), 1.0, 1.0),
    "ties only": (votes(0, 0, 1000), 1.0, 1.0),
    "a slight lead": (votes(11, 9), 0.9, 1.0),
    "5 of 5": (votes(5, 0), 0.1, 0.7),
    "12 against 1": (votes(12, 1), 0.05, 0.2),
    "14 of 14": (votes(14, 0), 0.01, 0.05),
    "60 against 30": (votes(60, 30), 0.001, 0.05),
    "beyond what a float can tell": (votes(100_000, 0), 0.0, 1e-300),
}


@pytest.mark.parametrize(("counts", "low", "high"), P_VALUES.values(), ids=P_VALUES.keys())
def test_p_values(counts: VoteCounts, low: float, high: float) -> None:
    assert low <= p_value(counts) <= high


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_ties_and_the_sides_names_do_not_count(wins: int, losses: int, ties: int, more_ties: int) -> None:
    assert p_value(votes(wins, losses, ties)) == p_value(votes(losses, wins, more_ties))


@given(COUNTS, COUNTS)
def test_each_vote_for_the_leader_lowers_p(wins: int, losses: int) -> None:
    wins, losses = max(wins, losses), min(wins, losses)
    assert p_value(votes(wins + 1, losses)) <= p_value(votes(wins, losses))


@given(COUNTS, COUNTS)
def test_a_fair_coin_gains_nothing_on_average(wins: int, losses: int) -> None:
    """The martingale property: what makes looking after each vote harmless."""
    next_mean = (exp(log_evidence(wins + 1, losses)) + exp(log_evidence(wins, losses + 1))) / 2
    assert isclose(next_mean, exp(log_evidence(wins, losses)), rel_tol=1e-9)


class TestInterval:
    @pytest.mark.parametrize(
        ("counts", "expected"),
        [
            (votes(0, 0), (0, 1)),
            (votes(0, 0, 50), (0, 1)),
            (votes(12, 5, 3), (0.3645, 0.9335)),
            (votes(40, 10, 500), (0.5646, 0.9444)),
        ],
    )
    def test_known_ones(self, counts: VoteCounts, expected: tuple[float, float]) -> None:
        assert preference_interval(counts, ALPHA) == pytest.approx(expected, abs=1e-4)

    @given(COUNTS, COUNTS)
    def test_it_has_the_shares_that_the_evidence_does_not_exclude(self, wins: int, losses: int) -> None:
        lower, upper = preference_interval(votes(wins, losses), ALPHA)
        assert lower == 0 or wins
        assert upper == 1 or losses
        if wins:
            assert lower == 0 or log_evidence(wins, losses, lower) >= -log(ALPHA)
            assert log_evidence(wins, losses, lower + 1e-12) < -log(ALPHA)
        if wins + losses:
            assert lower < (wins + 0.5) / (wins + losses + 1) < upper

    @given(COUNTS, COUNTS)
    def test_one_half_is_outside_exactly_while_the_votes_are_significant(self, wins: int, losses: int) -> None:
        lower, upper = preference_interval(votes(wins, losses), ALPHA)
        assert (lower < 0.5 < upper) is (p_value(votes(wins, losses)) > ALPHA)

    @given(COUNTS, COUNTS)
    def test_the_other_arms_share_is_the_rest(self, wins: int, losses: int) -> None:
        lower, upper = preference_interval(votes(wins, losses), ALPHA)
        assert preference_interval(votes(losses, wins), ALPHA) == pytest.approx((1 - upper, 1 - lower))


NEEDED = {
    "no votes": (votes(0, 0), None),
    "no leader": (votes(7, 7, 3), None),
    "already significant": (votes(40, 10), 0),
    "too close to ever tell": (votes(500_001, 500_000), None),
}


@pytest.mark.parametrize(("counts", "expected"), NEEDED.values(), ids=NEEDED.keys())
def test_votes_still_needed(counts: VoteCounts, expected: int | None) -> None:
    assert votes_still_needed(counts, ALPHA) == expected


@given(COUNTS, COUNTS, st.integers(min_value=0, max_value=100))
def test_as_many_votes_as_needed_of_the_same_kind_are_enough(wins: int, losses: int, ties: int) -> None:
    counts = votes(wins, losses, ties)
    needed = votes_still_needed(counts, ALPHA)
    if needed is None:
        return
    factor = (counts.total + needed + 1) / counts.total
    assert exp(-log_evidence(wins * factor, losses * factor)) <= ALPHA
    assert needed == 0 or p_value(counts) > ALPHA


PRINTED = {
    1.0: "1",
    0.05: "0.05",
    0.0491: "0.0491",
    0.04912: "0.0492",
    0.050000001: "0.0501",
    1.2345e-9: "1.24e-09",
    0.0: "0",
}


@pytest.mark.parametrize(("value", "text"), PRINTED.items())
def test_a_printed_p_value_is_rounded_up(value: float, text: str) -> None:
    assert printed(value) == text


@given(st.floats(min_value=1e-290, max_value=1.0))
def test_printing_never_makes_significant_and_is_stable(value: float) -> None:
    text = printed(value)
    assert value <= float(text) <= value * 1.011
    assert printed(float(text)) == text
    assert len(text) <= 32
