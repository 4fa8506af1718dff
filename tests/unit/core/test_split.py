"""The split of traffic: sticky, monotone and exact in expectation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.split import POINTS, assign, is_judged, is_shadowed, point, pseudonym
from finetune_operator.resources.abtest import Arm

texts = st.text(max_size=50)
percents = st.integers(0, 100)


@given(salt=texts, subject=texts, percent=percents)
def test_a_subject_keeps_its_arm(salt: str, subject: str, percent: int) -> None:
    assert assign(salt, subject, percent) is assign(salt, subject, percent)


@given(salt=texts, subject=texts, low=percents, high=percents)
def test_raising_the_share_moves_nobody_out_of_the_candidate_arm(salt: str, subject: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    if assign(salt, subject, low) is Arm.CANDIDATE:
        assert assign(salt, subject, high) is Arm.CANDIDATE


@given(salt=texts, subject=texts)
def test_nobody_at_zero_and_everybody_at_a_hundred(salt: str, subject: str) -> None:
    assert assign(salt, subject, 0) is Arm.BASELINE
    assert assign(salt, subject, 100) is Arm.CANDIDATE


@given(percent=percents)
def test_the_border_is_exact(percent: int) -> None:
    """The points that the candidate gets are a share of exactly `percent`, to within a single point."""
    candidate_points = -(-percent * POINTS // 100)
    assert abs(candidate_points * 100 - percent * POINTS) < 100


@pytest.mark.parametrize("percent", [1, 5, 20, 50, 80, 99])
def test_the_share_of_many_subjects_is_within_five_standard_errors(percent: int) -> None:
    count, share = 20_000, percent / 100
    candidates = sum(assign("uid", f"user-{n}", percent) is Arm.CANDIDATE for n in range(count))
    assert abs(candidates / count - share) < 5 * (share * (1 - share) / count) ** 0.5


@given(salt=texts, subject=texts, percent=percents, shadow=percents)
def test_only_the_baselines_subjects_are_shadowed(salt: str, subject: str, percent: int, shadow: int) -> None:
    if is_shadowed(salt, subject, percent, shadow):
        assert assign(salt, subject, percent) is Arm.BASELINE


@given(salt=texts, subject=texts, percent=percents, shadow=percents)
def test_the_shadowed_are_those_whom_the_candidate_gets_next(
    salt: str, subject: str, percent: int, shadow: int
) -> None:
    """At 0 % for the candidate, the shadow has exactly the subjects that the candidate would have at that share."""
    assert is_shadowed(salt, subject, 0, shadow) is (assign(salt, subject, shadow) is Arm.CANDIDATE)
    assert not is_shadowed(salt, subject, percent, 0)
    assert is_shadowed(salt, subject, percent, 100) is (assign(salt, subject, percent) is Arm.BASELINE)


@given(salt=texts, subject=texts, percent=percents, low=percents, high=percents)
def test_raising_the_shadow_only_adds_subjects(salt: str, subject: str, percent: int, low: int, high: int) -> None:
    low, high = sorted((low, high))
    if is_shadowed(salt, subject, percent, low):
        assert is_shadowed(salt, subject, percent, high)


@pytest.mark.parametrize(("percent", "shadow"), [(0, 10), (20, 50), (90, 100)])
def test_the_shadow_is_a_share_of_the_baselines_subjects(percent: int, shadow: int) -> None:
    count, share = 20_000, (1 - percent / 100) * shadow / 100
    shadowed = sum(is_shadowed("uid", f"user-{n}", percent, shadow) for n in range(count))
    assert abs(shadowed / count - share) < 5 * (share * (1 - share) / count) ** 0.5


@given(salt=texts, request=texts, low=percents, high=percents)
def test_raising_the_share_of_pairs_only_adds_requests(salt: str, request: str, low: int, high: int) -> None:
    low, high = sorted((low, high))
    assert is_judged(salt, request, high) or not is_judged(salt, request, low)
    assert not is_judged(salt, request, 0)
    assert is_judged(salt, request, 100)


def test_two_tests_split_the_same_subjects_independently() -> None:
    count = 20_000
    both = sum(
        assign("first", f"user-{n}", 50) is Arm.CANDIDATE and assign("second", f"user-{n}", 50) is Arm.CANDIDATE
        for n in range(count)
    )
    assert abs(both / count - 0.25) < 5 * (0.25 * 0.75 / count) ** 0.5


def test_the_hash_never_changes() -> None:
    """A release that changed it would move the subjects of every running test."""
    assert point("uid", "alice") == 0xB0B0E05E229600D7


def test_a_pseudonym_is_a_subjects_point_of_one_length() -> None:
    assert pseudonym("uid", "alice") == "b0b0e05e229600d7"
    assert {len(pseudonym("uid", f"user-{n}")) for n in range(1000)} == {16}
    assert pseudonym("another", "alice") != pseudonym("uid", "alice")
