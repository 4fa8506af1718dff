"""How far the weighted score of two arms may be from what was counted: an interval that may be looked at all the time.

Each mean has a confidence sequence, which contains the true mean at all looks together but for its share of alpha; the
score's interval is what they allow at once. Votes are bounded, so that theirs always holds (`sequential`). Latencies
and lengths have no bound: theirs is asymptotic, a boundary of a Gaussian mixture with the deviation that was observed.
What is counted is subjects, since the answers of one are alike: their errors add up to that of a mean of answers as
clusters do (Liang, Zeger, "Longitudinal data analysis using generalized linear models", Biometrika 1986).
It holds the better the more subjects there were before the first look (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024).
"""

from math import log, sqrt
from typing import NamedTuple

from finetune_operator.core.sequential import bounded_mean_interval
from finetune_operator.core.weights import NoScore, candidate_score
from finetune_operator.resources.abtest import Arms, ArmStatus, Votes
from finetune_operator.resources.abtest_decision import AccuracyFrom, Decision, Weights

TIGHTEST_AT = 500
"""Subjects at which the interval of a mean is tightest; it has to be chosen beforehand."""
ASYMPTOTIC_FROM = 30
"""Fewer subjects say too little of how much they vary."""
LATENCY_ROUNDING_MS = 0.5
TOKENS_ROUNDING = 0.05
ACCURACY_ROUNDING = 0.00005
"""The status has means to the next millisecond, to a tenth of a token, and to four decimals."""
ACCURACIES = "accuracies"


class Interval(NamedTuple):
    """Both bounds belong to it."""

    lower: float
    upper: float


class Mean(NamedTuple):
    """What is known of one quantity of one arm's answers: its mean, and of so many subjects how much they differ."""

    value: float
    deviation: float
    size: int
    rounding: float = 0.0


def score_interval(weights: Weights, decision: Decision, votes: Votes, arms: Arms) -> Interval | NoScore:
    """Of the candidate's score. A part without weight neither needs data nor takes of alpha."""
    score = candidate_score(weights, decision, votes, arms)
    if isinstance(score, NoScore):
        return score
    in_use = sum(weight > 0 for weight in (weights.accuracy, weights.latency, weights.cost))
    alpha = float(decision.alpha) / in_use
    parts: list[tuple[int, Interval]] = []
    if weights.accuracy and weights.accuracy_from is AccuracyFrom.VOTES:
        parts.append((weights.accuracy, _accuracy(votes, alpha)))
    for weight, what, mean_of in (
        (0 if weights.accuracy_from is AccuracyFrom.VOTES else weights.accuracy, ACCURACIES, _told_accuracy),
        (weights.latency, "latencies", _latency),
        (weights.cost, "lengths", _length),
    ):
        if not weight:
            continue
        baseline, candidate = mean_of(arms.baseline), mean_of(arms.candidate)
        if baseline is None or candidate is None:
            return NoScore(f"how much the {what} of answers differ is not known: the api is older than the operator")
        if (known := min(baseline.size, candidate.size)) < ASYMPTOTIC_FROM:
            needed = f"{ASYMPTOTIC_FROM} subjects of each arm, not {known}"
            return NoScore(f"how much the {what} of answers differ needs {needed}")
        part = share_interval(candidate, baseline, alpha)
        parts.append((weight, Interval(1 - part.upper, 1 - part.lower) if what is ACCURACIES else part))
    lower = sum(weight * part.lower for weight, part in parts) / 100
    upper = sum(weight * part.upper for weight, part in parts) / 100
    return Interval(lower, upper)


def share_interval(candidate: Mean, baseline: Mean, alpha: float) -> Interval:
    """Of the candidate's share where less is better; each of the two means gets half of alpha."""
    ours, theirs = mean_interval(candidate, alpha / 2), mean_interval(baseline, alpha / 2)
    return Interval(_share(ours.upper, theirs.lower, 0.0), _share(ours.lower, theirs.upper, 1.0))


def mean_interval(mean: Mean, alpha: float) -> Interval:
    """Of a quantity that is never negative."""
    reach = mean.deviation * standard_radius(mean.size, alpha) + mean.rounding
    return Interval(max(0.0, mean.value - reach), mean.value + reach)


def standard_radius(count: int, alpha: float) -> float:
    """The boundary for a deviation of 1: a mixture of Gaussians whose width suits `TIGHTEST_AT`."""
    surprise = -2 * log(alpha)
    spread = count * (surprise + log(surprise + 1)) / TIGHTEST_AT
    return sqrt(2 * (spread + 1) / (count * spread) * log(sqrt(spread + 1) / alpha))


def _accuracy(votes: Votes, alpha: float) -> Interval:
    return Interval(*bounded_mean_interval(votes.fine_tuned + votes.tie / 2, votes.base + votes.tie / 2, alpha))


def _told_accuracy(arm: ArmStatus) -> Mean | None:
    if arm.mean_accuracy is None or arm.deviation_accuracy is None:
        return None
    mean, deviation = float(arm.mean_accuracy), float(arm.deviation_accuracy)
    return Mean(mean, deviation, arm.accuracy_subjects or 0, ACCURACY_ROUNDING)


def _latency(arm: ArmStatus) -> Mean | None:
    mean, error, subjects = arm.mean_latency_ms, arm.standard_error_latency_ms, arm.latency_subjects
    if mean is None or error is None or not subjects:
        return None
    return Mean(mean, float(error) * sqrt(subjects), subjects, LATENCY_ROUNDING_MS)


def _length(arm: ArmStatus) -> Mean | None:
    mean, error, subjects = arm.mean_completion_tokens, arm.standard_error_completion_tokens, arm.token_subjects
    if mean is None or error is None or not subjects:
        return None
    return Mean(float(mean), float(error) * sqrt(subjects), subjects, TOKENS_ROUNDING)


def _share(candidate: float, baseline: float, where_both_are_nothing: float) -> float:
    return baseline / (baseline + candidate) if baseline + candidate else where_both_are_nothing
