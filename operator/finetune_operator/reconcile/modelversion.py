"""What the cluster should do next for one ModelVersion.

Versions that agree in base model and serving parameters share an engine. Each reconcile sees all versions of the
namespace, decides which ones the engine should have, and loads its own where it is missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import FETCH_CONTAINER
from finetune_operator.core.conditions import Absent, Finding, find, is_true, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.evaluation import judgement
from finetune_operator.core.workloads import DeploymentFacts, PodFacts, keeps_its_cause, obstacle
from finetune_operator.manifests.evaluation import current_evaluation
from finetune_operator.manifests.serving import adapter_of, engine_manifests, engine_name, engine_selector
from finetune_operator.reconcile.plan import Action, Apply, Delete, LoadAdapter, Plan, UnloadAdapter
from finetune_operator.reconcile.promotion import promotion, unheeded
from finetune_operator.reconcile.served_evaluation import (
    EvaluationFacts,
    evaluation_actions,
    evaluation_event,
    evaluation_finding,
    records,
    with_result,
)
from finetune_operator.reconcile.version_activity import held_back_event, with_activity
from finetune_operator.reconcile.version_metrics import version_metrics
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
class Refusal:
    """Why an engine would not take an adapter; final, since artifacts are immutable."""

    reason: str
    message: str


@dataclass(frozen=True)
class EnginePod:
    """An engine pod, and what is known of the adapters in it, by served name; `listed` has their directories.

    Not `listed` yet is no news.
    """

    pod: PodFacts
    listed: Mapping[str, str] | None = field(default_factory=dict)
    probed: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """What a reconcile may know of the world besides the resource itself."""

    versions: tuple[ModelVersion, ...] = ()
    deployment: DeploymentFacts | None = None
    former: DeploymentFacts | None = None
    """The engine that the version was in before its spec.serving was changed."""
    pods: tuple[EnginePod, ...] = ()
    tests: tuple[ABTest, ...] = ()
    evaluation: EvaluationFacts = field(default_factory=EvaluationFacts)


@dataclass(frozen=True)
class Outlook:
    """How this version stands in its engine, before it becomes a status."""

    state: State
    reason: str
    message: str
    loaded: bool = False
    loaded_pods: int = 0
    stalled: bool = False


def reconcile(version: ModelVersion, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan."""
    if version.deleting:
        return Plan()
    replicas = max(1, sum(entry.pod.ready for entry in seen.pods))
    version = with_result(version, seen.evaluation, replicas, now, config)
    serving = version.spec.serving
    if serving is None:
        outlook = _archived() if _is_archived(version) else Outlook(State.READY, "Registered", _registered(version))
        return _plan(version, seen, outlook, None, now, config, _leave_actions(version, seen))
    engine = engine_name(version.spec, serving)
    sharing = _sharing(engine, version, seen.versions)
    served = _served(sharing)
    actions = (
        *_leave_actions(version, seen),
        *_engine_actions(engine, served, sharing, seen, config),
        *_unload_actions(served, seen.pods),
    )
    if _is_archived(version):
        outlook = _archived()
        return _plan(version, seen, outlook, engine, now, config, actions)
    if version.metadata.name not in {other.metadata.name for other in served}:
        queued = _queued(version, serving.max_loras, served)
        return _plan(version, seen, queued, engine, now, config, actions)
    outlook = _outlook(version, seen)
    loads = () if outlook.stalled else _load_actions(version, seen.pods)
    return _plan(version, seen, outlook, engine, now, config, (*actions, *loads))


def refused(
    version: ModelVersion, versions: tuple[ModelVersion, ...], message: str, now: datetime, config: OperatorConfig
) -> Plan | None:
    """The API server takes no engine of such a spec; final until it is changed. What answers already goes on."""
    if is_true(version.status.conditions, "Loaded"):
        return None
    fact = f"the API server refused the engine: {message}: change spec.serving"
    outlook = Outlook(State.FAILED, "EngineRefused", fact, stalled=True)
    engine = engine_name(version.spec, version.spec.serving) if version.spec.serving else None
    return _plan(version, Observed(versions=versions), outlook, engine, now, config)


