"""The weighted score of two arms: how good the answers are, how quick, and what they cost.

Each part of an arm is its share between the two arms, so that parts of different units add up: half of the answer's
time makes two thirds of the latency part. Both arms' scores sum to 1.
"""

from dataclasses import dataclass

from finetune_operator.resources.abtest import Arms, ArmStatus, Votes
from finetune_operator.resources.abtest_decision import AccuracyFrom, Decision, Weights


@dataclass(frozen=True)
class NoScore:
    """Which data is missing."""

    reason: str


def candidate_score(weights: Weights, decision: Decision, votes: Votes, arms: Arms) -> float | NoScore:
    """Between 0 and 1, above one half where the candidate leads; the baseline's is the rest."""
    parts = (
        (weights.accuracy, _accuracy(weights, decision, votes, arms)),
        (weights.latency, _latency(decision, arms)),
        (weights.cost, _cost(decision, arms)),
    )
    score = 0.0
    for weight, part in parts:
        if weight == 0:
            continue
        if isinstance(part, NoScore):
            return part
        score += weight / 100 * part
    return score


def _accuracy(weights: Weights, decision: Decision, votes: Votes, arms: Arms) -> float | NoScore:
    if weights.accuracy_from is not AccuracyFrom.VOTES:
        return _told_accuracy(weights.accuracy_from, decision, arms)
    if not votes.total:
        return NoScore("accuracy needs votes")
    return (votes.fine_tuned + votes.tie / 2) / votes.total


def _told_accuracy(source: AccuracyFrom, decision: Decision, arms: Arms) -> float | NoScore:
    baseline, candidate, needed = arms.baseline, arms.candidate, decision.min_samples_per_arm
    known = (baseline.accuracy_subjects or 0, candidate.accuracy_subjects or 0)
    if min(known) < needed or baseline.mean_accuracy is None or candidate.mean_accuracy is None:
        told = "a reference" if source is AccuracyFrom.REFERENCES else "a rating"
        return NoScore(
            f"accuracy needs feedback with {told} of {needed} subjects of each arm, there is some of {known[0]} of the "
            f"baseline and {known[1]} of the candidate"
        )
    return 1 - _share(float(candidate.mean_accuracy), float(baseline.mean_accuracy))


def _latency(decision: Decision, arms: Arms) -> float | NoScore:
    baseline, candidate, needed = arms.baseline, arms.candidate, decision.min_samples_per_arm
    enough = min(baseline.answers, candidate.answers) >= needed
    if not enough or baseline.mean_latency_ms is None or candidate.mean_latency_ms is None:
        return _missing("latency", "answers", needed, baseline.answers, candidate.answers)
    return _share(candidate.mean_latency_ms, baseline.mean_latency_ms)


def _cost(decision: Decision, arms: Arms) -> float | NoScore:
    baseline, candidate, needed = arms.baseline, arms.candidate, decision.min_samples_per_arm
    known = (_known(baseline), _known(candidate))
    if min(known) < needed or baseline.mean_completion_tokens is None or candidate.mean_completion_tokens is None:
        return _missing("cost", "answers with known tokens", needed, *known)
    return _share(float(candidate.mean_completion_tokens), float(baseline.mean_completion_tokens))


def _known(arm: ArmStatus) -> int:
    return arm.samples_with_tokens or 0


def _share(candidate: float, baseline: float) -> float:
    """The candidate's share where less is better."""
    return baseline / (baseline + candidate) if baseline + candidate else 0.5


def _missing(part: str, what: str, needed: int, baseline: int, candidate: int) -> NoScore:
    return NoScore(
        f"{part} needs {needed} {what} of each arm, there are {baseline} of the baseline and {candidate} of the "
        "candidate: traffic.candidatePercent is what splits requests"
    )
