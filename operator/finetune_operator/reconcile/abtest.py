"""What should happen next in one ABTest. A verdict is written once and never changed by late votes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import takewhile
from typing import Literal

from finetune_operator.contract.experiments import AbTestTally, ArmTally, VoteCounts
from finetune_operator.core.chi_squared import chi_squared_p_value
from finetune_operator.core.conditions import Absent, Finding, find, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.group_sequential import looked, most_votes
from finetune_operator.core.routing import is_loaded
from finetune_operator.core.sample_ratio import sample_ratio_p_value
from finetune_operator.core.score_interval import score_interval
from finetune_operator.core.sequential import p_value, preference_interval, printed, votes_still_needed
from finetune_operator.core.weights import NoScore, candidate_score
from finetune_operator.reconcile.engine_sharing import is_refused
from finetune_operator.reconcile.error_rates import with_error_rates
from finetune_operator.reconcile.plan import Event, Plan
from finetune_operator.reconcile.served_version import absent, unloaded
from finetune_operator.reconcile.traffic import base_lacking, traffic_finding
from finetune_operator.reconcile.verdict import (
    GUARDRAIL_BREACHED,
    SAMPLE_RATIO_MISMATCH,
    TIE,
    Outlook,
    judged,
    sample_ratio_mismatch,
)
from finetune_operator.resources.abtest import (
    KIND,
    WIN_RATES_MAX_POINTS,
    ABTest,
    ABTestSpec,
    ABTestStatus,
    Arms,
    ArmStatus,
    Look,
    TestPhase,
    Verdict,
    Voters,
    Votes,
    WinRatePoint,
)
from finetune_operator.resources.abtest_decision import Decision, Method
from finetune_operator.resources.modelversion import ModelVersion, State

CANCELLED = "Cancelled"


@dataclass(frozen=True)
class Observed:
    """What a reconcile may know of the world besides the resource itself; no tally means that the api is away."""

    versions: tuple[ModelVersion, ...] = ()
    tests: tuple[ABTest, ...] = ()
    tally: AbTestTally | None = None


def reconcile(test: ABTest, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan."""
    if test.deleting:
        return Plan()
    if test.status.verdict:
        status = test.status.model_copy(update={"observed_generation": test.metadata.generation})
        return Plan(status=status.to_dict())
    status = _counted(test, seen, now, config.progress_write_seconds)
    outlook = _cancelled(test) or _aborted(test, seen) or _waiting(test, seen)
    if outlook is None:
        status = _looked(test, status)
        outlook = judged(test, status, now)
    status = _with_outlook(test, seen, status, outlook, now)
    return Plan(
        status=status.to_dict(),
        events=(*_mismatch_events(test, status), *_events(test, status, outlook)),
        requeue_after_seconds=None if outlook.verdict else config.poll_seconds,
    )


def is_running(test: ABTest) -> bool:
    """Whether votes may be coming in."""
    return not test.deleting and test.status.verdict is None


def _arm_versions(spec: ABTestSpec) -> tuple[str, ...]:
    names = (spec.baseline.model_version, spec.candidate.model_version)
    return tuple(name for name in names if name)


def _cancelled(test: ABTest) -> Outlook | None:
    if not test.spec.cancel:
        return None
    message = "spec.cancel ended the test before its verdict; create a new ABTest to go on"
    return Outlook(TestPhase.CONCLUDED, CANCELLED, message, Verdict.ABORTED)


def _aborted(test: ABTest, seen: Observed) -> Outlook | None:
    """A version that can't serve any more ends a test that had begun; one whose engine is late may yet come back."""
    if test.status.start_time is None:
        return None
    by_name = {version.metadata.name: version for version in seen.versions}
    for name in _arm_versions(test.spec):
        if fact := _end_of(by_name.get(name)):
            message = f"ModelVersion {name} {fact}: create a new ABTest once both versions serve"
            return Outlook(TestPhase.CONCLUDED, "Aborted", message, Verdict.ABORTED)
    return None


def _end_of(version: ModelVersion | None) -> str | None:
    if version is None:
        return "is gone"
    # One whose next engine refuses it goes on answering from the former one.
    if version.status.state is State.ARCHIVED or (is_refused(version) and not is_loaded(version)):
        return f"is {version.status.state}"
    return None