def _archived() -> Outlook:
    return Outlook(State.ARCHIVED, "Archived", "spec.state is Archived")


def _registered(version: ModelVersion) -> str:
    artifact = version.spec.artifact
    if artifact.base_url:
        return f"registered only; answers as {artifact.uri.removeprefix('openai://')} at {artifact.base_url}"
    return "registered only; set spec.serving to serve it"


def _sharing(engine: str, version: ModelVersion, versions: Iterable[ModelVersion]) -> tuple[ModelVersion, ...]:
    """All versions that name this engine, this one in its present form."""
    others = [v for v in versions if v.metadata.name != version.metadata.name and not v.deleting]
    found = [v for v in (version, *others) if v.spec.serving and engine_name(v.spec, v.spec.serving) == engine]
    return tuple(sorted(found, key=lambda v: (v.spec.model, v.spec.version)))


def _served(sharing: tuple[ModelVersion, ...]) -> tuple[ModelVersion, ...]:
    """As many as the engine has slots: the pinned, the last promoted, the loaded, the newest; the rest wait."""
    wanting = [v for v in sharing if not _is_archived(v) and not _is_refused(v)]
    if not wanting or wanting[0].spec.serving is None:
        return ()
    ranked = sorted(wanting, key=_rank, reverse=True)[: wanting[0].spec.serving.max_loras]
    return tuple(sorted(ranked, key=lambda v: (v.spec.model, v.spec.version)))


def _rank(version: ModelVersion) -> tuple[bool, float, bool, int]:
    promoted = version.status.promoted_at
    return (
        version.spec.state is RequestedState.DEPLOYED,
        promoted.timestamp() if promoted else 0.0,
        is_true(version.status.conditions, "Loaded"),
        version.spec.version,
    )


def _is_archived(version: ModelVersion) -> bool:
    return version.spec.state is RequestedState.ARCHIVED


def _is_refused(version: ModelVersion) -> bool:
    """Final while the spec stays as it is."""
    stalled = find(version.status.conditions, "Stalled")
    return stalled is not None and stalled.observed_generation == version.metadata.generation


def _engine_actions(
    engine: str,
    served: tuple[ModelVersion, ...],
    sharing: tuple[ModelVersion, ...],
    seen: Observed,
    config: OperatorConfig,
) -> tuple[Action, ...]:
    if not served:
        if seen.deployment is None:
            return ()
        return (Delete("deployments", engine, seen.deployment.uid),)
    config_map, service, deployment = engine_manifests(engine, served, sharing, config)
    revision = next(iter(deployment["metadata"]["annotations"].values()))
    if seen.deployment and seen.deployment.revision == revision:
        return ()
    return (Apply("configmaps", config_map), Apply("services", service), Apply("deployments", deployment))


def _leave_actions(version: ModelVersion, seen: Observed) -> tuple[Action, ...]:
    """The engine that the version has left goes, unless others stay in it: its GPU may be what the next one needs."""
    former = seen.former
    if former is None:
        return ()
    others = (v for v in seen.versions if v.metadata.name != version.metadata.name and not v.deleting)
    if any(v.spec.serving and engine_name(v.spec, v.spec.serving) == former.name for v in others):
        return ()
    return (Delete("deployments", former.name, former.uid),)


def _unload_actions(served: tuple[ModelVersion, ...], pods: tuple[EnginePod, ...]) -> tuple[Action, ...]:
    """Adapters that no served version names, or that a version of that name had before it was created anew."""
    wanted = {version.metadata.name: adapter_of(version).path for version in served}
    return tuple(
        UnloadAdapter(entry.pod.uid, entry.pod.ip, name)
        for entry in pods
        if entry.pod.ready and entry.pod.ip
        for name, directory in sorted((entry.listed or {}).items())
        if wanted.get(name) != directory
    )


