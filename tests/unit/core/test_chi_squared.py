"""The test of a fixed sample, against tables and by counting all outcomes."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.chi_squared import chi_squared_p_value

COUNTS = st.integers(min_value=0, max_value=100_000)


def votes(fine_tuned: int, base: int, tie: int = 0) -> VoteCounts:
    return VoteCounts(fine_tuned=fine_tuned, base=base, tie=tie)


# Upper tail of the chi-squared distribution with one degree of freedom at (|wins - losses| - 1)^2 / (wins + losses):
# the values that R's pchisq(x, df = 1, lower.tail = FALSE) and scipy.stats.chi2.sf(x, 1) print.
KNOWN = {
    "statistic 0": (votes(5, 5), 1.0),
    "statistic 0 by the correction": (votes(6, 5), 1.0),
    "statistic 0.81": (votes(55, 45), 0.3681203),
    "statistic 6.25": (votes(63, 37, 20), 0.01241933),
    "statistic 3.61": (votes(60, 40), 0.05743312),
    "statistic 4.41": (votes(61, 39), 0.03572884),
    "statistic 8.1": (votes(10, 0), 0.004426526),
    "the other side": (votes(39, 61, 7), 0.03572884),
    "no votes": (votes(0, 0), 1.0),
    "ties alone": (votes(0, 0, 50), 1.0),
}


@pytest.mark.parametrize(("counts", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_known_values(counts: VoteCounts, expected: float) -> None:
    assert chi_squared_p_value(counts) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("statistic", "alpha"), [(2.705543, 0.10), (3.841459, 0.05), (6.634897, 0.01), (10.82757, 0.001)]
)
def test_the_critical_values_of_the_tables(statistic: float, alpha: float) -> None:
    """With so many votes that one more or less does not matter."""
    decisive = 4_000_000_000
    excess = round((statistic * decisive) ** 0.5)
    wins = (decisive + excess) // 2
    assert chi_squared_p_value(votes(wins, decisive - wins)) == pytest.approx(alpha, rel=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 0.1, 0.05, 0.01, 0.001])
def test_equals_are_told_apart_no_more_often_than_promised(alpha: float) -> None:
    """Exactly, for every number of decisive votes up to 150; without the correction every second size fails this."""
    for decisive in range(1, 151):
        outcomes = (w for w in range(decisive + 1) if chi_squared_p_value(votes(w, decisive - w)) <= alpha)
        assert sum(comb(decisive, wins) for wins in outcomes) / 2**decisive <= alpha, decisive


@given(COUNTS, COUNTS, st.integers(min_value=0, max_value=1000))
def test_it_is_a_probability_without_a_side(wins: int, losses: int, ties: int) -> None:
    p = chi_squared_p_value(votes(wins, losses, ties))
    assert 0 <= p <= 1
    assert p == chi_squared_p_value(votes(losses, wins))
