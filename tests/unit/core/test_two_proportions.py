"""The always-valid test of two proportions: what it is, how often it errs, and how many requests it takes."""

from math import ceil, comb, exp, inf, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest

from finetune_operator.core.two_proportions import (
    EFFECTS,
    NO_EVIDENCE,
    RATIOS_AND_WEIGHTS,
    Counts,
    next_block,
    p_value,
    with_block,
)

Floats = npt.NDArray[np.float64]
ALPHA, POWER = 0.05, 0.8
TESTS = 2000
PRIOR = 0.5


def test_nothing_counted_is_no_evidence() -> None:
    assert p_value(NO_EVIDENCE) == 1
    assert with_block(NO_EVIDENCE, Counts(1, 9, 2, 8), Counts(1, 9, 2, 8)) == NO_EVIDENCE


@pytest.mark.parametrize("now", [Counts(3, 10, 2, 8), Counts(1, 9, 5, 20), Counts(0, 20, 5, 20)])
def test_a_block_without_one_of_the_arms_or_with_fewer_counts_says_nothing(now: Counts) -> None:
    assert with_block(NO_EVIDENCE, Counts(1, 9, 2, 8), now) == NO_EVIDENCE


WHERE_BLOCKS_BEGIN = {
    "both arms": (Counts(2, 10, 3, 9), Counts(2, 10, 3, 9)),
    "one arm only": (Counts(2, 10, 2, 8), Counts(1, 9, 2, 8)),
    "the other arm only": (Counts(1, 9, 4, 12), Counts(1, 9, 2, 8)),
    "nothing": (Counts(1, 9, 2, 8), Counts(1, 9, 2, 8)),
    "fewer requests, as of a database that was restored": (Counts(0, 4, 2, 12), Counts(0, 4, 2, 12)),
    "fewer failures": (Counts(0, 12, 2, 12), Counts(0, 12, 2, 12)),
}


@pytest.mark.parametrize(("now", "expected"), WHERE_BLOCKS_BEGIN.values(), ids=WHERE_BLOCKS_BEGIN.keys())
def test_a_block_goes_on_until_both_arms_have_had_a_request(now: Counts, expected: Counts) -> None:
    assert next_block(Counts(1, 9, 2, 8), now) == expected


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("candidate", "baseline"), [(1, 1), (5, 5), (2, 9), (12, 1)])
@pytest.mark.parametrize("before", [Counts(), Counts(1, 30, 4, 50), Counts(20, 30, 50, 60)])
def test_equals_gain_nothing_on_average(rate: float, candidate: int, baseline: int, before: Counts) -> None:
    """By each ratio, whatever the common rate, the sizes of the block and what was counted before: counted exactly."""
    means = [0.0] * len(EFFECTS)
    for ours in range(candidate + 1):
        for theirs in range(baseline + 1):
            chance = (
                comb(candidate, ours)
                * comb(baseline, theirs)
                * rate ** (ours + theirs)
                * (1 - rate) ** (candidate + baseline - ours - theirs)
            )
            now = Counts(*(a + b for a, b in zip(before, (ours, candidate, theirs, baseline), strict=True)))
            found = with_block(NO_EVIDENCE, before, now)
            means = [mean + chance * exp(value) for mean, value in zip(means, found, strict=True)]
    assert max(means) <= 1 + 1e-9


def test_more_failures_are_evidence_whichever_arm_has_them() -> None:
    found = {}
    for ours, theirs in ((30, 10), (10, 30)):
        evidence, before = NO_EVIDENCE, Counts()
        for block in range(1, 11):
            now = Counts(ours * block, 100 * block, theirs * block, 100 * block)
            evidence, before = with_block(evidence, before, now), now
        found[ours] = p_value(evidence)
    assert found[30] == pytest.approx(found[10])
    assert found[30] < 1e-6


def test_many_requests_that_fail_equally_often_are_no_evidence() -> None:
    """All the e-values are next to nothing then."""
    evidence = with_block(NO_EVIDENCE, Counts(500, 1000, 500, 1000), Counts(500_500, 1_001_000, 500_500, 1_001_000))
    assert max(evidence) < -1000
    assert p_value(evidence) == 1


