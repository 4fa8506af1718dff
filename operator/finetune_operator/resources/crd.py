"""Pydantic model -> structural CustomResourceDefinition. Pure; `finetune-operator crds` writes the files.

Why not the JSON schema as it is: a CRD takes no `$ref`, `title`, `const`, null type or `additionalProperties: false`,
and null defaults are noise. Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.common import CATEGORY, GROUP, VERSION, Resource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion

Schema = dict[str, Any]

DROPPED_KEYS = frozenset({"title", "$defs", "discriminator", "propertyNames"})
# Without a bound, a rule on the name exceeds the API server's cost budget; labels take 63 characters.
NAME_MAX_LENGTH = 63
EMPTY: tuple[object, ...] = (None, {}, [], ())


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; priority 1 shows it with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Definition:
    """What the model does not say about its kind."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scale: Mapping[str, str] | None = None

    @property
    def kind(self) -> str:
        return self.model.__name__

    @property
    def name(self) -> str:
        return f"{self.plural}.{GROUP}"


AGE = Column("Age", ".metadata.creationTimestamp", "date")
MESSAGE = Column("Message", ".status.message", priority=1)

DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        FineTuneJob,
        "finetunejobs",
        "ftj",
        (
            Column("Phase", ".status.phase"),
            Column("Progress", ".status.progress.summary"),
            Column("Epoch", ".status.progress.epoch"),
            Column("Loss", ".status.progress.loss"),
            Column("Best", ".status.progress.bestLoss", priority=1),
            Column("ETA", ".status.progress.eta"),
            Column("Version", ".status.modelVersion"),
            AGE,
            Column("Base", ".spec.baseModel.name", priority=1),
            Column("Method", ".spec.method", priority=1),
            Column("Rows", ".status.dataset.rows", "integer", priority=1),
            Column("Cost", ".status.cost.spent", priority=1),
            MESSAGE,
        ),
    ),
    Definition(
        ModelVersion,
        "modelversions",
        "modelver",
        (
            Column("Model", ".spec.model"),
            Column("Version", ".spec.version", "integer"),
            Column("State", ".status.state"),
            Column("Loaded", ".status.replicas"),
            Column("Promoted", ".status.promotedAt", "date"),
            AGE,
            Column("Base", ".spec.baseModel.name", priority=1),
            Column("Engine", ".status.engine", priority=1),
            Column("Evaluated", '.status.conditions[?(@.type=="Evaluated")].reason', priority=1),
            Column("Rating", ".status.metrics.ratings.average", priority=1),
            Column("Passed", '.status.conditions[?(@.type=="EvaluationPassed")].status', priority=1),
            MESSAGE,
        ),
        scale={
            "specReplicasPath": ".spec.serving.replicas",
            "statusReplicasPath": ".status.readyReplicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Definition(
        ABTest,
        "abtests",
        "abt",
        (
            Column("Phase", ".status.phase"),
            Column("Split", ".status.split"),
            Column("Votes", ".status.votes.total", "integer"),
            Column("WinRate", ".status.votes.winRatePercent"),
            Column("P-Value", ".status.pValue"),
            Column("Leader", ".status.leader"),
            Column("Verdict", ".status.verdict"),
            AGE,
            Column("Baseline", ".status.arms.baseline.servedName", priority=1),
            Column("Candidate", ".status.arms.candidate.servedName", priority=1),
            Column("Needed", ".status.votesStillNeeded", "integer", priority=1),
            Column("Score", ".status.arms.candidate.score", priority=1),
            MESSAGE,
        ),
    ),
    Definition(
        BatchInference,
        "batchinferences",
        "batch",
        (
            Column("Version", ".spec.modelVersion"),
            Column("Phase", ".status.phase"),
            Column("Progress", ".status.progress.summary"),
            Column("Failed", ".status.progress.failed", "integer"),
            Column("ETA", ".status.progress.eta"),
            AGE,
            Column("Rows", ".status.results.rows", "integer", priority=1),
            Column("Results", ".status.results.uri", priority=1),
            Column("Cost", ".status.cost.spent", priority=1),
            MESSAGE,
        ),
    ),
)


def custom_resource_definition(definition: Definition) -> Schema:
    """The manifest as `kubectl apply` takes it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": definition.name},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": definition.kind,
                "listKind": f"{definition.kind}List",
                "plural": definition.plural,
                "singular": definition.kind.lower(),
                "shortNames": [definition.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} | ({"scale": dict(definition.scale)} if definition.scale else {}),
                    "additionalPrinterColumns": [_printer_column(column) for column in definition.columns],
                    "schema": {"openAPIV3Schema": _root_schema(definition.model)},
                }
            ],
        },
    }


def _printer_column(column: Column) -> Schema:
    manifest: Schema = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return manifest | ({"priority": column.priority} if column.priority else {})


def _root_schema(model: type[Resource]) -> Schema:
    whole = model.model_json_schema(by_alias=True)
    schema = _structural(whole, whole.get("$defs", {}))
    properties = schema["properties"]
    return {
        "type": "object",
        "description": schema["description"],
        "required": ["spec"],
        "x-kubernetes-validations": schema["x-kubernetes-validations"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": NAME_MAX_LENGTH}}},
            "spec": properties["spec"],
            "status": _without_defaults(properties["status"]),
        },
    }


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """One node, with references put in and everything that a CRD refuses taken out."""
    if reference := schema.get("$ref"):
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return _structural(definitions[reference.rsplit("/", 1)[-1]] | siblings, definitions)
    if variants := _without_null(schema):
        siblings = {key: value for key, value in schema.items() if key != "anyOf"}
        return _structural(variants | siblings, definitions)
    node = {key: value for key, value in schema.items() if key not in DROPPED_KEYS}
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "properties" in node:
        node["properties"] = {key: _structural(value, definitions) for key, value in node["properties"].items()}
    if isinstance(values := node.get("additionalProperties"), dict):
        node["additionalProperties"] = _structural(values, definitions)
    elif "additionalProperties" in node:
        del node["additionalProperties"]
    if "items" in node:
        node["items"] = _structural(node["items"], definitions)
    return _with_sparse_default(node)


def _without_null(schema: Schema) -> Schema | None:
    """`X | None` is optional in Kubernetes, not nullable."""
    variants = schema.get("anyOf", [])
    rest = [variant for variant in variants if variant.get("type") != "null"]
    return rest[0] if len(rest) == 1 and len(rest) < len(variants) else None


def _with_sparse_default(node: Schema) -> Schema:
    """Empty defaults are left out, since absent means empty; the others are whole, as validation rules need them."""
    default = _without_empty(node.get("default"))
    rest = {key: value for key, value in node.items() if key != "default"}
    return rest if default in EMPTY else rest | {"default": default}


def _without_empty(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    cleaned = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in cleaned.items() if item not in EMPTY}


def _without_defaults(node: Schema) -> Schema:
    """Status is written by the operator alone, which says what it means."""
    cleaned = {key: value for key, value in node.items() if key != "default"}
    if "properties" in cleaned:
        cleaned["properties"] = {key: _without_defaults(value) for key, value in cleaned["properties"].items()}
    if "items" in cleaned:
        cleaned["items"] = _without_defaults(cleaned["items"])
    return cleaned
