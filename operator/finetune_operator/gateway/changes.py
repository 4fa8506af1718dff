"""`POST /v1/models/switch` and `/v1/models/load`: one patch of a ModelVersion, by the rights of who asks.

The caller's own Kubernetes token goes to the API server, so that RBAC decides here as it does for kubectl, and the
gateway itself can change nothing. Asking twice is harmless: both say what shall be, not what shall be done.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.core.decimals import BoundedDecimal
from finetune_operator.core.routing import RouteTable, Split, is_fresh_pin, is_loaded, rival_pins
from finetune_operator.core.version_changes import PIN, UNPIN, serving_fields
from finetune_operator.gateway.errors import GatewayError, invalid_body, refused_change, unknown_model
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.kube.mirror import Source
from finetune_operator.kube.reviews import UNAUTHENTICATED, Creator, user_name
from finetune_operator.logs import get_logger
from finetune_operator.resources.modelversion import ModelVersion, RequestedState

SWITCH_PATH = "/v1/models/switch"
LOAD_PATH = "/v1/models/load"
PLURAL = "modelversions"
FIELD_MANAGER = "finetune-gateway"
"""Through what the API server remembers that callers write here: it is their decision and not the operator's."""

logger = get_logger(__name__)


class Patcher(Protocol):
    """The part of `KubeClient` that a change needs, with the rights of the caller."""

    async def merge_patch(self, plural: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]: ...


class Lent(Patcher, Creator, Protocol):
    """The part of `KubeClient` that writes, and tells who does."""


class Lender(Protocol):
    """The part of `KubeClient` that lends a caller's rights."""

    def on_behalf_of(self, token: str, field_manager: str, person: str | None = None) -> Lent: ...


class Cluster(Source, Lender, Protocol):
    """The part of `KubeClient` that the gateway needs: its own reading, and others' writing."""


class Caller:
    """A `Patcher` by whoever has this token; what it writes bears their name, as what they write through the api."""

    def __init__(self, cluster: Lender, token: str) -> None:
        self._cluster = cluster
        self._token = token
        self._named: Patcher | None = None

    async def merge_patch(self, plural: str, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._named = self._named or await self._with_name()
        return await self._named.merge_patch(plural, namespace, name, body)

    async def _with_name(self) -> Patcher:
        """Asked of the API server just before the first write. A name that can't be had keeps nobody from a rollback;
        a token that is unknown does. Raises `KubeError`."""
        nameless = self._cluster.on_behalf_of(self._token, FIELD_MANAGER)
        try:
            person = await user_name(nameless)
        except KubeError as error:
            if error.status == UNAUTHENTICATED:
                raise
            logger.warning("the caller's name is unknown", error=str(error))
            return nameless
        return self._cluster.on_behalf_of(self._token, FIELD_MANAGER, person)


class _Order(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=200)]


class Switch(_Order):
    """Which version of a model the alias shall stand for: its name, or its number."""

    version: Annotated[str, Field(min_length=1, max_length=63)] | Annotated[int, Field(strict=True)]


class Load(_Order):
    """Which version shall be served, and how; what is left out stays, or gets the default."""

    gpu_memory_utilization: Annotated[BoundedDecimal, Field(ge=0, le=1)] | None = None
    max_model_len: int | None = None
    tensor_parallel_size: int | None = None
    notes: str | None = None

    def serving(self) -> dict[str, Any]:
        return serving_fields(self.gpu_memory_utilization, self.max_model_len, self.tensor_parallel_size)


OrderType = TypeVar("OrderType", bound=_Order)