def _waiting(test: ABTest, seen: Observed) -> Outlook | None:
    by_name = {version.metadata.name: version for version in seen.versions}
    for name in _arm_versions(test.spec):
        if (version := by_name.get(name)) is None:
            return Outlook(TestPhase.PENDING, *absent(name, KIND))
        if version.spec.model != test.spec.model:
            message = f"ModelVersion {name} belongs to model {version.spec.model}, not to {test.spec.model}"
            return Outlook(TestPhase.PENDING, "WrongModel", message)
        if test.status.start_time is None and (lacking := unloaded(version, KIND)):
            return Outlook(TestPhase.PENDING, *lacking)
    if test.status.start_time is None and (lacking := base_lacking(test, seen.versions)):
        return Outlook(TestPhase.PENDING, *lacking)
    for other in seen.tests:
        if _takes_the_traffic(other, test):
            message = f"ABTest {other.metadata.name} already splits the traffic of {test.spec.model}"
            return Outlook(TestPhase.PENDING, "AnotherTestRunning", f"{message}: wait for it, or delete it")
    return None


def _takes_the_traffic(other: ABTest, test: ABTest) -> bool:
    same = other.metadata.uid == test.metadata.uid or other.spec.model != test.spec.model
    if same or other.status.phase is not TestPhase.RUNNING or other.deleting:
        return False
    if test.status.phase is TestPhase.RUNNING and _seniority(test) < _seniority(other):
        return False
    return other.spec.traffic.any and test.spec.traffic.any


def _seniority(test: ABTest) -> tuple[float, str]:
    """Of two tests that began at the same moment, the gateway and the operator choose the same one."""
    started = test.status.start_time
    return started.timestamp() if started else 0.0, test.metadata.uid


def _counted(test: ABTest, seen: Observed, now: datetime, write_seconds: float) -> ABTestStatus:
    """The status with the newest counts.

    Evidence once seen stays valid, but speaks for the arm that led then, and not of votes that were taken back.
    """
    old, spec = test.status, test.spec
    baseline_name = spec.baseline.model_version or _base_model_name(spec, seen.versions)
    tally = seen.tally
    split = f"{100 - spec.traffic.candidate_percent}/{spec.traffic.candidate_percent}"
    if tally is None:
        return old.model_copy(update={"split": split})
    votes = tally.votes
    leader = _leader(spec, votes, baseline_name)
    counted, smallest = _votes(spec.decision, votes), p_value(votes)
    arms = _arms(test, baseline_name, tally, now, write_seconds)
    if old.p_value and old.leader == leader and old.votes and _only_grew(old.votes, votes):
        smallest = min(smallest, float(old.p_value))
    return old.model_copy(
        update={
            "split": split,
            "votes": counted,
            "voters": _voters(spec, tally, baseline_name),
            "win_rates": tuple(
                WinRatePoint(time=point.time, votes=point.votes.total, win_rate=_four_digits(point.votes.win_rate or 0))
                for point in tally.win_rates[-WIN_RATES_MAX_POINTS:]
            )
            or None,
            "p_value": printed(smallest) if votes.total else None,
            "chi_squared_p_value": printed(chi_squared_p_value(votes)) if votes.total else None,
            "leader": _ahead(arms) if spec.decision.by_feedback else leader,
            "votes_still_needed": _votes_still_needed(spec.decision, votes),
            "arms": arms,
        }
    )


def _only_grew(old: Votes, new: VoteCounts) -> bool:
    return old.fine_tuned <= new.fine_tuned and old.base <= new.base and old.tie <= new.tie


def _looked(test: ABTest, status: ABTestStatus) -> ABTestStatus:
    """Only where a verdict may follow at once: a look is taken once, and what waits has all that came meanwhile in the
    next one. A look at votes that were taken back is none."""
    if test.spec.decision.min_effect is None or status.votes is None:
        return status
    standing = tuple(takewhile(lambda look: _is_of(look, status.votes or Votes()), status.looks or ()))
    looks = looked(test.spec.decision, standing, status.votes)
    return status.model_copy(update={"looks": looks or None})


