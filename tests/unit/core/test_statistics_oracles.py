"""The statistics of votes against other people's code; the values were generated once, by

- ville 0.1.0: `BernoulliCS(alpha=0.05, prior=(8, 8), intersect=False)`, last bounds;
- scipy 1.17.1: `integrate.quad` of the Beta(8, 8) mixture of likelihood ratios, `optimize.brentq` for its bounds,
  `stats.chisquare` of the counts with Yates' correction, `stats.binomtest`;
- statsmodels 0.15.0: `stats.proportion.binom_test`, which says the same as scipy's;
- scipy 1.17.1: `signal.fftconvolve` of the density of a Brownian motion on a grid of 0.002, for the boundaries of ten
  looks that spend 5 % * t^3.
"""

from math import sqrt
from typing import NamedTuple

import pytest

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.core.chi_squared import chi_squared_p_value
from finetune_operator.core.group_sequential import lead_needed
from finetune_operator.core.sequential import p_value, preference_interval

ALPHA = 0.05


class Values(NamedTuple):
    wins: int
    losses: int
    anytime_p: float
    lower: float
    upper: float
    chi_squared_p: float
    exact_p: float


VALUES = [
    Values(12, 5, 0.6692551122, 0.36449267, 0.93348565, 0.1456100954, 0.143463134765625),
    Values(40, 10, 0.001546877301, 0.56457572, 0.94438279, 4.10978781e-05, 2.3861331676755526e-05),
    Values(60, 30, 0.03380345179, 0.50665690, 0.80416822, 0.002236624445, 0.0020602656809630745),
    Values(110, 80, 0.4021371398, 0.47072464, 0.68229419, 0.03538881782, 0.03511193479805759),
]


@pytest.fixture(params=VALUES, ids=lambda values: f"{values.wins} to {values.losses}")
def values(request: pytest.FixtureRequest) -> Values:
    found: Values = request.param
    return found


def counts(values: Values) -> VoteCounts:
    return VoteCounts(fine_tuned=values.wins, base=values.losses)


def test_the_anytime_p_value(values: Values) -> None:
    assert p_value(counts(values)) == pytest.approx(values.anytime_p, rel=1e-8)


def test_the_confidence_sequence(values: Values) -> None:
    assert preference_interval(counts(values), ALPHA) == pytest.approx((values.lower, values.upper), abs=1e-7)


def test_the_chi_squared_test(values: Values) -> None:
    assert chi_squared_p_value(counts(values)) == pytest.approx(values.chi_squared_p, rel=1e-8)


def test_a_single_look_is_the_exact_binomial_test(values: Values) -> None:
    """It is significant from the lead on that the counts have exactly where alpha is its p-value."""
    decisive, lead = values.wins + values.losses, values.wins - values.losses
    assert lead_needed((), decisive, values.exact_p * (1 + 1e-9)) == lead
    assert lead_needed((), decisive, values.exact_p * (1 - 1e-9)) == lead + 2


BROWNIAN_BOUNDARIES = (4.056, 3.567, 3.264, 3.03, 2.833, 2.66, 2.503, 2.358, 2.222, 2.093)
"""In standard deviations."""


def test_many_votes_have_the_boundaries_of_a_brownian_motion() -> None:
    """But for the next whole votes: a lead moves by two at a time."""
    past: tuple[tuple[int, int], ...] = ()
    for number, boundary in enumerate(BROWNIAN_BOUNDARIES, start=1):
        decisive = 2000 * number
        needed = lead_needed(past, decisive, ALPHA * (number / 10) ** 3)
        past = (*past, (decisive, needed))
        assert boundary - 0.005 <= needed / sqrt(decisive) <= boundary + 3 / sqrt(decisive)
