"""Votes still needed and verdicts in plain words, and the curve of the win rate."""

from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator.contract.experiments import VoteCounts, WinRatePoint
from finetune_operator.core.sequential import p_value
from finetune_operator.resources.abtest import TestPhase, Verdict
from finetune_operator.resources.abtest_decision import Decision, Method
from finetune_operator.web.dashboard.version_comparison import Interval
from finetune_operator.web.dashboard.vote_progress import (
    Arms,
    certainty,
    judgement,
    judgement_by_feedback,
    vote_progress,
    win_rate_curve,
    win_rate_interval,
)

ARMS = Arms("plato-v1", "plato-v2")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
USUAL = Decision()
FIXED = Decision(method=Method.CHI_SQUARED, max_votes=60)

PROGRESS = {
    "none yet": (VoteCounts(), USUAL, None, 10, "0 of at least 10 votes"),
    "a few": (VoteCounts(fine_tuned=2, base=1), USUAL, None, 82, "3 of about 82 votes, if they go on like this"),
    "all for one": (VoteCounts(fine_tuned=4), Decision(min_votes=30), None, 30, "4 of at least 30 votes"),
    "on the way": (VoteCounts(fine_tuned=15, base=8), USUAL, None, 98, "23 of about 98 votes, if they go on like this"),
    "nobody leads": (
        VoteCounts(fine_tuned=8, base=8),
        USUAL,
        None,
        None,
        "16 votes, and neither leads: nobody can say yet how many it takes",
    ),
    "close": (
        VoteCounts(fine_tuned=11, base=9),
        Decision(max_votes=100),
        None,
        100,
        "20 of 100 votes, the most that this test takes: it is close",
    ),
    "clear": (
        VoteCounts(fine_tuned=30),
        USUAL,
        None,
        30,
        "30 votes, which is enough for a verdict",
    ),
    "of a fixed size": (VoteCounts(fine_tuned=5, base=9), FIXED, None, 60, "14 of 60 votes, then it is decided"),
    "for a minimum effect": (
        VoteCounts(fine_tuned=5, base=9),
        Decision(min_effect="0.1"),
        None,
        214,
        "14 of at most 214 votes; it is looked at 10 times on the way, and may be decided earlier",
    ),
    "ended": (VoteCounts(fine_tuned=1), USUAL, Verdict.WON, 1, "1 vote; the test has ended"),
}


@pytest.mark.parametrize(("votes", "decision", "verdict", "about", "words"), PROGRESS.values(), ids=PROGRESS)
def test_how_far_it_is(
    votes: VoteCounts, decision: Decision, verdict: Verdict | None, about: int | None, words: str
) -> None:
    found = vote_progress(votes, decision, verdict)
    assert (found.cast, found.about, found.words) == (votes.total, about, words)
    assert 0 <= found.percent <= 100


JUDGEMENTS = {
    "won": (VoteCounts(fine_tuned=21, base=4, tie=3), Verdict.WON, "plato-v2 is better", "21 of the 25 votes", "good"),
    "lost": (VoteCounts(fine_tuned=4, base=21), Verdict.LOST, "plato-v2 is not better", "plato-v1 in 21", "bad"),
    "lost by a guardrail": (VoteCounts(fine_tuned=4), Verdict.LOST, "plato-v2 is not better", "message", "bad"),
    "won without votes": (VoteCounts(), Verdict.WON, "plato-v2 is better", "message", "good"),
    "inconclusive": (VoteCounts(tie=9), Verdict.INCONCLUSIVE, "No clear winner", "too alike", "wait"),
    "aborted": (VoteCounts(), Verdict.ABORTED, "The test was ended early", "message", "quiet"),
    "leading": (VoteCounts(fine_tuned=3, base=1), None, "Undecided so far", "plato-v2 is ahead with 3 of 4", "wait"),
    "clear": (VoteCounts(fine_tuned=30), None, "Nearly decided", "clearly ahead with 30 of 30", "wait"),
    "behind": (VoteCounts(fine_tuned=1, base=3), None, "Undecided so far", "plato-v1 is ahead with 3 of 4", "wait"),
    "even": (VoteCounts(fine_tuned=1, base=1), None, "Undecided so far", "Neither side", "wait"),
}


