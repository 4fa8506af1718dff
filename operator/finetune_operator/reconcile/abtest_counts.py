"""What an ABTest's status tells of its votes and its traffic, before anybody judges it."""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from finetune_operator.contract.experiments import AbTestTally, ArmTally, VoteCounts
from finetune_operator.core.chi_squared import chi_squared_p_value
from finetune_operator.core.group_sequential import most_votes
from finetune_operator.core.sample_ratio import sample_ratio_p_value
from finetune_operator.core.score_interval import score_interval
from finetune_operator.core.sequential import p_value, preference_interval, printed, votes_still_needed
from finetune_operator.core.weights import NoScore, candidate_score
from finetune_operator.reconcile.error_rates import with_error_rates
from finetune_operator.reconcile.verdict import TIE
from finetune_operator.resources.abtest import (
    WIN_RATES_MAX_POINTS,
    ABTest,
    ABTestSpec,
    ABTestStatus,
    Arms,
    ArmStatus,
    Voters,
    Votes,
    WinRatePoint,
)
from finetune_operator.resources.abtest_decision import Decision, Method
from finetune_operator.resources.modelversion import ModelVersion


def counted(
    test: ABTest, tally: AbTestTally | None, versions: Iterable[ModelVersion], now: datetime, write_seconds: float
) -> ABTestStatus:
    """The status with the newest counts.

    Evidence once seen stays valid, but speaks for the arm that led then, and not of votes that were taken back.
    """
    old, spec = test.status, test.spec
    baseline_name = spec.baseline.model_version or _base_model_name(spec, versions)
    split = f"{100 - spec.traffic.candidate_percent}/{spec.traffic.candidate_percent}"
    if tally is None:
        return old.model_copy(update={"split": split})
    votes = tally.votes
    arms = _arms(test, baseline_name, tally, now, write_seconds)
    decided_by = _by_feedback(arms) if spec.decision.by_feedback else _by_votes(test, votes, baseline_name)
    return old.model_copy(
        update={
            "split": split,
            "votes": _votes(spec.decision, votes),
            "voters": _voters(spec, tally, baseline_name),
            "win_rates": tuple(
                WinRatePoint(time=point.time, votes=point.votes.total, win_rate=_four_digits(point.votes.win_rate or 0))
                for point in tally.win_rates[-WIN_RATES_MAX_POINTS:]
            )
            or None,
            "arms": arms,
            **decided_by,
        }
    )


def _by_votes(test: ABTest, votes: VoteCounts, baseline_name: str | None) -> dict[str, object]:
    """Whom the votes speak for, and how clearly."""
    old, leader, smallest = test.status, _leader(test.spec, votes, baseline_name), p_value(votes)
    if old.p_value and old.leader == leader and old.votes and _only_grew(old.votes, votes):
        smallest = min(smallest, float(old.p_value))
    return {
        "leader": leader,
        "p_value": printed(smallest) if votes.total else None,
        "chi_squared_p_value": printed(chi_squared_p_value(votes)) if votes.total else None,
        "votes_still_needed": _votes_still_needed(test.spec.decision, votes),
    }


def _by_feedback(arms: Arms | None) -> dict[str, object]:
    """Whom the score speaks for; its bounds say how clearly. A p-value of votes would seem to be this leader's."""
    return {"leader": _ahead(arms), "p_value": None, "chi_squared_p_value": None, "votes_still_needed": None}


def _only_grew(old: Votes, new: VoteCounts) -> bool:
    return old.fine_tuned <= new.fine_tuned and old.base <= new.base and old.tie <= new.tie


def _leader(spec: ABTestSpec, votes: VoteCounts, baseline_name: str | None) -> str | None:
    if votes.fine_tuned == votes.base:
        return None
    return spec.candidate.model_version if votes.fine_tuned > votes.base else baseline_name


def _ahead(arms: Arms | None) -> str | None:
    """Whose weighted score is the higher one, by whatever little."""
    if arms is None or arms.candidate.score is None or float(arms.candidate.score) == TIE:
        return None
    return (arms.candidate if float(arms.candidate.score) > TIE else arms.baseline).served_name


def _voters(spec: ABTestSpec, tally: AbTestTally, baseline_name: str | None) -> Voters | None:
    """An older api does not tell. Where feedback decides, there is no verdict that a heavy voter could turn."""
    if not tally.voters.evaluators:
        return None
    heaviest, agreement = tally.voters.heaviest, tally.voters.agreement
    told = Voters(
        evaluators=tally.voters.evaluators,
        heaviest_votes=heaviest.total,
        agreement=None if agreement is None else _four_digits(agreement),
    )
    if spec.decision.by_feedback:
        return told
    rest = tally.votes.without(heaviest)
    is_sized = spec.decision.method is Method.CHI_SQUARED or spec.decision.min_effect is not None
    p = chi_squared_p_value if is_sized else p_value
    return told.model_copy(
        update={
            "leader_without_heaviest": _leader(spec, rest, baseline_name),
            "p_value_without_heaviest": printed(p(rest)),
        }
    )