def parse_order(kind: type[OrderType], raw: bytes) -> OrderType:
    """Raises `GatewayError` (400) that names what is wrong."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        member = str(first["loc"][0]) if first["loc"] else None
        known = ", ".join(kind.model_fields)
        place = f"`{member}`: " if member else ""
        raise invalid_body(f"{place}{first['msg']}; the body has {known}", param=member) from error


async def switch(order: Switch, versions: Sequence[ModelVersion], table: RouteTable, kube: Patcher) -> dict[str, Any]:
    """Pin a version as the active one, and take back the pins of others that would win over it.

    The new pin comes first, so that the alias never falls back meanwhile. Two opposite switches in one moment may take
    back each other's pins: then the latest promotion is active, as without any pin.
    """
    family = _in_one_namespace(order.model, [v for v in versions if order.model in _model_names(v)])
    if not family:
        raise unknown_model(order.model, {v.spec.model for v in versions})
    wanted = str(order.version)
    found = [v for v in family if wanted in (v.metadata.name, str(v.spec.version))]
    if not found:
        message = f"`{order.model}` has no version `{wanted}`; versions: {', '.join(_names(family))}"
        raise GatewayError(404, "model_not_found", message, param="version")
    pinned = await _patched(kube, found[0], PIN)
    released = rival_pins(pinned, family)
    for rival in released:
        try:
            await _patched(kube, rival, UNPIN, done=f"{pinned.metadata.name} is pinned; ")
        except _Gone:
            continue
    remarks = [f"{name} is no longer pinned" for name in _names(released)]
    model = pinned.spec.model
    routes = table.routes_of(f"{pinned.metadata.namespace}/{model}")
    splits = [route.destination for route in routes if isinstance(route.destination, Split)]
    tests = [split.test_name for split in splits if split.candidate_percent > 0]
    remarks += [_remark_on(test, pinned) for test in tests]
    waits_for = None if is_loaded(pinned) else pinned.status.message or "not loaded yet"
    return _answer(pinned, waits_for, remarks)


def _remark_on(test: str, pinned: ModelVersion) -> str:
    """What becomes of a test that divides the model's requests."""
    model, name = pinned.spec.model, pinned.metadata.name
    if is_fresh_pin(pinned):
        return f"ABTest {test} does not split the requests to {model} while {name} is pinned"
    return f"ABTest {test}, which began after {name} was pinned, splits the requests to {model}: cancel it to end that"


async def load(order: Load, versions: Sequence[ModelVersion], kube: Patcher) -> dict[str, Any]:
    """Have a registered version served; a retired one comes back as one that is loaded and not active."""
    found = _in_one_namespace(order.model, [v for v in versions if order.model in _version_names(v)])
    if not found:
        raise unknown_model(order.model, _names(versions))
    version = found[0]
    spec: dict[str, Any] = {"serving": order.serving()}
    if order.notes is not None:
        spec["notes"] = order.notes
    if version.spec.state is RequestedState.ARCHIVED:
        spec["state"] = RequestedState.READY.value
    changed = await _patched(kube, version, spec)
    if changed.status.observed_generation != changed.metadata.generation:
        return _answer(changed, "the operator has not acted upon it yet", [])
    return _answer(changed, None if is_loaded(changed) else changed.status.message or "not loaded yet", [])


def _model_names(version: ModelVersion) -> tuple[str, str]:
    return version.spec.model, f"{version.metadata.namespace}/{version.spec.model}"


def _version_names(version: ModelVersion) -> tuple[str, str]:
    return version.metadata.name, f"{version.metadata.namespace}/{version.metadata.name}"


def _names(versions: Iterable[ModelVersion]) -> list[str]:
    return sorted(version.metadata.name for version in versions)


def _in_one_namespace(name: str, found: list[ModelVersion]) -> list[ModelVersion]:
    namespaces = sorted({version.metadata.namespace for version in found})
    if len(namespaces) > 1:
        meanings = ", ".join(f"{namespace}/{name}" for namespace in namespaces)
        message = f"the model `{name}` is in several namespaces: {meanings}; name one of these"
        raise GatewayError(409, "model_ambiguous", message, param="model")
    return found


class _Gone(GatewayError):
    """The version has been deleted meanwhile."""


async def _patched(kube: Patcher, version: ModelVersion, spec: dict[str, Any], *, done: str = "") -> ModelVersion:
    namespace, name = version.metadata.namespace, version.metadata.name
    try:
        return ModelVersion.parse(await kube.merge_patch(PLURAL, namespace, name, {"spec": spec}))
    except NotFound as error:
        raise _Gone(404, "model_not_found", f"{name} has been deleted", param="model") from error
    except KubeError as error:
        raise refused_change(error.status, f"{done}{name}: {error}", namespace, error.retry_after_seconds) from error


def _answer(version: ModelVersion, waits_for: str | None, remarks: list[str]) -> dict[str, Any]:
    requested, state = version.spec.state, version.status.state
    return {
        "id": version.metadata.name,
        "object": "model",
        "finetune": {
            "namespace": version.metadata.namespace,
            "model": version.spec.model,
            "version": version.metadata.name,
            "requestedState": requested.value if requested else None,
            "state": state.value if state else None,
            "loaded": waits_for is None,
            "message": "; ".join([*([waits_for] if waits_for else []), *remarks]) or None,
        },
    }
