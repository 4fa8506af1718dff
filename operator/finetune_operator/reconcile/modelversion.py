"""What the cluster should do next for one ModelVersion.

Versions that agree in base model and serving parameters share an engine. Each reconcile sees all versions of the
namespace, decides which ones the engine should have, and loads its own where it is missing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from finetune_operator.contract.experiments import RatingTally
from finetune_operator.core.conditions import Absent, Finding, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.evaluation import judgement
from finetune_operator.core.workloads import DeploymentFacts
from finetune_operator.manifests.evaluation import current_evaluation
from finetune_operator.manifests.serving import engine_selector, wanted_engine
from finetune_operator.reconcile.engine_sharing import (
    Engine,
    EnginePod,
    Versions,
    answers_in,
    engine_actions,
    is_archived,
    leave_actions,
    load_actions,
    served,
    stays_in,
    unload_actions,
)
from finetune_operator.reconcile.plan import Action, Plan
from finetune_operator.reconcile.promotion import promotion, unheeded
from finetune_operator.reconcile.served_evaluation import (
    EvaluationFacts,
    evaluation_actions,
    evaluation_event,
    evaluation_finding,
    records,
    with_result,
)
from finetune_operator.reconcile.served_version import NotServed, base_engine
from finetune_operator.reconcile.traffic import base_needed_by
from finetune_operator.reconcile.version_activity import held_back_event, proven_at, with_activity, with_trust
from finetune_operator.reconcile.version_metrics import cost_finding, version_metrics
from finetune_operator.reconcile.version_outlook import (
    ARCHIVED,
    Outlook,
    moving,
    outlook,
    registered,
    spare_versions,
    without_slot,
)
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import (
    ModelVersion,
    ModelVersionStatus,
    RequestedState,
    State,
)

ENGINE_CHECK_SECONDS = 60.0
RECORD_AGAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Observed:
    """What a reconcile may know of the world besides the resource itself."""

    versions: Versions = ()
    deployment: DeploymentFacts | None = None
    """Of the engine that the spec asks for, as are the `pods`."""
    pods: tuple[EnginePod, ...] = ()
    left: tuple[Engine, ...] = ()
    """Other engines that were made for the version: before its spec.serving was changed, it asked for them."""
    tests: tuple[ABTest, ...] = ()
    evaluation: EvaluationFacts = field(default_factory=EvaluationFacts)
    ratings: RatingTally | None = None
    """None means no news: nobody asked, or the api is away."""


def wants_ratings(version: ModelVersion) -> bool:
    """Whether it may have answered since they were last known."""
    return wanted_engine(version) is not None and not is_archived(version) and not version.deleting


def reconcile(version: ModelVersion, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan."""
    if version.deleting:
        return Plan()
    replicas = max(1, sum(entry.pod.ready for entry in seen.pods))
    version = with_result(version, seen.evaluation, replicas, now, config)
    versions = _present(version, seen.versions)
    leaving = leave_actions(seen.left, versions)
    serving, name = version.spec.serving, wanted_engine(version)
    if serving is None or name is None:
        found = ARCHIVED if is_archived(version) else registered(version)
        return _plan(version, seen, found, None, now, config, leaving)
    engine = Engine(name, seen.deployment, seen.pods)
    residents = served(name, serving.max_loras, versions)
    unloads = unload_actions(engine, residents, versions)
    actions = (*leaving, *engine_actions(engine, residents, versions, config), *unloads)
    if is_archived(version):
        return _plan(version, seen, ARCHIVED, engine, now, config, actions)
    if version.metadata.name in {other.metadata.name for other in residents}:
        there = outlook(version, engine, spare_versions(version, seen.versions, seen.tests))
        if not there.stalled:
            actions = (*actions, *load_actions(version, engine, serving.max_loras, unloads))
    else:
        there = without_slot(version, serving.max_loras, residents)
    return _settle(version, seen, there, engine, now, config, actions)


def refused(version: ModelVersion, seen: Observed, message: str, now: datetime, config: OperatorConfig) -> Plan | None:
    """The API server takes no engine of such a spec; final until it is changed. What answers already goes on."""
    name = wanted_engine(version)
    if name is None or answers_in(version, name):
        return None
    fact = f"the API server refused the engine: {message}: change spec.serving"
    there = Outlook(State.FAILED, "EngineRefused", fact, stalled=True)
    return _settle(version, seen, there, Engine(name), now, config)


def _settle(
    version: ModelVersion,
    seen: Observed,
    there: Outlook,
    engine: Engine,
    now: datetime,
    config: OperatorConfig,
    actions: tuple[Action, ...] = (),
) -> Plan:
    """It is served where it answered before, until it answers in the engine that its spec asks for."""
    former = next((left for left in seen.left if stays_in(version, left.name)), None)
    if former is None:
        return _plan(version, seen, there, engine, now, config, actions)
    needed = base_needed_by(version, former.name, engine.name, seen.versions, seen.tests)
    found = moving(version, outlook(version, former), there, engine, needed)
    if found.ahead is None:
        return _plan(version, seen, found, engine, now, config, actions)
    return _plan(version, seen, found, former, now, config, (*actions, *load_actions(version, former)))