def _load_actions(version: ModelVersion, pods: tuple[EnginePod, ...]) -> tuple[Action, ...]:
    adapter = adapter_of(version)
    return tuple(
        LoadAdapter(entry.pod.uid, entry.pod.ip, adapter)
        for entry in pods
        if entry.pod.ready and entry.pod.ip and not _answers(version, entry)
    )


def _answers(version: ModelVersion, entry: EnginePod) -> bool:
    """Listed, and asked for a token once; a listing is enough where an earlier operator had already asked.

    A pod that can't be asked just now is believed to be as it was: a busy engine must not lose its traffic.
    """
    name, was_loaded = version.metadata.name, is_true(version.status.conditions, "Loaded")
    if entry.listed is None:
        return was_loaded
    return entry.listed.get(name) == adapter_of(version).path and (name in entry.probed or was_loaded)


def _is_edited(version: ModelVersion) -> bool:
    """A new spec deserves a new try, whatever was refused before."""
    return version.status.observed_generation not in (None, version.metadata.generation)


def _queued(version: ModelVersion, slots: int, served: tuple[ModelVersion, ...]) -> Outlook:
    if _is_refused(version):
        stalled = find(version.status.conditions, "Stalled")
        reason, message = (stalled.reason, stalled.message) if stalled else ("Refused", "")
        return Outlook(State.FAILED, reason, message, stalled=True)
    names = ", ".join(other.metadata.name for other in served)
    return Outlook(
        State.PENDING,
        "EngineFull",
        f"all {slots} slots are taken by {names}: archive one, or raise spec.serving.maxLoras",
    )


def _outlook(version: ModelVersion, seen: Observed) -> Outlook:
    for entry in seen.pods:
        refusal = entry.refused.get(version.metadata.name)
        if refusal and not _is_edited(version):
            return Outlook(State.FAILED, refusal.reason, refusal.message, stalled=True)
    ready = [entry for entry in seen.pods if entry.pod.ready and not entry.pod.deleting]
    loaded = [entry for entry in ready if _answers(version, entry)]
    if ready and len(loaded) == len(ready):
        return Outlook(State.READY, "Loaded", "every engine pod answers for it", loaded=True, loaded_pods=len(loaded))
    if failures := [entry.failing[name] for entry in ready if (name := version.metadata.name) in entry.failing]:
        return Outlook(State.PENDING, "LoadFailing", failures[0], loaded_pods=len(loaded))
    if ready:
        message = f"loaded in {len(loaded)} of {len(ready)} engine pods"
        return Outlook(State.PENDING, "Loading", message, loaded_pods=len(loaded))
    if fetching := _fetching(seen.pods):
        return fetching
    if seen.deployment and seen.deployment.progress_failure:
        return Outlook(State.PENDING, "EngineNotProgressing", seen.deployment.progress_failure)
    if problem := obstacle(entry.pod for entry in seen.pods):
        told = find(version.status.conditions, "Loaded")
        return Outlook(
            State.PENDING, problem[0], told.message if told and keeps_its_cause(problem, told) else problem[1]
        )
    if crash := _crash(seen.pods):
        return Outlook(State.PENDING, "EngineCrashing", crash)
    return Outlook(State.PENDING, "EngineStarting", "no engine pod is ready yet")


def _fetching(pods: Iterable[EnginePod]) -> Outlook | None:
    """How the download of the base model stands; the kubelet tries it again and again, so it is never final."""
    facts = [entry.pod.container(FETCH_CONTAINER) for entry in pods if not entry.pod.deleting]
    if any(fetch.running for fetch in facts):
        return Outlook(State.PENDING, "DownloadingBaseModel", "the base model is being downloaded")
    for fetch in facts:
        if fetch.exit_code:
            try:
                failure = Failure.model_validate_json(fetch.message)
            except ValidationError:
                words = fetch.message.strip().splitlines()
                message = f"will be tried again: {words[-1] if words else f'fetch exited with {fetch.exit_code}'}"
                return Outlook(State.PENDING, "BaseModelUnavailable", message)
            return Outlook(State.PENDING, failure.reason.value, f"{failure.message}: {failure.remedy}")
    return None


