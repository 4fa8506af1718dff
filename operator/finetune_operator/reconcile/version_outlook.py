"""How a version stands in an engine, and what is in its way."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from finetune_operator.contract.artifacts import WeightsRefused
from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import ENGINE_CONTAINER, FETCH_CONTAINER
from finetune_operator.core.conditions import find
from finetune_operator.core.merged_weights import is_merged_engine
from finetune_operator.core.workloads import (
    PROGRESS_DEADLINE_EXCEEDED,
    UNSCHEDULABLE,
    keeps_its_cause,
    last_line,
    obstacle,
)
from finetune_operator.reconcile.engine_sharing import (
    Engine,
    EnginePod,
    Refusal,
    Versions,
    active_names,
    answers,
    answers_in,
    is_refused,
)
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import ModelVersion, RequestedState, State


@dataclass(frozen=True)
class Outlook:
    """How a version stands in its engine, before it becomes a status."""

    state: State
    reason: str
    message: str
    loaded: bool = False
    loaded_pods: int = 0
    stalled: bool = False
    ahead: "Outlook | None" = None
    """How it stands in the engine that it is being moved to."""
    refused: Refusal | None = None
    """By a pod that takes no requests, while others of the engine answer."""


ARCHIVED = Outlook(State.ARCHIVED, "Archived", "spec.state is Archived")


def registered(version: ModelVersion) -> Outlook:
    """Of a version that no engine is asked for."""
    artifact = version.spec.artifact
    message = "registered only; set spec.serving to serve it"
    if artifact.base_url:
        message = f"registered only; answers as {artifact.uri.removeprefix('openai://')} at {artifact.base_url}"
    return Outlook(State.READY, "Registered", message)


def without_slot(version: ModelVersion, slots: int, residents: Versions) -> Outlook:
    """Of a version that its engine is not to have: it was refused, or others come first."""
    stalled = find(version.status.conditions, "Stalled")
    if stalled and is_refused(version):
        return Outlook(State.FAILED, stalled.reason, stalled.message, stalled=True)
    names = ", ".join(other.metadata.name for other in residents)
    return Outlook(
        State.PENDING,
        "EngineFull",
        f"all {slots} slots are taken by {names}: archive one, or raise spec.serving.maxLoras",
    )


def moving(version: ModelVersion, here: Outlook, there: Outlook, engine: Engine, needed: str | None = None) -> Outlook:
    """It answers from `here` until it does from all pods that `there`, in the next engine, are to be.

    A single one would be asked all that its predecessors answered together. Only what is `there` can be final. It is
    also kept by what its former engine is `needed` for. Pods without a Deployment are what is left of a former one.
    """
    wanted = engine.deployment.wanted_replicas if engine.deployment else 1
    is_there = there.loaded and (there.loaded_pods >= wanted or not here.loaded)
    is_there = is_there and (engine.deployment is not None or not here.loaded)
    if is_there and needed and here.loaded:
        return replace(here, ahead=Outlook(State.PENDING, "BaseModelNeeded", needed))
    if is_there:
        return there
    if there.loaded:
        message = f"{there.loaded_pods} of {wanted} engine pods answer for it"
        cause = Outlook(State.PENDING, "Loading", message)
        if there.refused:
            cause = Outlook(State.PENDING, there.refused.reason, f"{message}, one refuses it: {there.refused.message}")
        there = _overdue(version, engine, cause)
    return replace(here, stalled=False, ahead=there)


def outlook(version: ModelVersion, engine: Engine, spare: tuple[str, ...] = ()) -> Outlook:
    """Of a version that the engine is to have; the engines of the `spare` versions might make room for it."""
    adapter, weights = (None, None) if _is_edited(version) else _refusals(version, engine)
    final = adapter or (weights if _is_final(version, engine) else None)
    if final:
        return Outlook(State.FAILED, final.reason, final.message, stalled=True)
    ready = [entry for entry in engine.pods if entry.pod.ready and not entry.pod.deleting]
    loaded = [entry for entry in ready if answers(version, engine, entry)]
    if ready and len(loaded) == len(ready):
        message = "every engine pod answers for it"
        if weights:
            message = f"every engine pod that is ready answers for it; another one refuses it: {weights.message}"
        return Outlook(State.READY, "Loaded", message, loaded=True, loaded_pods=len(loaded), refused=weights)
    if failures := [entry.failing[name] for entry in ready if (name := version.metadata.name) in entry.failing]:
        return Outlook(State.PENDING, "LoadFailing", failures[0], loaded_pods=len(loaded))
    if ready:
        message = f"loaded in {len(loaded)} of {len(ready)} engine pods"
        return Outlook(State.PENDING, "Loading", message, loaded_pods=len(loaded))
    cause = Outlook(State.PENDING, weights.reason, weights.message) if weights else _starting(version, engine)
    return _overdue(version, engine, cause, spare)


def _refusals(version: ModelVersion, engine: Engine) -> tuple[Refusal | None, Refusal | None]:
    """The first one of the adapter, by a pod that is ready and would be asked for it, and the first one of merged
    weights, by a pod that has ended over them, or is only trying again."""
    adapters = (entry.refused.get(version.metadata.name) for entry in engine.pods)
    weights = (_refused_weights(entry) for entry in engine.pods)
    return next(filter(None, adapters), None), next(filter(None, weights), None)


def _is_final(version: ModelVersion, engine: Engine) -> bool:
    """Whether merged weights that one pod refuses are refused for good: by each pod that has come so far.

    One pod's refusal may be of its node, its image or its moment: it takes nothing away from those that answer, or did
    until a moment ago.
    """
    if answers_in(version, engine.name):
        return False
    here = [entry for entry in engine.pods if not entry.pod.deleting]
    started = [
        entry for entry in here if _is_running(entry) or entry.pod.container(ENGINE_CONTAINER).exit_code is not None
    ]
    return all(_refused_weights(entry) and not _is_running(entry) for entry in started)


def _is_running(entry: EnginePod) -> bool:
    return entry.pod.container(ENGINE_CONTAINER).running


def _refused_weights(entry: EnginePod) -> Refusal | None:
    """Of a server of merged weights, which says so and ends before it becomes vLLM; one that is ready took them."""
    container = entry.pod.container(ENGINE_CONTAINER)
    if entry.pod.deleting or entry.pod.ready or not container.exit_code:
        return None
    try:
        refused = WeightsRefused.model_validate_json(container.message)
    except ValidationError:
        return None
    return Refusal(refused.reason, refused.message)


def _is_edited(version: ModelVersion) -> bool:
    """A new spec deserves a new try, whatever was refused before."""
    return version.status.observed_generation not in (None, version.metadata.generation)


def spare_versions(version: ModelVersion, versions: Versions, tests: Iterable[ABTest]) -> tuple[str, ...]:
    """Others with an engine of merged weights each, which nobody pinned, nor any model or test needs."""
    needed = set(active_names(versions)) | {version.metadata.name}
    for test in tests:
        if not test.deleting and test.status.verdict is None:
            needed |= {test.spec.candidate.model_version, test.spec.baseline.model_version or ""}
    return tuple(
        other.metadata.name
        for other in versions
        if other.metadata.name not in needed
        and other.spec.state not in (RequestedState.ARCHIVED, RequestedState.DEPLOYED)
        and is_merged_engine(other.status.engine or "")
    )


def _overdue(version: ModelVersion, engine: Engine, cause: Outlook, spare: tuple[str, ...] = ()) -> Outlook:
    """The Deployment keeps the time, and goes on trying: a quota, a node or the end of a long download may yet come."""
    if engine.deployment is None or not engine.deployment.deadline_exceeded:
        return cause
    limit = engine.deployment.progress_deadline_seconds
    fact = f"engine {engine.name} was not ready within progressDeadlineSeconds ({limit} s): {cause.reason}: "
    told = find(version.status.conditions, "Stalled")
    if told and told.message.startswith(fact):
        # Of one cause some kubelets say more while they try than while they wait.
        return Outlook(State.FAILED, PROGRESS_DEADLINE_EXCEEDED, told.message, stalled=True)
    remedy = "mend that, or change spec.serving"
    if version.status.engine not in (None, engine.name):
        remedy += "; where there is no room for both engines, spec.state Archived frees that of the former one"
    if spare and cause.reason == UNSCHEDULABLE:
        remedy += f"; archiving {', '.join(spare)}, active nowhere, frees an engine each"
    message = f"{fact}{cause.message}: it is tried on; {remedy}"
    return Outlook(State.FAILED, PROGRESS_DEADLINE_EXCEEDED, message, stalled=True)


def _starting(version: ModelVersion, engine: Engine) -> Outlook:
    """Why no pod is ready."""
    if fetching := _fetching(engine.pods):
        return fetching
    deployment = engine.deployment
    if deployment and deployment.progress_failure and not deployment.deadline_exceeded:
        return Outlook(State.PENDING, "EngineNotProgressing", deployment.progress_failure)
    if problem := obstacle(entry.pod for entry in engine.pods):
        told = find(version.status.conditions, "Reconciling")
        return Outlook(
            State.PENDING, problem[0], told.message if told and keeps_its_cause(problem, told) else problem[1]
        )
    if crash := _crash(engine.pods):
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
                words = last_line(fetch.message) or f"fetch exited with {fetch.exit_code}"
                message = f"will be tried again: {words}"
                return Outlook(State.PENDING, "BaseModelUnavailable", message)
            return Outlook(State.PENDING, failure.reason.value, f"{failure.message}: {failure.remedy}")
    return None


def _crash(pods: Iterable[EnginePod]) -> str | None:
    for entry in pods:
        for container in entry.pod.containers.values():
            if container.exit_code and not container.running:
                cause = container.terminated_reason or "Error"
                words = last_line(container.message) or "see its log"
                return f"vLLM exited with {container.exit_code} ({cause}): {words}"
    return None
