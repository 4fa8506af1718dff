"""Why a version becomes the most recently promoted one: its own spec, or the verdict of an ABTest.

Each cause is acted upon once: a promotion is stamped with its time, and only what is younger than the stamp counts.
A won test whose candidate may not be promoted yet keeps its effect until somebody knows better: until another version
of the model is promoted after the verdict, or a later verdict is about this version or for another one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.core.evaluation import judgement
from finetune_operator.core.managers import manager_of
from finetune_operator.core.routing import active_version
from finetune_operator.manifests.common import OPERATOR_NAME
from finetune_operator.manifests.evaluation import current_evaluation
from finetune_operator.resources.abtest import ABTest, OnLoss, OnWin, Verdict
from finetune_operator.resources.finetunejob import Promotion
from finetune_operator.resources.modelversion import ModelVersion, RequestedState


@dataclass(frozen=True)
class Cause:
    """Of a change of what is active: why, and whose doing, where that is known."""

    why: str
    who: str | None = None


def promotion(version: ModelVersion, versions: Iterable[ModelVersion], tests: Iterable[ABTest]) -> Cause | None:
    """The cause, if there is one now; whether the version can answer is not asked here."""
    status, spec = version.status, version.spec
    if spec.state is RequestedState.DEPLOYED and status.observed_state is not RequestedState.DEPLOYED:
        return Cause("spec.state is Deployed", manager_of(version, "state"))
    if spec.state is not None or (is_held_back(version) and status.promoted_at is None):
        return None
    if spec.promotion is Promotion.ALWAYS and status.promoted_at is None:
        return Cause("spec.promotion is Always", _publisher(version))
    family = tuple(other for other in versions if other.spec.model == spec.model)
    tests = tuple(tests)
    active = active_version(family)
    causes = (_by_verdict(version, active, test) for test in tests if not superseded(version, test, family, tests))
    return next((cause for cause in causes if cause), None)


def unheeded(version: ModelVersion, versions: Iterable[ModelVersion], tests: Iterable[ABTest]) -> str | None:
    """Why a test that this version has won promotes it no more."""
    versions, tests = tuple(versions), tuple(tests)
    for test in tests:
        if _by_verdict(version, None, test) and (reason := superseded(version, test, versions, tests)):
            return (
                f"it won ABTest {test.metadata.name}, but {reason}: set spec.state Deployed to promote it all the same"
            )
    return None


def superseded(
    version: ModelVersion, test: ABTest, versions: Iterable[ModelVersion], tests: Iterable[ABTest]
) -> str | None:
    """What has happened since this test was won that speaks louder; a lost one only takes back what is still so."""
    concluded, model = test.status.concluded_at, version.spec.model
    if concluded is None or test.status.verdict is not Verdict.WON:
        return None
    for other in versions:
        is_rival = other.metadata.name != version.metadata.name and other.spec.model == model
        if is_rival and other.status.promoted_at and other.status.promoted_at > concluded:
            return f"{other.metadata.name} was promoted after that"
    for later in tests:
        arms = (later.spec.baseline.model_version, later.spec.candidate.model_version)
        is_decisive = later.status.verdict is Verdict.WON or (
            later.status.verdict is Verdict.LOST and version.metadata.name in arms
        )
        if later.spec.model == model and is_decisive and (later.status.concluded_at or concluded) > concluded:
            return f"ABTest {later.metadata.name} was decided after that"
    return None


def is_held_back(version: ModelVersion) -> bool:
    """Whether nobody but the user may make this version the active one."""
    verdict = judgement(version.spec, current_evaluation(version))
    return verdict is not None and not verdict.passed


def _publisher(version: ModelVersion) -> str | None:
    """The operator writes what a FineTuneJob asks for, unless somebody has edited it since."""
    job = version.spec.lineage.fine_tune_job
    manager = manager_of(version, "promotion")
    return f"FineTuneJob {job}" if job and manager in (None, OPERATOR_NAME) else manager


def _by_verdict(version: ModelVersion, active: ModelVersion | None, test: ABTest) -> Cause | None:
    concluded, candidate = test.status.concluded_at, test.spec.candidate.model_version
    if concluded is None or not _promoted_before(version, concluded):
        return None
    match test.status.verdict:
        case Verdict.WON if test.spec.on_win is OnWin.PROMOTE and candidate == version.metadata.name:
            return None if is_held_back(version) else Cause(f"won ABTest {test.metadata.name}", _name(test))
        # Going back to what was live before is no promotion, and hence asks for no evaluation.
        case Verdict.LOST if test.spec.on_loss is OnLoss.ROLLBACK:
            if test.spec.baseline.model_version == version.metadata.name and _is_to_go(candidate, active, concluded):
                return Cause(f"candidate {candidate} lost ABTest {test.metadata.name}", _name(test))
    return None


def _name(test: ABTest) -> str:
    return f"ABTest {test.metadata.name}"


def _is_to_go(candidate: str, active: ModelVersion | None, concluded: datetime) -> bool:
    """Only what the loser was before its verdict is taken back: who promotes or pins it afterwards knows better."""
    if active is None or active.metadata.name != candidate or active.spec.state is RequestedState.DEPLOYED:
        return False
    return _promoted_before(active, concluded)


def _promoted_before(version: ModelVersion, moment: datetime) -> bool:
    return version.status.promoted_at is None or version.status.promoted_at < moment
