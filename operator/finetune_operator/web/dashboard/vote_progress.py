"""Where an ABTest stands, in plain words: votes and how many more, the verdict, and the win rate as a curve. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune_operator.contract.experiments import VoteCounts, WinRatePoint
from finetune_operator.core.group_sequential import most_votes
from finetune_operator.core.sequential import p_value, preference_interval, votes_still_needed
from finetune_operator.resources.abtest import TestPhase, Verdict
from finetune_operator.resources.abtest_decision import VOTE_LOOKS, Decision, Method
from finetune_operator.web.dashboard.charts import Curve, Line
from finetune_operator.web.dashboard.version_comparison import Duel, Interval

EVEN = 0.5
SECONDS_PER_HOUR = 3600


class ShownCurve(NamedTuple):
    """The curve of one test, as pages place it; `linked` where it is on another page than the test's own."""

    path: str
    id: str
    candidate: str
    certainty: str
    linked: bool


class Arms(NamedTuple):
    """The two sides by the names that people know."""

    baseline: str
    candidate: str


@dataclass(frozen=True)
class VoteProgress:
    """`about` is the number of votes after which a verdict is to be expected, None where nobody can say."""

    cast: int
    about: int | None
    words: str

    @property
    def percent(self) -> int:
        """Of the way to the verdict; of an unknown way nothing."""
        return min(100, round(100 * self.cast / self.about)) if self.about else 0


@dataclass(frozen=True)
class Judgement:
    """The verdict for people; `tone` is good, bad, wait or quiet, as badges have it."""

    title: str
    words: str
    tone: str


def vote_progress(votes: VoteCounts, decision: Decision, verdict: Verdict | None) -> VoteProgress:
    """How far it is, from the votes as they are now: the operator's own estimate may be some seconds old."""
    cast = votes.total
    if verdict is not None:
        return VoteProgress(cast, cast, f"{_votes(cast)}; the test has ended")
    if decision.by_feedback:
        return VoteProgress(cast, None, f"{_votes(cast)}; what users say of their answers decides this test")
    most = most_votes(decision)
    if decision.method is Method.CHI_SQUARED:
        return VoteProgress(cast, most, f"{cast} of {most} votes, then it is decided")
    if decision.min_effect is not None:
        words = (
            f"{cast} of at most {most} votes; it is looked at {VOTE_LOOKS} times on the way, and may be decided earlier"
        )
        return VoteProgress(cast, most, words)
    needed = votes_still_needed(votes, float(decision.alpha))
    if cast < decision.min_votes and (needed is None or cast + needed <= decision.min_votes):
        words = f"{cast} of at least {decision.min_votes} votes"
        return VoteProgress(cast, decision.min_votes, words)
    if needed is None:
        return VoteProgress(cast, None, f"{_votes(cast)}, and neither leads: nobody can say yet how many it takes")
    about = min(cast + needed, most)
    if not needed:
        return VoteProgress(cast, cast, f"{_votes(cast)}, which is enough for a verdict")
    if about == most:
        return VoteProgress(cast, about, f"{cast} of {about} votes, the most that this test takes: it is close")
    return VoteProgress(cast, about, f"{cast} of about {about} votes, if they go on like this")


