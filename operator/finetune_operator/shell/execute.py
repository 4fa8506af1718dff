"""All writes: a plan's actions, one status write if it changed, then its events."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from finetune_operator.contract.served_evaluation import RecordedEvaluation
from finetune_operator.core.patches import merge_patch
from finetune_operator.core.workloads import deployment_facts
from finetune_operator.kube.errors import Conflict, KubeError, NotFound, Rejected
from finetune_operator.kube.paths import PLURALS
from finetune_operator.logs import get_logger
from finetune_operator.manifests.common import OPERATOR_NAME, REVISION_ANNOTATION
from finetune_operator.reconcile.plan import (
    Action,
    Apply,
    ApplyEngine,
    Create,
    Delete,
    Event,
    LoadAdapter,
    Patch,
    Plan,
    Probe,
    RecordEvaluation,
    UnloadAdapter,
    lanes,
)
from finetune_operator.resources.common import API_VERSION, Resource
from finetune_operator.shell.engines import Engines, EngineUnavailable
from finetune_operator.shell.state import ClusterState

logger = get_logger(__name__)


class Cluster(Protocol):
    """The part of `KubeClient` that plans need: no list, no watch."""

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]: ...

    async def create(self, plural: str, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def apply(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], field_manager: str
    ) -> dict[str, Any]: ...

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> dict[str, Any]: ...

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None: ...


class Records(Protocol):
    """The part of `Api` that plans need; `recorded` tells of which evaluation it has acknowledged which measuring."""

    recorded: dict[str, datetime]

    async def record(self, identity: str, evaluation: RecordedEvaluation) -> None: ...


class ChildRejected(Rejected):
    """The API server takes no child of this body."""

    def __init__(self, error: Rejected, plural: str, body: Mapping[str, Any]) -> None:
        super().__init__(str(error), error.status, error.retry_after_seconds)
        self.plural = plural
        self.body = body


class StatusRejected(Rejected):
    """The API server takes no status like this, which no user can change."""

    def __init__(self, error: Rejected) -> None:
        super().__init__(str(error), error.status, error.retry_after_seconds)


class Done(NamedTuple):
    """What came of actions."""

    changed: bool
    put_off: EngineUnavailable | ChildRejected | None


class Applying(NamedTuple):
    """An engine's children on their way to the API server."""

    revision: str
    task: asyncio.Task[None]


