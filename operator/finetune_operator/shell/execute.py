"""All writes: a plan's actions in order, one status write if it changed, then its events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from finetune_operator.contract.served_evaluation import RecordedEvaluation
from finetune_operator.core.patches import merge_patch
from finetune_operator.kube.errors import Conflict, KubeError, NotFound, Rejected
from finetune_operator.kube.paths import PLURALS
from finetune_operator.logs import get_logger
from finetune_operator.manifests.common import OPERATOR_NAME
from finetune_operator.reconcile.plan import (
    Action,
    Apply,
    Create,
    Delete,
    Event,
    LoadAdapter,
    Patch,
    Plan,
    Probe,
    RecordEvaluation,
    UnloadAdapter,
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


@dataclass(frozen=True)
class Executor:
    """Where plans are carried out."""

    client: Cluster
    state: ClusterState
    engines: Engines
    records: Records

    async def execute(self, resource: Resource, old_status: dict[str, object], plan: Plan) -> bool:
        """Raises what the API server or an engine answered. True when an action may have changed what is observed.

        One engine pod that can't load now keeps neither the others nor the status waiting, nor does a child that is not
        vital.
        """
        put_off: EngineUnavailable | ChildRejected | None = None
        actions = tuple(action for action in plan.actions if not self._is_going(resource, action))
        for action in actions:
            try:
                await self._act(resource, action)
            except EngineUnavailable as error:
                put_off = error
            except Rejected as error:
                if not isinstance(action, Create | Apply):
                    raise
                rejected = ChildRejected(error, action.plural, action.body)
                if isinstance(action, Apply) or action.is_vital:
                    raise rejected from error
                put_off = rejected
        if plan.status is not None and (patch := merge_patch(old_status, plan.status)):
            await self._write_status(resource, patch)
        for event in plan.events:
            await self._emit(resource, event)
        if put_off:
            raise put_off
        return any(self._has_changed(action) for action in actions)

    def _has_changed(self, action: Action) -> bool:
        """An api that did not answer has changed nothing: it is told again when the version's turn comes."""
        if not isinstance(action, RecordEvaluation):
            return True
        return self.records.recorded.get(action.id) == action.evaluation.measured_at

    def _is_going(self, resource: Resource, action: Action) -> bool:
        """Whether it is a deletion that goes on already: what a finalizer holds goes no sooner if told again."""
        if not isinstance(action, Delete):
            return False
        known = self.state.get(action.plural, resource.metadata.namespace, action.name)
        metadata = known["metadata"] if known else {}
        return metadata.get("uid") == action.uid and "deletionTimestamp" in metadata

    async def _act(self, resource: Resource, action: Action) -> None:
        namespace = resource.metadata.namespace
        match action:
            case Create():
                await self._create(namespace, action)
            case Apply(plural, body):
                applied = await self.client.apply(plural, namespace, body["metadata"]["name"], body, OPERATOR_NAME)
                self._remember(plural, applied)
            case Patch(plural, name, body):
                self._remember(plural, await self.client.merge_patch(plural, namespace, name, body))
            case Delete(plural, name, uid, before):
                for patch in before:
                    try:
                        await self.client.merge_patch(patch.plural, namespace, patch.name, patch.body)
                    except (NotFound, Rejected) as error:
                        # Tidiness must not keep the GPUs of what goes.
                        logger.info("not given to what goes", kind=patch.plural, name=patch.name, error=str(error))
                await self._delete(plural, namespace, name, uid)
            case LoadAdapter(pod_uid, pod_ip, adapter):
                await self.engines.load(pod_uid, pod_ip, adapter)
            case UnloadAdapter(pod_uid, pod_ip, name):
                await self.engines.unload(pod_uid, pod_ip, name)
            case Probe(pod_uid, pod_ip, name):
                await self.engines.probe(pod_uid, pod_ip, name)
            case RecordEvaluation(identity, evaluation):
                await self.records.record(identity, evaluation)

    async def _create(self, namespace: str, action: Create) -> None:
        """A child that is there already is success if it is ours; a ModelVersion is ours by its lineage."""
        name = action.body["metadata"]["name"]
        try:
            made = await self.client.create(action.plural, namespace, action.body)
        except Conflict:
            made = await self.client.get(action.plural, namespace, name)
            owners = {owner["uid"] for owner in made["metadata"].get("ownerReferences", [])}
            lineage = made.get("spec", {}).get("lineage", {}).get("jobUid")
            self._remember(action.plural, made)
            if action.owner_uid not in owners and lineage != action.owner_uid:
                raise
        self._remember(action.plural, made)

    async def _delete(self, plural: str, namespace: str, name: str, uid: str) -> None:
        try:
            await self.client.delete(plural, namespace, name, uid)
        except NotFound:
            self.state.forget(plural, {"metadata": {"namespace": namespace, "name": name, "uid": uid}})

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