@pytest.mark.parametrize(("value", "expected"), [(-1e6, 1), (-inf, 1), (1e6, 0), (inf, 0)])
def test_evidence_of_any_size_has_a_p_value(value: float, expected: float) -> None:
    assert p_value((value,) * len(EFFECTS)) == expected


def test_one_infinite_e_value_is_enough() -> None:
    assert p_value((inf, *NO_EVIDENCE[1:])) == 0
    assert p_value((-inf, *NO_EVIDENCE[1:])) == pytest.approx(1, rel=0.2)


RATES = [(0.5, 0.55), (0.5, 0.6), (0.5, 0.7), (0.3, 0.4), (0.1, 0.15), (0.05, 0.1), (0.02, 0.04)]


def fixed_size(first: float, second: float) -> int:
    """Requests of each arm in the usual test (Fleiss, Statistical Methods for Rates and Proportions, 4.14)."""
    mean, normal = (first + second) / 2, NormalDist()
    one_rate = normal.inv_cdf(1 - ALPHA / 2) * sqrt(2 * mean * (1 - mean))
    two_rates = normal.inv_cdf(POWER) * sqrt(first * (1 - first) + second * (1 - second))
    return ceil(((one_rate + two_rates) / (first - second)) ** 2)


def blocks_evidence(failures: Floats, before: int, ours: Floats, size: int, theirs: Floats, other_size: int) -> Floats:
    """What `with_block` adds, of many tests at once; `failures` are those of all `before` requests."""
    rate = (failures + PRIOR) / (before + 2 * PRIOR)
    odds, effects = np.log(rate / (1 - rate))[:, None], np.array(EFFECTS)
    candidate, baseline = 1 / (1 + np.exp(-odds - effects / 2)), 1 / (1 + np.exp(-odds + effects / 2))
    common = (size * candidate + other_size * baseline) / (size + other_size)
    return sum(
        count[:, None] * np.log(expected / common) + (of - count)[:, None] * np.log((1 - expected) / (1 - common))
        for count, of, expected in ((ours, size, candidate), (theirs, other_size, baseline))
    )


def test_the_simulation_computes_what_the_test_does() -> None:
    before, now = Counts(4, 30, 9, 70), Counts(6, 35, 12, 90)
    found = blocks_evidence(np.array([13.0]), 100, np.array([2.0]), 5, np.array([3.0]), 20)
    assert with_block(NO_EVIDENCE, before, now) == pytest.approx(found[0])
    weights = np.repeat([weight for _, weight in RATIOS_AND_WEIGHTS], 2)
    mixed = float((np.exp(found[0]) * weights).sum() / weights.sum())
    assert p_value(tuple(found[0])) == pytest.approx(min(1.0, 1 / mixed))


def share_of_alarms(first: float, second: float, requests: int, each: int, ratio: int = 1) -> float:
    """Of simulated tests that were looked at after `each` requests of the first arm, and `ratio` times those of the
    second one."""
    rng = np.random.default_rng(20260101)
    weights = np.repeat([weight for _, weight in RATIOS_AND_WEIGHTS], 2)
    evidence, failures = np.zeros((TESTS, len(EFFECTS))), np.zeros(TESTS)
    alarmed = np.zeros(TESTS, dtype=bool)
    for before in range(0, requests - each + 1, each):
        a, b = rng.binomial(each, first, TESTS), rng.binomial(ratio * each, second, TESTS)
        evidence += blocks_evidence(failures, before * (1 + ratio), a, each, b, ratio * each)
        failures = failures + a + b
        alarmed |= (np.exp(evidence) * weights).sum(axis=1) / weights.sum() >= 1 / ALPHA
    return float(alarmed.mean())


@pytest.mark.parametrize(("first", "second"), RATES)
def test_a_difference_is_found_with_1_75_times_the_fixed_sample(first: float, second: float) -> None:
    requests = int(1.75 * fixed_size(first, second))
    assert share_of_alarms(first, second, requests, each=max(1, requests // 200)) >= POWER


@pytest.mark.parametrize("ratio", [1, 9])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_tests_of_equals(rate: float, ratio: int) -> None:
    """Looked at after each of 600 pairs, or of one request of one arm and nine of the other."""
    assert share_of_alarms(rate, rate, 600, 1, ratio) <= ALPHA
