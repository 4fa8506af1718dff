"""What all kinds share: the model base, conditions, references and bounded scalar types.

Decimals are strings, since the Kubernetes API conventions forbid floating point in specs; every string, list and map
has a bound, since the API server refuses validation rules whose cost it can't estimate.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.config import JsonValue

GROUP = "finetune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "finetuning"

Rule = dict[str, JsonValue]


class ApiModel(BaseModel):
    """Base of every part of a resource: frozen, camelCase, tolerant of fields that a newer version wrote."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str, reason: str = "FieldValueInvalid", field_path: str = "") -> Rule:
    """One `x-kubernetes-validations` entry; the message says what to change."""
    entry: Rule = {"rule": expression, "message": message, "reason": reason}
    return entry | {"fieldPath": field_path} if field_path else entry


def rules(*entries: Rule) -> ConfigDict:
    """Model configuration that carries validation rules into the schema."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": list(entries)})


def exactly_one(*names: str) -> Rule:
    """A union: one of the named fields must be set, the others absent."""
    members = ", ".join(f"has(self.{name})" for name in names)
    return rule(f"[{members}].filter(isSet, isSet).size() == 1", f"set exactly one of {', '.join(names)}")


def at_most_one(first: str, second: str) -> Rule:
    """Two fields that say the same in different ways: one of them may be set."""
    return rule(f"!has(self.{first}) || !has(self.{second})", f"set one of {first} and {second}, not both")


def immutable(name: str) -> Rule:
    """A field that keeps its value; guarded from the parent, so that adding or removing it is a change too."""
    return rule(
        f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
        f"{name} is immutable: create a new resource instead",
        field_path=f".{name}",
    )


DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DnsSubdomain = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
ModelName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ServedName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([-._/A-Za-z0-9]*[A-Za-z0-9])?$")]
ProviderModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][-._:/A-Za-z0-9]*$")]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
Fraction = Annotated[str, Field(max_length=12, pattern=r"^(0(\.[0-9]+)?|1(\.0+)?)$")]
PositiveDecimal = Annotated[str, Field(max_length=24, pattern=r"^[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?$")]
Sha256 = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
ShortText = Annotated[str, Field(max_length=256)]
LongText = Annotated[str, Field(max_length=4096)]
Decimal = Annotated[str, Field(max_length=32)]

# A path below a volume's root: no leading slash and no `..`, so that it can't leave the volume by its spelling.
VolumePath = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$"),
]

Timestamp = Annotated[
    datetime,
    PlainSerializer(lambda value: value.strftime("%Y-%m-%dT%H:%M:%SZ"), when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
PreciseTimestamp = Annotated[
    datetime,
    PlainSerializer(lambda value: value.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": r"^([0-9]+|[0-9]*\.[0-9]+)([eE][0-9]+|m|k|Ki|M|Mi|G|Gi|T|Ti)?$",
            "maxLength": 24,
        }
    ),
]
ResourceName = Annotated[str, Field(max_length=253)]
Quantities = Annotated[dict[ResourceName, Quantity], Field(max_length=16)]
StringMap = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=32)]


class ResourceRequirements(ApiModel):
    """Compute resources of a pod's container, as in core/v1."""

    limits: Quantities = {}
    """Upper bounds, such as `nvidia.com/gpu: 1` or `memory: 16Gi`."""
    requests: Quantities = {}
    """What the scheduler reserves; equal to limits where absent."""


class Toleration(ApiModel):
    """A node taint that the pods accept, as in core/v1."""

    key: Annotated[str, Field(max_length=316)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None


class Scheduling(ApiModel):
    """Where pods may run."""

    node_selector: StringMap = {}
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that the pods accept."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the pods: who gives way to whom where there is not room for all."""


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace; its value never leaves the pod that mounts it."""

    name: DnsSubdomain
    """Name of the Secret."""
    key: SecretKey
    """Key within the Secret."""


class VolumeRef(ApiModel):
    """A path on a PersistentVolumeClaim in the same namespace."""

    claim_name: DnsSubdomain
    """Name of the PersistentVolumeClaim."""
    path: VolumePath
    """Path below the volume's root, without `..`."""


# As the hub spells them: `<owner>/<name>`, and a branch, a tag or a commit.
HubModelId = Annotated[
    str, Field(min_length=3, max_length=193, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$")
]
HubRevision = Annotated[
    str,
    Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$"),
]
HUB_COMMIT_PATTERN = r"^[0-9a-f]{40}$"


class HubModelRef(ApiModel):
    """A model of the Hugging Face hub or of a mirror, downloaded once onto the volume of base models."""

    id: HubModelId
    """`<owner>/<name>`, such as `Qwen/Qwen3-0.6B`."""
    revision: HubRevision = "main"
    """Branch, tag or commit; a job resolves it once, and its ModelVersion names the commit."""
    token_secret_ref: SecretKeyRef | None = None
    """A token for gated or private models."""


class ProviderModelRef(ApiModel):
    """A model whose weights are at its provider, and stay there."""

    model: ProviderModelName
    """Its name there, such as `gpt-4.1-mini-2025-04-14` or a model that was fine-tuned before."""


class BaseModelSource(ApiModel):
    """Where the base model's weights are."""

    model_config = rules(exactly_one("volume", "hub", "openai"))

    volume: VolumeRef | None = None
    """A directory in Hugging Face format on a volume."""
    hub: HubModelRef | None = None
    """A model of the Hugging Face hub, or of the mirror that the chart names."""
    openai: ProviderModelRef | None = None
    """A model of an OpenAI-compatible provider (backend OpenAI)."""


class BaseModelRef(ApiModel):
    """The model that an adapter is trained on and served with."""

    name: ServedName
    """Name under which the base model itself answers at the gateway."""
    source: BaseModelSource
    """Where its weights are."""


class ConditionStatus(StrEnum):
    """Kubernetes' three condition values."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Name of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """One CamelCase word for programs."""
    message: LongText = ""
    """The fact and, where something is wrong, what to change."""
    last_transition_time: Timestamp
    """When the status last changed."""
    observed_generation: int | None = None
    """The generation that this speaks of."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class OwnerReference(ApiModel):
    """metav1.OwnerReference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ManagedFields(ApiModel):
    """metav1.ManagedFieldsEntry: who has set which fields last."""

    manager: str = ""
    time: datetime | None = None
    fields_v1: Mapping[str, Any] = {}


class Metadata(ApiModel):
    """The part of metav1.ObjectMeta that the product reads."""

    name: str
    namespace: str
    uid: str
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    managed_fields: tuple[ManagedFields, ...] = ()


class Resource(ApiModel):
    """A custom resource as read from the API server."""

    kind: str
    metadata: Metadata

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Read an object of the API server; its schema has already been enforced there."""
        return cls.model_validate(body)

    @property
    def deleting(self) -> bool:
        return self.metadata.deletion_timestamp is not None
