"""What should happen next in one ABTest. A verdict is written once and never changed by late votes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Literal

from finetune_operator.contract.experiments import AbTestTally
from finetune_operator.core.conditions import Absent, Finding, find, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.group_sequential import looked
from finetune_operator.core.routing import is_loaded
from finetune_operator.reconcile.abtest_counts import counted
from finetune_operator.reconcile.engine_sharing import is_refused
from finetune_operator.reconcile.plan import Event, Plan
from finetune_operator.reconcile.served_version import absent, unloaded
from finetune_operator.reconcile.traffic import base_lacking, traffic_finding
from finetune_operator.reconcile.verdict import (
    GUARDRAIL_BREACHED,
    SAMPLE_RATIO_MISMATCH,
    Outlook,
    judged,
    sample_ratio_mismatch,
)
from finetune_operator.resources.abtest import (
    KIND,
    ABTest,
    ABTestSpec,
    ABTestStatus,
    Look,
    TestPhase,
    Verdict,
    Votes,
)
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
    status = counted(test, seen.tally, seen.versions, now, config.progress_write_seconds)
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