@dataclass(frozen=True)
class Executor:
    """Where plans are carried out."""

    client: Cluster
    state: ClusterState
    engines: Engines
    records: Records
    _applying: dict[tuple[str, str], Applying] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By namespace and engine."""

    async def execute(self, resource: Resource, old_status: dict[str, object], plan: Plan) -> bool:
        """Raises what the API server or an engine answered. True when an action may have changed what is observed.

        One engine pod that can't load now keeps neither the others nor the status waiting, nor does a child that is not
        vital.
        """
        own, *pods = lanes(plan.actions)
        outcomes = await asyncio.gather(
            self._recorded(resource, own, old_status, plan),
            *(self._in_order(resource, lane) for lane in pods),
            return_exceptions=True,
        )
        done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for other in failures[1:]:
            logger.error("another action failed, too", name=resource.metadata.name, exc_info=other)
        if failures:
            raise failures[0]
        for each in done:
            if each.put_off:
                raise each.put_off
        return any(each.changed for each in done)

    async def _recorded(
        self, resource: Resource, actions: Iterable[Action], old_status: dict[str, object], plan: Plan
    ) -> Done:
        done = await self._in_order(resource, actions)
        if plan.status is not None and (patch := merge_patch(old_status, plan.status)):
            await self._write_status(resource, patch)
        for event in plan.events:
            await self._emit(resource, event)
        return done

    async def _in_order(self, resource: Resource, actions: Iterable[Action]) -> Done:
        changed = False
        put_off: EngineUnavailable | ChildRejected | None = None
        for action in actions:
            try:
                changed |= await self._act(resource, action)
            except EngineUnavailable as error:
                put_off = error
            except ChildRejected as error:
                if not isinstance(action, Create) or action.is_vital:
                    raise
                put_off = error
        return Done(changed, put_off)

    async def _act(self, resource: Resource, action: Action) -> bool:
        """Whether it may have changed what is observed."""
        namespace = resource.metadata.namespace
        match action:
            case Create():
                await self._create(namespace, action)
            case Apply():
                await self._apply(namespace, action)
            case ApplyEngine():
                return await self._apply_engine(namespace, action)
            case Patch(plural, name, body):
                self._remember(plural, await self.client.merge_patch(plural, namespace, name, body))
            case Delete():
                return await self._delete(namespace, action)
            case LoadAdapter(pod_uid, pod_ip, adapter):
                await self.engines.load(pod_uid, pod_ip, adapter)
            case UnloadAdapter(pod_uid, pod_ip, name):
                await self.engines.unload(pod_uid, pod_ip, name)
            case Probe(pod_uid, pod_ip, name):
                await self.engines.probe(pod_uid, pod_ip, name)
            case RecordEvaluation(identity, evaluation):
                # An api that did not answer has changed nothing: it is told again when the version's turn comes.
                await self.records.record(identity, evaluation)
                return self.records.recorded.get(identity) == evaluation.measured_at
        return True

    async def _apply(self, namespace: str, action: Apply) -> None:
        name = action.body["metadata"]["name"]
        try:
            applied = await self.client.apply(action.plural, namespace, name, action.body, OPERATOR_NAME)
        except Rejected as error:
            raise ChildRejected(error, action.plural, action.body) from error
        self._remember(action.plural, applied)

    async def _apply_engine(self, namespace: str, action: ApplyEngine) -> bool:
        """Versions that share it come to the same at once: the first one does it, and what comes of it is for all."""
        key = namespace, action.name
        while other := self._applying.get(key):
            await asyncio.wait({other.task})
            if other.revision == action.revision:
                other.task.result()
                return False
        known = self.state.get("deployments", namespace, action.name)
        if known and deployment_facts(known, REVISION_ANNOTATION).revision == action.revision:
            return False
        own = Applying(action.revision, asyncio.create_task(self._apply_all(namespace, action.children)))
        self._applying[key] = own
        try:
            await own.task
        finally:
            del self._applying[key]
        return True

    async def _apply_all(self, namespace: str, children: Iterable[Apply]) -> None:
        for child in children:
            await self._apply(namespace, child)

    async def _create(self, namespace: str, action: Create) -> None:
        """A child that is there already is success if it is ours; a ModelVersion is ours by its lineage."""
        name = action.body["metadata"]["name"]
        try:
            try:
                made = await self.client.create(action.plural, namespace, action.body)
            except Conflict:
                made = await self.client.get(action.plural, namespace, name)
                owners = {owner["uid"] for owner in made["metadata"].get("ownerReferences", [])}
                lineage = made.get("spec", {}).get("lineage", {}).get("jobUid")
                self._remember(action.plural, made)
                if action.owner_uid not in owners and lineage != action.owner_uid:
                    raise
        except Rejected as error:
            raise ChildRejected(error, action.plural, action.body) from error
        self._remember(action.plural, made)

    async def _delete(self, namespace: str, action: Delete) -> bool:
        known = self.state.get(action.plural, namespace, action.name)
        metadata = known["metadata"] if known else {}
        if metadata.get("uid") == action.uid and "deletionTimestamp" in metadata:
            # What a finalizer holds goes no sooner if told again.
            return False
        for patch in action.before:
            try:
                await self.client.merge_patch(patch.plural, namespace, patch.name, patch.body)
            except (NotFound, Rejected) as error:
                # Tidiness must not keep the GPUs of what goes.
                logger.info("not given to what goes", kind=patch.plural, name=patch.name, error=str(error))
        try:
            await self.client.delete(action.plural, namespace, action.name, action.uid)
        except NotFound:
            gone = {"metadata": {"namespace": namespace, "name": action.name, "uid": action.uid}}
            self.state.forget(action.plural, gone)
        return True

    async def _write_status(self, resource: Resource, patch: dict[str, object]) -> None:
        """Conditional on what was read: a decision on an old state is refused and made anew."""
        metadata = resource.metadata
        plural = PLURALS[resource.kind]
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "status": patch}
        try:
            written = await self.client.merge_patch(plural, metadata.namespace, metadata.name, body, "status")
        except Rejected as error:
            raise StatusRejected(error) from error
        self._remember(plural, written)

    def _remember(self, plural: str, body: dict[str, object]) -> None:
        if plural not in ("configmaps", "services"):
            self.state.see(plural, body)

    async def _emit(self, resource: Resource, event: Event) -> None:
        """Best effort, as everywhere in Kubernetes: the condition is the record."""
        now = datetime.now(UTC)
        metadata = resource.metadata
        time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata.name}.{int(now.timestamp() * 1e6):x}", "namespace": metadata.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": resource.kind,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "source": {"component": OPERATOR_NAME},
            "reportingComponent": OPERATOR_NAME,
            "reportingInstance": OPERATOR_NAME,
        }
        try:
            await self.client.create("events", metadata.namespace, body)
        except KubeError as error:
            logger.warning("an event was lost", reason=event.reason, error=str(error))