def _votes_still_needed(decision: Decision, votes: VoteCounts) -> int | None:
    if decision.method is Method.CHI_SQUARED or decision.min_effect is not None:
        return max(0, most_votes(decision) - votes.total)
    needed = votes_still_needed(votes, float(decision.alpha))
    return None if needed is None else max(needed, decision.min_votes - votes.total)


def _arms(
    test: ABTest, baseline_name: str | None, tally: AbTestTally, now: datetime, write_seconds: float
) -> Arms | None:
    """Traffic alone changes the counts all the time: they are written with the next vote, or after a while."""
    old = test.status.arms
    if baseline_name is None:
        return old
    fresh = _scored(
        test.spec.decision,
        _votes(test.spec.decision, tally.votes),
        with_error_rates(
            old,
            Arms(
                baseline=_arm(baseline_name, tally.arms.baseline, sum(split.baseline for split in tally.splits)),
                candidate=_arm(
                    test.spec.candidate.model_version,
                    tally.arms.candidate,
                    sum(split.candidate for split in tally.splits),
                ),
                sample_ratio_p_value=printed(sample_ratio_p_value(tally.splits)) if tally.splits else None,
                last_update_time=now,
            ),
        ),
    )
    if old is None or fresh == old.model_copy(update={"last_update_time": now}):
        return old or fresh
    voted = test.status.votes != _votes(test.spec.decision, tally.votes)
    recent = old.last_update_time is not None and (now - old.last_update_time).total_seconds() < write_seconds
    return old if recent and not voted else fresh


def _scored(decision: Decision, votes: Votes, arms: Arms) -> Arms:
    """Without a score where there are no weights, or too little data for them."""
    if decision.weights is None:
        return arms
    score = candidate_score(decision.weights, decision, votes, arms)
    if isinstance(score, NoScore):
        return arms
    candidate = Decimal(f"{score:.4f}")
    bounds = score_interval(decision.weights, decision, votes, arms)
    of_candidate, of_baseline = {"score": str(candidate)}, {"score": str(1 - candidate)}
    if not isinstance(bounds, NoScore):
        of_candidate["score_lower"], of_candidate["score_upper"] = _outwards(*bounds)
        of_baseline["score_lower"], of_baseline["score_upper"] = _outwards(1 - bounds.upper, 1 - bounds.lower)
    return arms.model_copy(
        update={
            "baseline": arms.baseline.model_copy(update=of_baseline),
            "candidate": arms.candidate.model_copy(update=of_candidate),
        }
    )


def _base_model_name(spec: ABTestSpec, versions: Iterable[ModelVersion]) -> str | None:
    names = (v.spec.base_model.name for v in versions if v.metadata.name == spec.candidate.model_version)
    return next(names, None)


def _votes(decision: Decision, counts: VoteCounts) -> Votes:
    rate, lower, upper = counts.win_rate, None, None
    if counts.fine_tuned or counts.base:
        lower, upper = _outwards(*preference_interval(counts, float(decision.alpha)))
    return Votes(
        fine_tuned=counts.fine_tuned,
        base=counts.base,
        tie=counts.tie,
        both_bad=counts.both_bad or None,
        total=counts.total,
        win_rate=_four_digits(rate) if rate is not None else None,
        win_rate_percent=f"{rate * 100:.1f}%" if rate is not None else None,
        preference_lower=lower,
        preference_upper=upper,
    )


def _outwards(lower: float, upper: float) -> tuple[str, str]:
    """Four decimals that leave nothing out."""
    place = Decimal("0.0001")
    return (
        str(Decimal(lower).quantize(place, ROUND_FLOOR).normalize()),
        str(Decimal(upper).quantize(place, ROUND_CEILING).normalize()),
    )


def _four_digits(value: float) -> str:
    return f"{value:.4g}"


def _arm(name: str, tally: ArmTally, subjects: int) -> ArmStatus:
    return ArmStatus(
        served_name=name,
        subjects=subjects or None,
        samples=tally.samples,
        errors=tally.errors,
        mean_latency_ms=tally.mean_latency_ms,
        latency_subjects=tally.latency_subjects or None,
        standard_error_latency_ms=_four_decimals_up(tally.standard_error_latency_ms),
        samples_with_tokens=tally.samples_with_tokens or None,
        mean_prompt_tokens=_one_decimal(tally.mean_prompt_tokens),
        mean_completion_tokens=_one_decimal(tally.mean_completion_tokens),
        token_subjects=tally.token_subjects or None,
        standard_error_completion_tokens=_four_decimals_up(tally.standard_error_completion_tokens),
        shadow_samples=tally.shadow_samples or None,
        shadow_errors=tally.shadow_errors if tally.shadow_samples else None,
        shadow_mean_latency_ms=tally.shadow_mean_latency_ms,
        accuracy_subjects=tally.accuracy_subjects or None,
        mean_accuracy=None if tally.mean_accuracy is None else f"{tally.mean_accuracy:.4f}",
        deviation_accuracy=_four_decimals_up(tally.deviation_accuracy),
    )


def _four_decimals_up(value: float | None) -> str | None:
    """What is printed of how far a mean may be off is never smaller than what was counted."""
    return None if value is None else str(Decimal(value).quantize(Decimal("0.0001"), ROUND_CEILING))


def _one_decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"