def _crash(pods: Iterable[EnginePod]) -> str | None:
    for entry in pods:
        for container in entry.pod.containers.values():
            if container.exit_code and not container.running:
                words = container.message.strip().splitlines()
                cause = container.terminated_reason or "Error"
                return f"vLLM exited with {container.exit_code} ({cause}): {words[-1] if words else 'see its log'}"
    return None


def _plan(
    version: ModelVersion,
    seen: Observed,
    outlook: Outlook,
    engine: str | None,
    now: datetime,
    config: OperatorConfig,
    actions: tuple[Action, ...] = (),
) -> Plan:
    unrecorded, recorded = records(version, seen.evaluation, config)
    status = _status(version, seen, outlook, engine, now).model_copy(update={"recorded_evaluations": recorded})
    status, events = with_activity(version, seen.versions, seen.tests, status, now)
    events = (*evaluation_event(version, status), *held_back_event(version, status), *events)
    evaluations = evaluation_actions(version, seen.evaluation, config, loaded=outlook.loaded)
    # No watch tells of an adapter that vanishes from an engine, hence a look now and then.
    check = ENGINE_CHECK_SECONDS if seen.pods else RECORD_AGAIN_SECONDS if unrecorded else None
    return Plan(
        actions=(*actions, *evaluations, *unrecorded),
        status=status.to_dict(),
        events=events,
        requeue_after_seconds=check,
    )


def _status(
    version: ModelVersion, seen: Observed, outlook: Outlook, engine: str | None, now: datetime
) -> ModelVersionStatus:
    old = version.status
    findings = (*_findings(version, outlook), evaluation_finding(version, seen.evaluation, loaded=outlook.loaded))
    conditions = with_findings(old.conditions, findings, version.metadata.generation, now)
    is_promoted = outlook.loaded and promotion(version, seen.versions, seen.tests)
    wanted = seen.deployment.wanted_replicas if seen.deployment else 1
    acted_upon = outlook.loaded or version.spec.state is not RequestedState.DEPLOYED
    return old.model_copy(
        update={
            "observed_generation": version.metadata.generation,
            "state": outlook.state,
            "message": shortened(_message(version, outlook, seen)),
            "replicas": f"{outlook.loaded_pods}/{wanted}" if engine else None,
            "ready_replicas": outlook.loaded_pods if engine else None,
            "selector": engine_selector(engine) if engine else None,
            "engine": engine,
            "served_name": version.metadata.name if engine else None,
            "promoted_at": now if is_promoted else old.promoted_at,
            "metrics": version_metrics(version, seen.tests),
            "observed_state": version.spec.state if acted_upon else old.observed_state,
            "conditions": conditions,
        }
    )


def _findings(version: ModelVersion, outlook: Outlook) -> Iterable[Finding | Absent]:
    reason, message = outlook.reason, outlook.message
    settled = outlook.loaded or version.spec.serving is None or outlook.state is State.ARCHIVED
    yield Finding("Loaded", outlook.loaded, reason, message)
    yield Finding("Ready", settled, reason, message)
    verdict = judgement(version.spec, current_evaluation(version))
    yield (
        Finding("EvaluationPassed", verdict.passed, verdict.reason, verdict.message)
        if verdict
        else Absent("EvaluationPassed")
    )
    yield Finding("Stalled", True, reason, message) if outlook.stalled else Absent("Stalled")
    working = not settled and not outlook.stalled
    yield Finding("Reconciling", True, reason, message) if working else Absent("Reconciling")


def _message(version: ModelVersion, outlook: Outlook, seen: Observed) -> str:
    """Of a version that answers, why it does so under its own name alone."""
    verdict = judgement(version.spec, current_evaluation(version))
    undecided = version.spec.state is None and version.status.promoted_at is None
    if outlook.loaded and undecided and verdict and not verdict.passed:
        return f"{outlook.message}; held back from promotion: {verdict.message}"
    if outlook.loaded and version.spec.state is None and (reason := unheeded(version, seen.versions, seen.tests)):
        return f"{outlook.message}; {reason}"
    return outlook.message