@pytest.mark.parametrize(("votes", "verdict", "title", "words", "tone"), JUDGEMENTS.values(), ids=JUDGEMENTS)
def test_what_came_out(votes: VoteCounts, verdict: Verdict | None, title: str, words: str, tone: str) -> None:
    found = judgement(ARMS, votes, 0.05, TestPhase.RUNNING, verdict, "the message")
    assert (found.title, found.tone) == (title, tone)
    assert words in found.words


BY_FEEDBACK: dict[str, tuple[str | None, Verdict | None, str, str, str]] = {
    "won": ("plato-v2", Verdict.WON, "plato-v2 is better", "the message", "good"),
    "lost": ("plato-v1", Verdict.LOST, "plato-v2 is not better", "the message", "bad"),
    "inconclusive": ("plato-v2", Verdict.INCONCLUSIVE, "No clear winner", "by what users say", "wait"),
    "aborted": ("plato-v2", Verdict.ABORTED, "The test was ended early", "the message", "quiet"),
    "leading": ("plato-v2", None, "Undecided so far", "plato-v2 is ahead by the weighted score", "wait"),
    "behind": ("plato-v1", None, "Undecided so far", "plato-v1 is ahead by the weighted score", "wait"),
    "even": (None, None, "Undecided so far", "Neither side", "wait"),
}


@pytest.mark.parametrize(("leader", "verdict", "title", "words", "tone"), BY_FEEDBACK.values(), ids=BY_FEEDBACK)
def test_what_came_out_by_feedback(
    leader: str | None, verdict: Verdict | None, title: str, words: str, tone: str
) -> None:
    found = judgement_by_feedback(ARMS, leader, 0.05, TestPhase.RUNNING, verdict, "the message")
    assert (found.title, found.tone) == (title, tone)
    assert words in found.words


def test_a_test_that_waits_says_why() -> None:
    assert judgement(ARMS, VoteCounts(), 0.05, TestPhase.PENDING, None, "plato-v2 is not loaded").words.startswith(
        "plato-v2"
    )
    assert judgement(ARMS, VoteCounts(), 0.05, None, None, None).title == "Not started yet"


def test_the_curve_has_a_band_that_holds_the_rate_and_narrows() -> None:
    counts = [VoteCounts(fine_tuned=2 * n, base=n, tie=n) for n in (1, 5, 25)]
    curve = win_rate_curve([WinRatePoint(time=NOON, votes=each) for each in counts], 0.05)
    rate, low, high, draw = (line.y for line in curve.series)
    assert curve.x == (4.0, 20.0, 100.0)
    assert rate == (62.5, 62.5, 62.5)
    assert set(draw) == {50.0}
    bounds = [(below, above) for below, above in zip(low, high, strict=True) if below is not None and above is not None]
    assert all(0 <= below < 62.5 < above <= 100 for below, above in bounds)
    widths = [above - below for below, above in bounds]
    assert widths == sorted(widths, reverse=True)
    assert curve.band == (2, 1)


def test_without_votes_the_curve_is_empty() -> None:
    assert win_rate_curve([], 0.05).x == ()


@pytest.mark.parametrize("ties", [0, 7, 400])
@pytest.mark.parametrize("wins", range(0, 41, 4))
def test_the_band_excludes_a_draw_exactly_while_the_votes_are_significant(wins: int, ties: int) -> None:
    votes = VoteCounts(fine_tuned=wins, base=12, tie=ties)
    band = win_rate_interval(votes, 0.05)
    assert (not band.low <= 0.5 <= band.high) == (p_value(votes) <= 0.05)
    assert band.low <= (votes.win_rate or 0) <= band.high


def test_ties_alone_say_nothing_of_the_win_rate() -> None:
    assert win_rate_interval(VoteCounts(tie=9), 0.05) == Interval(0.0, 1.0)


def test_the_curve_by_time_counts_hours() -> None:
    times = (0, 90, 120)
    points = [
        WinRatePoint(time=NOON + timedelta(minutes=minutes), votes=VoteCounts(fine_tuned=number))
        for number, minutes in enumerate(times, 1)
    ]
    by_time = win_rate_curve(points, 0.05, by_time=True)
    assert (by_time.x_label, by_time.x) == ("hours since the first vote", (0.0, 1.5, 2.0))
    assert by_time.series == win_rate_curve(points, 0.05).series
    assert win_rate_curve([], 0.05, by_time=True).x == ()


@pytest.mark.parametrize(("alpha", "percent"), [(0.05, "95"), (0.2, "80"), (0.001, "99.9")])
def test_the_bands_certainty_is_in_percent(alpha: float, percent: str) -> None:
    assert certainty(alpha) == percent
