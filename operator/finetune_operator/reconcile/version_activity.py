"""Which version of a family is active, as each version tells it: state, history and events."""

from collections.abc import Sequence
from datetime import datetime

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.routing import active_version
from finetune_operator.reconcile.plan import Event
from finetune_operator.reconcile.promotion import promotion
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.modelversion import (
    HISTORY_MAX_ENTRIES,
    HistoryEntry,
    ModelVersion,
    ModelVersionStatus,
    RequestedState,
    State,
)

CAUSE_MAX_CHARACTERS = 256


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
    now: datetime,
) -> tuple[ModelVersionStatus, tuple[Event, ...]]:
    """Deployed or Ready, and the history of it, from the same rule by which the gateway routes."""
    present = version.model_copy(update={"status": status})
    others = [v for v in versions if v.metadata.name != version.metadata.name]
    family = [v for v in (present, *others) if v.spec.model == version.spec.model]
    active = active_version(family)
    is_active = active is not None and active.metadata.name == version.metadata.name
    was_active = bool(status.history) and status.history[-1].state is State.DEPLOYED
    if is_active:
        status = status.model_copy(update={"state": State.DEPLOYED})
    is_restarting = active is None and status.state is State.PENDING
    if is_active == was_active or (was_active and is_restarting):
        return status, _loaded_event(version, status)
    previous = next((v.metadata.name for v in others if v.status.state is State.DEPLOYED), None)
    why = _why_active(version, versions, tests) if is_active else _why_inactive(version, status, active)
    entry = HistoryEntry(
        time=now, state=status.state or State.PENDING, why=why, previous=previous if is_active else None
    )
    history = (*status.history, entry)[-HISTORY_MAX_ENTRIES:]
    reason = "Deployed" if is_active else "Replaced"
    event = Event("Normal", reason, f"{version.metadata.name} {'is' if is_active else 'is no longer'} active: {why}")
    return status.model_copy(update={"history": history}), (event,)


def _why_active(version: ModelVersion, versions: Sequence[ModelVersion], tests: Sequence[ABTest]) -> str:
    if cause := promotion(version, versions, tests):
        return cause
    if is_true(version.status.conditions, "Loaded"):
        return "the version promoted after it is no longer available"
    return "it is loaded again"


def _why_inactive(version: ModelVersion, status: ModelVersionStatus, active: ModelVersion | None) -> str:
    if version.spec.state in (RequestedState.READY, RequestedState.ARCHIVED):
        return f"spec.state is {version.spec.state}"
    return f"{active.metadata.name} is active" if active else (status.message or "")[:CAUSE_MAX_CHARACTERS]


def _loaded_event(version: ModelVersion, status: ModelVersionStatus) -> tuple[Event, ...]:
    loaded, was_loaded = is_true(status.conditions, "Loaded"), is_true(version.status.conditions, "Loaded")
    stalled, was_stalled = find(status.conditions, "Stalled"), find(version.status.conditions, "Stalled")
    if loaded and not was_loaded:
        return (Event("Normal", "Loaded", f"{version.metadata.name} is loaded in {status.replicas} engine pods"),)
    if stalled and not was_stalled:
        return (Event("Warning", stalled.reason, stalled.message),)
    return ()
