"""The check that subjects are split as asked for."""

from math import exp, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import SplitTally
from finetune_operator.core.sample_ratio import CONCENTRATION, MISMATCH_ALPHA, is_mismatched, sample_ratio_p_value
from finetune_operator.core.sequential import log_mixture_evidence
from finetune_operator.resources.abtest import Arms, ArmStatus

COUNTS = st.integers(0, 100_000)
PERCENTS = st.integers(1, 99)


def split(baseline: int, candidate: int, percent: int = 50) -> SplitTally:
    return SplitTally(candidate_percent=percent, baseline=baseline, candidate=candidate)


MATCHES: dict[str, tuple[tuple[SplitTally, ...], bool]] = {
    "nobody": ((), True),
    "as many": ((split(500, 500),), True),
    "not quite as many": ((split(520, 480),), True),
    "a tenth of the candidate's are lost": ((split(5000, 4500),), False),
    "the same of few people": ((split(50, 45),), True),
    "everybody in one arm": ((split(30, 0),), False),
    "a fifth, as asked for": ((split(800, 200, 20),), True),
    "halves, but a fifth was asked for": ((split(100, 100, 20),), False),
    "the share was raised, and matched before and after": ((split(900, 100, 10), split(500, 500, 50)), True),
    "the share was raised, but not everywhere": ((split(900, 100, 10), split(900, 100, 50)), False),
    "all or nothing can't be missed": ((split(100, 0, 0), split(0, 100, 100)), True),
}


@pytest.mark.parametrize(("splits", "matches"), MATCHES.values(), ids=MATCHES.keys())
def test_known_splits(splits: tuple[SplitTally, ...], matches: bool) -> None:
    assert (sample_ratio_p_value(splits) > MISMATCH_ALPHA) is matches


@given(COUNTS, COUNTS, PERCENTS)
def test_it_does_not_matter_which_arm_is_which(baseline: int, candidate: int, percent: int) -> None:
    turned = sample_ratio_p_value((split(candidate, baseline, 100 - percent),))
    assert isclose(sample_ratio_p_value((split(baseline, candidate, percent),)), turned, rel_tol=1e-6)


@given(COUNTS, COUNTS, PERCENTS)
def test_a_fair_split_gains_no_evidence_on_average(baseline: int, candidate: int, percent: int) -> None:
    """The martingale property: what makes looking after each subject harmless."""
    share = percent / 100

    def evidence(wins: int, losses: int) -> float:
        return log_mixture_evidence(wins, losses, share, CONCENTRATION * share, CONCENTRATION * (1 - share))

    now = evidence(candidate, baseline)
    next_mean = share * exp(evidence(candidate + 1, baseline) - now)
    next_mean += (1 - share) * exp(evidence(candidate, baseline + 1) - now)
    assert isclose(next_mean, 1, rel_tol=1e-6)


@pytest.mark.parametrize(("p", "mismatched"), [(None, False), ("0.00101", False), ("0.001", True), ("1e-300", True)])
def test_what_the_status_says_is_what_counts(p: str | None, mismatched: bool) -> None:
    arm = ArmStatus(served_name="plato-v1")
    assert is_mismatched(Arms(baseline=arm, candidate=arm, sample_ratio_p_value=p)) is mismatched


def test_nothing_counted_is_no_mismatch() -> None:
    assert not is_mismatched(None)
