"""When an ABTest ends, and how: guardrails first, then votes and weights, then the limits.

Everything is judged by what the status says, so that anyone can repeat the decision from the resource alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.core.group_sequential import horizon_bounds, most_votes, next_look
from finetune_operator.core.guardrails import breach
from finetune_operator.core.sample_ratio import MISMATCH_ALPHA, is_mismatched
from finetune_operator.core.score_interval import score_interval
from finetune_operator.core.weights import NoScore
from finetune_operator.resources.abtest import (
    ABTest,
    ABTestStatus,
    ArmStatus,
    TestPhase,
    Verdict,
    Votes,
)
from finetune_operator.resources.abtest_decision import VOTE_LOOKS, Method

GUARDRAIL_BREACHED = "GuardrailBreached"
SAMPLE_RATIO_MISMATCH = "SampleRatioMismatch"
RECOMMENDED_SAMPLES_PER_ARM = 100
TIE = 0.5
"""The score of an arm that is as good as the other."""


@dataclass(frozen=True)
class Outlook:
    """Where the test stands, before it becomes a status."""

    phase: TestPhase
    reason: str
    message: str
    verdict: Verdict | None = None


def judged(test: ABTest, status: ABTestStatus, now: datetime) -> Outlook:
    """A verdict of guardrails, votes or feedback, else the end by a limit, else what is waited for."""
    decided = _decided_by_feedback if test.spec.decision.by_feedback else _decided
    return _breached(test, status) or decided(test, status) or _ended(test, status, now) or _running(test, status)


def _concluded(verdict: Verdict, message: str, reason: str | None = None) -> Outlook:
    return Outlook(TestPhase.CONCLUDED, reason or verdict.value, message, verdict)


def _breached(test: ABTest, status: ABTestStatus) -> Outlook | None:
    if test.spec.guardrails is None or status.arms is None:
        return None
    found = breach(test.spec.guardrails, test.spec.decision, status.arms)
    return _concluded(Verdict.LOST, found, GUARDRAIL_BREACHED) if found else None


def _decided(test: ABTest, status: ABTestStatus) -> Outlook | None:
    """Significant votes, with which the weighted score agrees beyond doubt where there are weights."""
    significance = _significance(test, status)
    if significance is None or (test.spec.decision.weights and status.leader != _score_leader(status)):
        return None
    votes = status.votes or Votes()
    verdict = Verdict.WON if votes.fine_tuned > votes.base else Verdict.LOST
    share = f"{votes.fine_tuned} votes against {votes.base}, {votes.tie} ties"
    message = f"{status.leader} is preferred: {share}, {significance}"
    if test.spec.decision.weights and status.arms:
        message += f", weighted score {_scores(status.arms.candidate)} against {_scores(status.arms.baseline)}"
    return _concluded(verdict, "; ".join((message, *_frailty(test, status))))


def _decided_by_feedback(test: ABTest, status: ABTestStatus) -> Outlook | None:
    """A weighted score of answers to users that excludes a tie; nobody need have voted."""
    leader, arms = _score_leader(status), status.arms
    if leader is None or arms is None:
        return None
    verdict = Verdict.WON if leader == arms.candidate.served_name else Verdict.LOST
    scores = f"{_scores(arms.candidate)} against {_scores(arms.baseline)}"
    return _concluded(verdict, f"{leader} is better by answers to users: weighted score {scores}")


def _frailty(test: ABTest, status: ABTestStatus) -> Iterable[str]:
    """What would be otherwise without the evaluator who cast the most votes."""
    voters = status.voters
    if voters is None or voters.p_value_without_heaviest is None:
        return
    leader, p = voters.leader_without_heaviest, voters.p_value_without_heaviest
    if leader != status.leader:
        yield f"without the {voters.heaviest_votes} votes of its heaviest voter {leader or 'neither'} would lead"
    elif float(p) > float(test.spec.decision.alpha):
        yield f"without the {voters.heaviest_votes} votes of its heaviest voter p would be {p}"


def _significance(test: ABTest, status: ABTestStatus) -> str | None:
    """By what the votes differ significantly, as it is printed; only of a method that may decide now."""
    decision, votes = test.spec.decision, status.votes or Votes()
    alpha = float(decision.alpha)
    match decision.method:
        case Method.CHI_SQUARED:
            if votes.total < most_votes(decision) or status.chi_squared_p_value is None:
                return None
            p = status.chi_squared_p_value
            return f"chi-squared p {p} <= alpha {decision.alpha}" if float(p) <= alpha else None
        case Method.ALWAYS_VALID if decision.min_effect is not None:
            return _significant_look(status)
        case Method.ALWAYS_VALID:
            if votes.total < decision.min_votes or status.p_value is None:
                return None
            return f"p {status.p_value} <= alpha {decision.alpha}" if float(status.p_value) <= alpha else None


def _significant_look(status: ABTestStatus) -> str | None:
    """The look that decided; it speaks for the arm that led then, whatever else has been awaited since."""
    looks, votes = status.looks or (), status.votes or Votes()
    if not looks or not looks[-1].is_significant:
        return None
    last = looks[-1]
    lead = last.fine_tuned - last.base
    if lead * (votes.fine_tuned - votes.base) <= 0:
        return None
    return f"a lead of {abs(lead)} at look {len(looks)} of {VOTE_LOOKS}, which needed {last.lead_needed}"


def _scores(arm: ArmStatus) -> str:
    return f"{arm.score} ({arm.score_lower} to {arm.score_upper})"


def _score_leader(status: ABTestStatus) -> str | None:
    """Whose score is above a tie by all that is known.

    None also while the arms' subjects are not comparable, lest latencies of different people decide.
    """
    arms = status.arms
    if arms is None or is_mismatched(arms):
        return None
    leads = (arm.served_name for arm in (arms.candidate, arms.baseline) if float(arm.score_lower or 0) > TIE)
    return next(leads, None)


def _ended(test: ABTest, status: ABTestStatus, now: datetime) -> Outlook | None:
    """The limits of votes, samples and time."""
    if not (limit := _limit(test, status, now)):
        return None
    by_votes = test.spec.decision.by_feedback is None and _significance(test, status)
    fact = "no agreement of votes and weights" if by_votes else "no significant difference"
    return _concluded(Verdict.INCONCLUSIVE, "; ".join((f"{fact} after {limit}", *_remarks(test, status))))


def _limit(test: ABTest, status: ABTestStatus, now: datetime) -> str | None:
    decision, votes, arms = test.spec.decision, status.votes or Votes(), status.arms
    if votes.total >= most_votes(decision) and not decision.by_feedback:
        return f"{votes.total} votes"
    most = decision.max_samples_per_arm
    if most is not None and arms and min(arms.baseline.samples, arms.candidate.samples) >= most:
        return f"{most} samples of each arm"
    if (now - (test.status.start_time or now)).total_seconds() >= decision.max_duration_seconds:
        return f"{decision.max_duration_seconds} s"
    return None


def _running(test: ABTest, status: ABTestStatus) -> Outlook:
    return Outlook(TestPhase.RUNNING, "CollectingVotes", "; ".join((_awaited(test, status), *_remarks(test, status))))


def _awaited(test: ABTest, status: ABTestStatus) -> str:
    if test.spec.decision.by_feedback:
        return "feedback on answers to users decides"
    needed = status.votes_still_needed
    if test.spec.decision.method is Method.CHI_SQUARED:
        return f"{needed if needed is not None else most_votes(test.spec.decision)} more votes until ChiSquared decides"
    if test.spec.decision.min_effect is not None:
        looks = status.looks or ()
        due = next_look(test.spec.decision, looks)
        if due is None:
            return "the votes are significant"
        most = most_votes(test.spec.decision)
        return f"look {len(looks) + 1} of {VOTE_LOOKS} at vote {due}, the last one at vote {most}"
    if needed is None:
        return "no leader yet"
    return f"about {needed} more votes at the present win rate" if needed else "the votes are significant"


def _remarks(test: ABTest, status: ABTestStatus) -> Iterable[str]:
    """What has no effect though it was asked for, and what the weighted score has to say."""
    decision = test.spec.decision
    if found := sample_ratio_mismatch(status):
        yield found
    if decision.by_feedback and not test.spec.traffic.candidate_percent:
        yield "users get no answers of the candidate to give feedback on: raise traffic.candidatePercent"
    if test.spec.guardrails and not test.spec.traffic.any:
        yield "guardrails get no requests to judge at traffic.candidatePercent 0: raise it, or traffic.shadowPercent"
    if decision.min_effect is not None and decision.max_votes is not None:
        takes, _ = horizon_bounds(float(decision.min_effect), float(decision.alpha))
        if decision.max_votes < takes:
            yield f"maxVotes {decision.max_votes} may miss minEffect {decision.min_effect}, which takes about {takes}"
    yield from _score_remarks(test, status)
    if few := _few_samples(test, status):
        yield few


def _score_remarks(test: ABTest, status: ABTestStatus) -> Iterable[str]:
    decision = test.spec.decision
    if decision.weights is None:
        return
    if status.arms is None:
        yield "no weighted score: nothing has been counted yet"
        return
    bounds = score_interval(decision.weights, decision, status.votes or Votes(), status.arms)
    if isinstance(bounds, NoScore):
        yield f"no weighted score: {bounds.reason}"
        return
    preferred, better = status.leader, _score_leader(status)
    if decision.by_feedback and better is None and not is_mismatched(status.arms):
        candidate = status.arms.candidate
        yield f"the weighted score {_scores(candidate)} of {candidate.served_name} does not exclude a tie"
    elif preferred and preferred != better and not is_mismatched(status.arms):
        candidate = status.arms.candidate
        score = f"{_scores(candidate)} of {candidate.served_name}"
        judgement = f"prefers {better}" if better else "does not exclude a tie"
        yield f"people prefer {preferred}, the weighted score {score} {judgement}"


def _few_samples(test: ABTest, status: ABTestStatus) -> str | None:
    """While latencies, costs or errors are compared, and an arm has had fewer answers than are recommended."""
    weights, guardrails, traffic = test.spec.decision.weights, test.spec.guardrails, test.spec.traffic
    compares = (weights is not None and weights.latency + weights.cost > 0) or guardrails is not None
    if not compares or not traffic.candidate_percent or status.arms is None:
        return None
    baseline, candidate = status.arms.baseline.answers, status.arms.candidate.answers
    if min(baseline, candidate) >= RECOMMENDED_SAMPLES_PER_ARM:
        return None
    return (
        f"{baseline} answers of the baseline and {candidate} of the candidate: {RECOMMENDED_SAMPLES_PER_ARM} of each "
        "are recommended before latencies and costs are believed"
    )


def sample_ratio_mismatch(status: ABTestStatus) -> str | None:
    """That the arms' subjects are not split as asked for, and what to do about it."""
    if status.arms is None or not is_mismatched(status.arms):
        return None
    baseline, candidate = status.arms.baseline, status.arms.candidate
    return (
        f"{baseline.subjects or 0} subjects of {baseline.served_name} and {candidate.subjects or 0} of "
        f"{candidate.served_name} are not split as traffic.candidatePercent says "
        f"(p {status.arms.sample_ratio_p_value} <= {MISMATCH_ALPHA}), so that weights can't decide: find out whose "
        "samples are lost (finetune_gateway_samples counts dropped ones), then create a new ABTest"
    )
