"""Which version of a family is active, as each version tells it: state, history and events."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.managers import manager_of
from finetune_operator.core.routing import INACTIVE_STATES, NEVER, active_version, is_loaded
from finetune_operator.manifests.common import OPERATOR_NAME
from finetune_operator.reconcile.engine_sharing import Engine, answers
from finetune_operator.reconcile.plan import Event
from finetune_operator.reconcile.promotion import Cause, promotion
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import Promotion
from finetune_operator.resources.modelversion import (
    HISTORY_MAX_ENTRIES,
    HistoryEntry,
    ModelVersion,
    ModelVersionStatus,
    RequestedState,
    State,
)

CAUSE_MAX_CHARACTERS = 256
"""As the schema has it: messages of kubelet and vLLM have any length."""


def held_back_event(version: ModelVersion, status: ModelVersionStatus) -> tuple[Event, ...]:
    """Once, when a version turns out to be held back."""
    present, before = (
        find(conditions, "EvaluationPassed") for conditions in (status.conditions, version.status.conditions)
    )
    if present is None or present.status is not ConditionStatus.FALSE or (before and before.status == present.status):
        return ()
    return (
        Event("Warning", present.reason, f"{version.metadata.name} is held back from promotion: {present.message}"),
    )


def with_activity(
    version: ModelVersion,
    versions: Sequence[ModelVersion],
    tests: Sequence[ABTest],
    status: ModelVersionStatus,
    engine: Engine | None,
    now: datetime,
) -> tuple[ModelVersionStatus, tuple[Event, ...]]:
    """Deployed or Ready, and the history of it, from the same rule by which the gateway routes."""
    present = version.model_copy(update={"status": status})
    model, name = version.spec.model, version.metadata.name
    others = [v for v in versions if v.spec.model == model and v.metadata.name != name and not _is_lost_too(v, engine)]
    active = active_version((present, *others))
    is_active = active is not None and active.metadata.name == name
    was_active = bool(status.history) and status.history[-1].state is State.DEPLOYED
    if is_active:
        status = status.model_copy(update={"state": State.DEPLOYED})
    is_restarting = active is None and status.state is State.PENDING
    if is_active == was_active or (was_active and is_restarting):
        return _with_failure(version, status, active, now), _loaded_event(version, status)
    previous = next((v.metadata.name for v in others if v.status.state is State.DEPLOYED), None)
    cause = _why_active(version, status, others, tests) if is_active else _why_inactive(version, status, active)
    if active and not is_active and _has_failed(version, status):
        status = status.model_copy(update={"failed_over_at": now})
    status = _with_entry(status, cause, now, previous=previous if is_active else None)
    reason = "Deployed" if is_active else "Replaced"
    words = f"{name} {'is' if is_active else 'is no longer'} active: {cause.why}"
    return status, (Event("Normal", reason, words),)


def proven_at(version: ModelVersion, status: ModelVersionStatus, steady_seconds: float) -> datetime | None:
    """When a version that has failed over and answers again may be active as before, if nothing happens until then."""
    loaded = find(status.conditions, "Loaded")
    if version.status.failed_over_at is None or loaded is None or loaded.status is not ConditionStatus.TRUE:
        return None
    return loaded.last_transition_time + timedelta(seconds=steady_seconds)


def with_trust(
    version: ModelVersion, status: ModelVersionStatus, now: datetime, steady_seconds: float
) -> ModelVersionStatus:
    """A failure is forgotten once the version has proved steady, is promoted, or is to be active no more."""
    proven = proven_at(version, status, steady_seconds)
    is_promoted = status.promoted_at != version.status.promoted_at
    is_forgotten = is_promoted or version.spec.state in INACTIVE_STATES or (proven is not None and proven <= now)
    return status.model_copy(update={"failed_over_at": None}) if is_forgotten else status


def _has_failed(version: ModelVersion, status: ModelVersionStatus) -> bool:
    """In all its pods, rather than in a new one that has yet to load it; and not as its user wanted it."""
    is_wanted = version.spec.serving is not None and version.spec.state not in INACTIVE_STATES
    return is_wanted and not status.ready_replicas and not is_true(status.conditions, "Loaded")


def _is_lost_too(other: ModelVersion, engine: Engine | None) -> bool:
    """Its status does not tell yet, but the pods that both of them are in have been seen."""
    if engine is None or other.status.engine != engine.name:
        return False
    ready = (entry for entry in engine.pods if entry.pod.ready and not entry.pod.deleting)
    return not any(answers(other, engine, entry) for entry in ready)


def _with_entry(
    status: ModelVersionStatus, cause: Cause, now: datetime, previous: str | None = None
) -> ModelVersionStatus:
    state, why = status.state or State.PENDING, cause.why[:CAUSE_MAX_CHARACTERS]
    entry = HistoryEntry(time=now, state=state, who=cause.who, why=why, previous=previous)
    return status.model_copy(update={"history": (*status.history, entry)[-HISTORY_MAX_ENTRIES:]})


def _with_failure(
    version: ModelVersion, status: ModelVersionStatus, active: ModelVersion | None, now: datetime
) -> ModelVersionStatus:
    """Once, when what somebody wants to be live, or to be served otherwise, turns out to fail."""
    stalled, before = (find(conditions, "Stalled") for conditions in (status.conditions, version.status.conditions))
    spec = version.spec
    is_wanted = spec.state is RequestedState.DEPLOYED or (
        spec.state is None and (spec.promotion is Promotion.ALWAYS or status.promoted_at is not None)
    )
    if stalled is None or (before and before.reason == stalled.reason) or not (is_wanted or status.next_engine):
        return status
    stays = ""
    if active:
        as_before = " as before" if active.metadata.name == version.metadata.name else ""
        stays = f"{active.metadata.name} goes on answering{as_before}: "
    return _with_entry(status, Cause(f"{stays}{stalled.message}", OPERATOR_NAME), now)


def _why_active(
    version: ModelVersion, status: ModelVersionStatus, others: Sequence[ModelVersion], tests: Sequence[ABTest]
) -> Cause:
    if cause := promotion(version, (version, *others), tests):
        return cause
    if version.status.failed_over_at and status.failed_over_at is None:
        return Cause("it has answered without a break since it failed", OPERATOR_NAME)
    if not is_true(version.status.conditions, "Loaded"):
        return Cause("it is loaded again", OPERATOR_NAME)
    stamp = version.status.promoted_at or NEVER
    later = [v for v in others if (v.status.promoted_at or NEVER) > stamp]
    for rival in sorted(later, key=lambda v: v.status.promoted_at or NEVER, reverse=True):
        if rival.deleting:
            return Cause(f"{rival.metadata.name} is being deleted")
        if rival.spec.state in INACTIVE_STATES:
            return Cause(f"spec.state of {rival.metadata.name} is {rival.spec.state}", manager_of(rival, "state"))
        if not is_loaded(rival):
            return Cause(f"{rival.metadata.name} is not loaded: {rival.status.message or ''}", OPERATOR_NAME)
        if rival.status.failed_over_at:
            return Cause(f"{rival.metadata.name} has failed and not yet proved steady", OPERATOR_NAME)
    return Cause("the version promoted after it is no longer available")


def _why_inactive(version: ModelVersion, status: ModelVersionStatus, active: ModelVersion | None) -> Cause:
    if version.spec.state in INACTIVE_STATES:
        return Cause(f"spec.state is {version.spec.state}", manager_of(version, "state"))
    if active is None:
        return Cause(status.message or "", OPERATOR_NAME)
    name = active.metadata.name
    if not is_true(status.conditions, "Loaded"):
        return Cause(f"{name} is active, since this one is not loaded: {status.message or ''}", OPERATOR_NAME)
    if active.spec.state is RequestedState.DEPLOYED:
        return Cause(f"{name} is active", manager_of(active, "state"))
    history = active.status.history
    return Cause(f"{name} is active", history[-1].who if history and history[-1].state is State.DEPLOYED else None)


def _loaded_event(version: ModelVersion, status: ModelVersionStatus) -> tuple[Event, ...]:
    loaded, was_loaded = is_true(status.conditions, "Loaded"), is_true(version.status.conditions, "Loaded")
    stalled, was_stalled = find(status.conditions, "Stalled"), find(version.status.conditions, "Stalled")
    if loaded and not was_loaded:
        return (Event("Normal", "Loaded", f"{version.metadata.name} is loaded in {status.replicas} engine pods"),)
    if loaded and status.engine != version.status.engine:
        words = f"{version.metadata.name} is served by {status.engine}, as spec.serving asks for now"
        return (Event("Normal", "Moved", words),)
    if stalled and not was_stalled:
        return (Event("Warning", stalled.reason, stalled.message),)
    return ()