def _is_of(look: Look, votes: Votes) -> bool:
    return look.votes <= votes.total and look.fine_tuned <= votes.fine_tuned and look.base <= votes.base


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
    """An older api does not tell."""
    if not tally.voters.evaluators:
        return None
    heaviest, agreement = tally.voters.heaviest, tally.voters.agreement
    rest = tally.votes.without(heaviest)
    is_sized = spec.decision.method is Method.CHI_SQUARED or spec.decision.min_effect is not None
    p = chi_squared_p_value if is_sized else p_value
    return Voters(
        evaluators=tally.voters.evaluators,
        heaviest_votes=heaviest.total,
        leader_without_heaviest=_leader(spec, rest, baseline_name),
        p_value_without_heaviest=printed(p(rest)),
        agreement=None if agreement is None else _four_digits(agreement),
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
        deviation_latency_ms=_one_decimal_up(tally.deviation_latency_ms),
        samples_with_tokens=tally.samples_with_tokens or None,
        mean_prompt_tokens=_one_decimal(tally.mean_prompt_tokens),
        mean_completion_tokens=_one_decimal(tally.mean_completion_tokens),
        deviation_completion_tokens=_one_decimal_up(tally.deviation_completion_tokens),
        shadow_samples=tally.shadow_samples or None,
        shadow_errors=tally.shadow_errors if tally.shadow_samples else None,
        shadow_mean_latency_ms=tally.shadow_mean_latency_ms,
        accuracy_subjects=tally.accuracy_subjects or None,
        mean_accuracy=None if tally.mean_accuracy is None else f"{tally.mean_accuracy:.4f}",
        deviation_accuracy=None if tally.deviation_accuracy is None else _four_decimals_up(tally.deviation_accuracy),
    )


def _four_decimals_up(value: float) -> str:
    return str(Decimal(value).quantize(Decimal("0.0001"), ROUND_CEILING))


def _one_decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _one_decimal_up(value: float | None) -> str | None:
    """A deviation that is printed is never smaller than what was counted."""
    return None if value is None else str(Decimal(value).quantize(Decimal("0.1"), ROUND_CEILING))


def _with_outlook(test: ABTest, seen: Observed, status: ABTestStatus, outlook: Outlook, now: datetime) -> ABTestStatus:
    running = outlook.phase is TestPhase.RUNNING
    return status.model_copy(
        update={
            "observed_generation": test.metadata.generation,
            "phase": outlook.phase,
            "message": shortened(outlook.message),
            "verdict": outlook.verdict,
            "start_time": status.start_time or (now if running else None),
            "concluded_at": now if outlook.verdict else None,
            "votes_still_needed": None if outlook.verdict else status.votes_still_needed,
            "conditions": with_findings(
                status.conditions, _findings(test, seen, status, outlook), test.metadata.generation, now
            ),
        }
    )


def _findings(test: ABTest, seen: Observed, status: ABTestStatus, outlook: Outlook) -> Iterable[Finding | Absent]:
    reason, message = outlook.reason, outlook.message
    concluded, running = outlook.verdict is not None, outlook.phase is TestPhase.RUNNING
    aborted = outlook.verdict is Verdict.ABORTED
    yield traffic_finding(test, seen.versions, running=running)
    yield _sample_ratio(status)
    yield Finding("Concluded", concluded, reason, message)
    yield Finding("Ready", (running or concluded) and not aborted, reason, message)
    # What somebody asked for is nothing to look into.
    stalled = aborted and reason != CANCELLED
    yield Finding("Stalled", True, reason, message) if stalled else Absent("Stalled")
    waiting = outlook.phase is TestPhase.PENDING
    yield Finding("Reconciling", True, reason, message) if waiting else Absent("Reconciling")


def _sample_ratio(status: ABTestStatus) -> Finding:
    """Unknown until a subject has been split."""
    if status.arms is None or status.arms.sample_ratio_p_value is None:
        return Finding("SampleRatioMatches", None, "NoSubjects")
    if message := sample_ratio_mismatch(status):
        return Finding("SampleRatioMatches", False, SAMPLE_RATIO_MISMATCH, message)
    return Finding("SampleRatioMatches", True, "AsSplit")


def _mismatch_events(test: ABTest, status: ABTestStatus) -> Iterable[Event]:
    """Once, when it is found."""
    before, now = (find(conditions, "SampleRatioMatches") for conditions in (test.status.conditions, status.conditions))
    was_found = before is not None and before.reason == SAMPLE_RATIO_MISMATCH
    if now is not None and now.reason == SAMPLE_RATIO_MISMATCH and not was_found:
        yield Event("Warning", now.reason, now.message)


def _events(test: ABTest, status: ABTestStatus, outlook: Outlook) -> tuple[Event, ...]:
    if test.status.phase is outlook.phase:
        return ()
    if outlook.verdict:
        alarming = outlook.reason in (Verdict.ABORTED, GUARDRAIL_BREACHED)
        type_: Literal["Normal", "Warning"] = "Warning" if alarming else "Normal"
        return (Event(type_, outlook.reason, outlook.message),)
    if outlook.phase is TestPhase.RUNNING:
        baseline = test.spec.baseline.model_version or "the base model"
        return (Event("Normal", "Started", f"comparing {test.spec.candidate.model_version} with {baseline}"),)
    return (Event("Normal", outlook.reason, outlook.message),)