def judgement(
    arms: Arms, votes: VoteCounts, alpha: float, phase: TestPhase | None, verdict: Verdict | None, message: str | None
) -> Judgement:
    """What came out, or who is ahead."""
    decided = votes.fine_tuned + votes.base
    match verdict:
        case Verdict.WON:
            words = f"People preferred it in {votes.fine_tuned} of the {decided} votes that were not ties."
            return Judgement(f"{arms.candidate} is better", words if decided else message or "", "good")
        case Verdict.LOST:
            words = f"People preferred {arms.baseline} in {votes.base} of the {decided} votes that were not ties."
            is_by_votes = votes.base > votes.fine_tuned
            return Judgement(f"{arms.candidate} is not better", words if is_by_votes else message or "", "bad")
        case Verdict.INCONCLUSIVE:
            return Judgement("No clear winner", "The two are too alike to tell them apart by these votes.", "wait")
        case Verdict.ABORTED:
            return Judgement("The test was ended early", message or "", "quiet")
    if phase is not TestPhase.RUNNING:
        return Judgement("Not started yet", message or "It waits until both sides answer.", "wait")
    if votes.fine_tuned == votes.base:
        return Judgement("Undecided so far", "Neither side is ahead.", "wait")
    leader = arms.candidate if votes.fine_tuned > votes.base else arms.baseline
    ahead = f"{max(votes.fine_tuned, votes.base)} of {decided} votes that were not ties"
    if p_value(votes) <= alpha:
        return Judgement("Nearly decided", f"{leader} is clearly ahead with {ahead}.", "wait")
    return Judgement("Undecided so far", f"{leader} is ahead with {ahead}, which may be chance.", "wait")


def judgement_by_feedback(
    arms: Arms, leader: str | None, alpha: float, phase: TestPhase | None, verdict: Verdict | None, message: str | None
) -> Judgement:
    """The same where what users say of their answers decides, whatever people voted."""
    if verdict is Verdict.INCONCLUSIVE:
        words = "The two are too alike to tell them apart by what users say of their answers."
        return Judgement("No clear winner", words, "wait")
    if verdict is None and phase is TestPhase.RUNNING and leader is not None:
        return Judgement("Undecided so far", f"{leader} is ahead by the weighted score, which may be chance.", "wait")
    return judgement(arms, VoteCounts(), alpha, phase, verdict, message)


def win_rate_interval(votes: VoteCounts, alpha: float) -> Interval:
    """The confidence sequence of the decided votes, on the scale of the win rate at the observed share of ties.

    It leaves one half out exactly while the votes are significant, so that the band and the verdict say the same.
    """
    decided = votes.fine_tuned + votes.base
    if not decided:
        return Interval(0.0, 1.0)
    ties = votes.tie / votes.total
    low, high = preference_interval(votes, alpha)
    return Interval(EVEN * ties + (1 - ties) * low, EVEN * ties + (1 - ties) * high)


def duel_of(votes: VoteCounts, alpha: float) -> Duel | None:
    """None before the first vote."""
    rate = votes.win_rate
    return None if rate is None else Duel(rate, win_rate_interval(votes, alpha), votes.total)


def mirrored(duel: Duel) -> Duel:
    """The same with the sides exchanged."""
    return Duel(1 - duel.win_rate, Interval(1 - duel.interval.high, 1 - duel.interval.low), duel.votes)


def win_rate_curve(points: Sequence[WinRatePoint], alpha: float, *, by_time: bool = False) -> Curve:
    """The candidate's win rate in percent after each vote, with its band and the line of a draw.

    Over the votes, or over the hours since the first point.
    """
    bounds = [win_rate_interval(point.votes, alpha) for point in points]
    return Curve(
        x_label="hours since the first vote" if by_time else "votes",
        x=tuple(_hours(point, points[0]) if by_time else float(point.votes.total) for point in points),
        series=(
            Line(label="win rate, %", y=tuple(_percent(point.votes.win_rate) for point in points)),
            Line(label="at least", y=tuple(_percent(each.low) for each in bounds), is_bound=True),
            Line(label="at most", y=tuple(_percent(each.high) for each in bounds), is_bound=True),
            Line(label="a draw", y=tuple(100 * EVEN for _ in points), is_reference=True),
        ),
        band=(2, 1),
        y_range=(0.0, 100.0),
    )


def certainty(alpha: float) -> str:
    """Of the band, in percent."""
    return f"{100 * (1 - alpha):.3f}".rstrip("0").rstrip(".")


def _hours(point: WinRatePoint, first: WinRatePoint) -> float:
    return round((point.time - first.time).total_seconds() / SECONDS_PER_HOUR, 4)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _votes(count: int) -> str:
    return f"{count} vote" if count == 1 else f"{count} votes"