def _present(version: ModelVersion, versions: Iterable[ModelVersion]) -> Versions:
    """All that live, this one as it is decided upon."""
    others = (other for other in versions if other.metadata.name != version.metadata.name and not other.deleting)
    return (version, *others)


def _plan(
    version: ModelVersion,
    seen: Observed,
    found: Outlook,
    engine: Engine | None,
    now: datetime,
    config: OperatorConfig,
    actions: tuple[Action, ...] = (),
) -> Plan:
    unrecorded, recorded = records(version, seen.evaluation, config)
    status = _status(version, seen, found, engine, now, config).model_copy(update={"recorded_evaluations": recorded})
    status = with_trust(version, status, now, config.steady_seconds)
    if status.failed_over_at and found.loaded:
        words = f"it failed while it was active: has to answer for {config.steady_seconds:g} s before it is so again"
        status = status.model_copy(update={"message": shortened(f"{status.message}; {words}")})
    status, events = with_activity(version, seen.versions, seen.tests, status, engine, now)
    events = (*evaluation_event(version, status), *held_back_event(version, status), *events)
    base_at = _base_engine(version, seen, found)
    evaluations = evaluation_actions(version, seen.evaluation, base_at, seen.versions, config)
    # No watch tells of an adapter that vanishes from an engine, hence a look now and then.
    is_watched = seen.pods or (engine and engine.pods)
    check = ENGINE_CHECK_SECONDS if is_watched else RECORD_AGAIN_SECONDS if unrecorded else None
    proven = proven_at(version, status, config.steady_seconds) if status.failed_over_at else None
    if proven:
        check = min(check or ENGINE_CHECK_SECONDS, max(0.0, (proven - now).total_seconds()))
    return Plan(
        actions=(*actions, *evaluations, *unrecorded),
        status=status.to_dict(),
        events=events,
        requeue_after_seconds=check,
    )


def _status(
    version: ModelVersion, seen: Observed, found: Outlook, engine: Engine | None, now: datetime, config: OperatorConfig
) -> ModelVersionStatus:
    old = version.status
    evaluated = evaluation_finding(version, seen.evaluation, _base_engine(version, seen, found), seen.versions)
    findings = (*_findings(version, found), evaluated, cost_finding(version, config.prices))
    conditions = with_findings(old.conditions, findings, version.metadata.generation, now)
    is_promoted = found.loaded and promotion(version, seen.versions, seen.tests)
    wanted = engine.deployment.wanted_replicas if engine and engine.deployment else 1
    acted_upon = found.loaded or version.spec.state is not RequestedState.DEPLOYED
    return old.model_copy(
        update={
            "observed_generation": version.metadata.generation,
            "state": found.state,
            "message": shortened(_message(version, found, seen)),
            "replicas": f"{found.loaded_pods}/{wanted}" if engine else None,
            "ready_replicas": found.loaded_pods if engine else None,
            "selector": engine_selector(engine.name) if engine else None,
            "engine": engine.name if engine else None,
            "next_engine": wanted_engine(version) if found.ahead else None,
            "served_name": version.metadata.name if engine else None,
            "promoted_at": now if is_promoted else old.promoted_at,
            "metrics": version_metrics(version, seen.tests, seen.ratings),
            "observed_state": version.spec.state if acted_upon else old.observed_state,
            "conditions": conditions,
        }
    )


def _base_engine(version: ModelVersion, seen: Observed, found: Outlook) -> str | NotServed | None:
    """Of a version that answers from the engine that its spec asks for, since only there it is measured."""
    is_settled = found.loaded and found.ahead is None
    return base_engine(version, wanted_engine(version), seen.versions) if is_settled else None


def _findings(version: ModelVersion, found: Outlook) -> Iterable[Finding | Absent]:
    settled = found.loaded or version.spec.serving is None or found.state is State.ARCHIVED
    yield Finding("Loaded", found.loaded, found.reason, found.message)
    yield Finding("Ready", settled, found.reason, found.message)
    verdict = judgement(version.spec, current_evaluation(version))
    yield (
        Finding("EvaluationPassed", verdict.passed, verdict.reason, verdict.message)
        if verdict
        else Absent("EvaluationPassed")
    )
    goal = found.ahead or found
    if goal.refused:
        yield Finding("Stalled", True, goal.refused.reason, goal.refused.message)
    else:
        yield Finding("Stalled", True, goal.reason, goal.message) if goal.stalled else Absent("Stalled")
    working = (not settled or found.ahead) and not goal.stalled
    yield Finding("Reconciling", True, goal.reason, goal.message) if working else Absent("Reconciling")


def _message(version: ModelVersion, found: Outlook, seen: Observed) -> str:
    """Of a version that answers, also why it does so with its former parameters, or under its own name alone."""
    words = [found.message]
    if found.ahead:
        words.append(f"still served with its former parameters: {found.ahead.message}")
    verdict = judgement(version.spec, current_evaluation(version))
    if found.loaded and version.spec.state is None:
        if version.status.promoted_at is None and verdict and not verdict.passed:
            words.append(f"held back from promotion: {verdict.message}")
        elif reason := unheeded(version, seen.versions, seen.tests):
            words.append(reason)
    return "; ".join(words)
