"""Conditions per the Kubernetes API conventions: transition times move only when the status does."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.resources.common import Condition, ConditionStatus

MESSAGE_MAX_CHARACTERS = 4096


@dataclass(frozen=True)
class Finding:
    """What a reconcile found out about one condition; a status of `None` is Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Absent:
    """An abnormal-true condition that no longer holds and hence disappears."""

    type: str


def course_findings(
    reason: str, message: str, *, succeeded: bool | None, suspended: bool = False, failed: bool = False
) -> Iterable[Finding | Absent]:
    """Of what runs to an end: whether it has succeeded, None before its end; `failed` it has come to a bad one."""
    yield Finding("Succeeded", succeeded, reason, message)
    yield Finding("Ready", succeeded is True, reason, message)
    yield Finding("Suspended", True, reason, message) if suspended else Absent("Suspended")
    yield Finding("Stalled", True, reason, message) if failed else Absent("Stalled")
    working = succeeded is None and not suspended
    yield Finding("Reconciling", True, reason, message) if working else Absent("Reconciling")


def with_findings(
    conditions: Iterable[Condition], findings: Iterable[Finding | Absent], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions after these findings, in a stable order: known ones stay in place, new ones follow."""
    result = {condition.type: condition for condition in conditions}
    for finding in findings:
        if isinstance(finding, Absent):
            result.pop(finding.type, None)
            continue
        status = _status(finding.status)
        previous = result.get(finding.type)
        changed = previous is None or previous.status != status
        result[finding.type] = Condition(
            type=finding.type,
            status=status,
            reason=finding.reason,
            message=shortened(finding.message),
            last_transition_time=now if previous is None or changed else previous.last_transition_time,
            observed_generation=generation,
        )
    return tuple(result.values())


def shortened(message: str) -> str:
    """What the schema takes; messages of kubelet, scheduler and vLLM have any length."""
    return message[:MESSAGE_MAX_CHARACTERS]


def _status(value: bool | None) -> ConditionStatus:
    return {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[value]


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, if it was ever set."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether the condition is set and True."""
    condition = find(conditions, type_)
    return condition is not None and condition.status is ConditionStatus.TRUE
