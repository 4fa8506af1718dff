"""Conditions per the Kubernetes API conventions."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.conditions import (
    MESSAGE_MAX_CHARACTERS,
    Absent,
    Finding,
    find,
    is_true,
    with_findings,
)
from finetune_operator.resources.common import Condition, ConditionStatus
from tests.builders import NOON

LATER = NOON + timedelta(minutes=5)
TYPES = st.sampled_from(["Ready", "Loaded", "Stalled"])
FINDINGS = st.lists(
    st.one_of(
        st.builds(
            Finding,
            TYPES,
            st.sampled_from([True, False, None]),
            st.sampled_from(["Works", "Broken"]),
            st.text(max_size=20),
        ),
        st.builds(Absent, TYPES),
    ),
    max_size=6,
)


def conditions(*findings: Finding | Absent, now: datetime = NOON, generation: int = 1) -> tuple[Condition, ...]:
    return with_findings((), findings, generation, now)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(True, ConditionStatus.TRUE), (False, ConditionStatus.FALSE), (None, ConditionStatus.UNKNOWN)],
)
def test_a_new_condition_is_stamped_with_time_and_generation(status: bool | None, expected: ConditionStatus) -> None:
    (only,) = conditions(Finding("Ready", status, "Because", "the fact"), generation=7)
    assert only == Condition(
        type="Ready",
        status=expected,
        reason="Because",
        message="the fact",
        last_transition_time=NOON,
        observed_generation=7,
    )


CHANGES = {
    "same status, new words": (Finding("Ready", True, "Other", "other words"), NOON),
    "other status": (Finding("Ready", False, "Broken"), LATER),
    "no longer known": (Finding("Ready", None, "Lost"), LATER),
}


@pytest.mark.parametrize(("finding", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_transition_time_moves_only_with_the_status(finding: Finding, expected: datetime) -> None:
    (only,) = with_findings(conditions(Finding("Ready", True, "Works")), [finding], 2, LATER)
    assert only.last_transition_time == expected
    assert (only.reason, only.message, only.observed_generation) == (finding.reason, finding.message, 2)


def test_known_conditions_keep_their_place_and_new_ones_follow() -> None:
    before = conditions(Finding("Loaded", True, "A"), Finding("Ready", True, "A"))
    after = with_findings(before, [Finding("Ready", False, "B"), Finding("New", True, "B")], 1, LATER)
    assert [entry.type for entry in after] == ["Loaded", "Ready", "New"]


def test_an_absent_condition_disappears_and_starts_anew_when_it_returns() -> None:
    stalled = conditions(Finding("Stalled", True, "Broken"))
    gone = with_findings(stalled, [Absent("Stalled")], 1, LATER)
    assert gone == ()
    (back,) = with_findings(gone, [Finding("Stalled", True, "Broken")], 1, LATER)
    assert back.last_transition_time == LATER


def test_a_message_of_any_length_fits_the_schema() -> None:
    (only,) = conditions(Finding("Ready", False, "Broken", "x" * (MESSAGE_MAX_CHARACTERS + 1)))
    assert len(only.message) == MESSAGE_MAX_CHARACTERS


def test_unset_and_unknown_are_not_true() -> None:
    known = conditions(Finding("Ready", None, "Unknown"))
    assert find(known, "Ready") is not None
    assert not is_true(known, "Ready")
    assert find(known, "Loaded") is None
    assert not is_true(known, "Loaded")


@given(FINDINGS, FINDINGS)
def test_repeating_the_same_findings_changes_nothing(
    first: list[Finding | Absent], second: list[Finding | Absent]
) -> None:
    once = with_findings(with_findings((), first, 1, NOON), second, 1, LATER)
    again = with_findings(once, {item.type: item for item in second}.values(), 1, LATER + timedelta(days=1))
    assert again == once


@given(FINDINGS, FINDINGS)
def test_every_transition_time_tells_when_that_status_began(
    first: list[Finding | Absent], second: list[Finding | Absent]
) -> None:
    before = with_findings((), first, 1, NOON)
    last = {item.type: item for item in second}
    for entry in with_findings(before, last.values(), 1, LATER):
        old = find(before, entry.type)
        began_now = old is None or old.status is not entry.status
        assert entry.last_transition_time == (LATER if began_now else NOON)
