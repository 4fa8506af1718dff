"""What a reconcile wants done: actions, then one status write, then events.

What the API server is asked for is done in its order, and so is what one engine pod is asked for; these are done at
once, since a pod that takes its time must keep nothing else waiting, nor the status that says what it does.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune_operator.contract.adapters import Adapter
from finetune_operator.contract.served_evaluation import RecordedEvaluation


@dataclass(frozen=True)
class Create:
    """Make a child with a deterministic name; that it exists already is success if it is ours."""

    plural: str
    body: dict[str, Any]
    owner_uid: str
    is_vital: bool = True
    """Whether the status is not to be written where the API server takes no such child."""


@dataclass(frozen=True)
class Apply:
    """Server-side apply of a child."""

    plural: str
    body: dict[str, Any]


@dataclass(frozen=True)
class ApplyEngine:
    """Apply all children of an engine, the Deployment last, unless a version that shares it has just done the same."""

    name: str
    revision: str
    """Of all children together; the Deployment carries it."""
    children: tuple[Apply, ...]


@dataclass(frozen=True)
class Patch:
    """Merge patch of a child."""

    plural: str
    name: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Delete:
    """Delete exactly this child; `before`, patches after which the garbage collector takes others along."""

    plural: str
    name: str
    uid: str
    before: tuple[Patch, ...] = ()
    """Of what is gone already, none is needed."""


@dataclass(frozen=True)
class LoadAdapter:
    """Load into one engine pod, check that it is listed, and ask it for one token."""

    pod_uid: str
    pod_ip: str
    adapter: Adapter


@dataclass(frozen=True)
class UnloadAdapter:
    """Take an adapter out of one engine pod."""

    pod_uid: str
    pod_ip: str
    name: str


@dataclass(frozen=True)
class Probe:
    """Ask one engine pod for a token of the model that it was started with."""

    pod_uid: str
    pod_ip: str
    name: str


@dataclass(frozen=True)
class RecordEvaluation:
    """Tell the api of one evaluation, which it keeps in the database; done again where it did not answer."""

    id: str
    evaluation: RecordedEvaluation


Action = Create | Apply | ApplyEngine | Patch | Delete | LoadAdapter | UnloadAdapter | Probe | RecordEvaluation


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the resource."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """The outcome of one reconcile. `status` is the whole new status; it is written only if it differs."""

    actions: tuple[Action, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = field(default=())
    requeue_after_seconds: float | None = None


def lanes(actions: Iterable[Action]) -> tuple[tuple[Action, ...], ...]:
    """What has to be done in order: that of the API server and the api, which may be nothing; that of each pod."""
    found: dict[str, list[Action]] = {"": []}
    for action in actions:
        pod_uid = action.pod_uid if isinstance(action, LoadAdapter | UnloadAdapter | Probe) else ""
        found.setdefault(pod_uid, []).append(action)
    return tuple(map(tuple, found.values()))
