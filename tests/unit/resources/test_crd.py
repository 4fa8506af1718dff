"""The generated CustomResourceDefinitions: current, bounded, structural, and strict about what the status is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.__main__ import main
from finetune_operator.resources.abtest import ABTestStatus
from finetune_operator.resources.crd import DEFINITIONS, Definition, custom_resource_definition
from finetune_operator.resources.finetunejob import IMMUTABLE_FIELDS, FineTuneJobSpec, FineTuneJobStatus
from finetune_operator.resources.modelversion import ModelVersionStatus

ROOT = Path(__file__).parents[3]
DIRECTORIES = (ROOT / "crds", ROOT / "helm" / "finetune-operator" / "files" / "crds")
MAX_BYTES = 100 * 1024
Schema = dict[str, Any]
CONDITION_PATH = re.compile(r"""\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.(\w+)""")

each_definition = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)


def version_of(definition: Definition) -> Schema:
    (version,) = custom_resource_definition(definition)["spec"]["versions"]
    found: Schema = version
    return found


def schema_of(definition: Definition, *path: str) -> Schema:
    found: Schema = version_of(definition)["schema"]["openAPIV3Schema"]
    for name in path:
        found = found["properties"][name]
    return found


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Each node with where it is."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from nodes(node, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from nodes(values, f"{path}{{}}")


def unbounded(schema: Schema) -> Iterator[str]:
    for path, node in nodes(schema):
        match node:
            case {"type": "string", "enum": _} | {"type": "string", "format": "date-time"}:
                continue
            case {"type": "string"} if "maxLength" not in node:
                yield f"{path}: text without maxLength"
            case {"type": "array"} if "maxItems" not in node:
                yield f"{path}: list without maxItems"
            case {"additionalProperties": _} if "maxProperties" not in node:
                yield f"{path}: map without maxProperties"
            case {"type": "integer"} if path.startswith(".") and not {"minimum", "maximum"} <= node.keys():
                yield f"{path}: number without minimum and maximum"


@pytest.mark.parametrize("directory", DIRECTORIES, ids=["crds", "chart"])
def test_the_files_are_those_of_the_models(directory: Path) -> None:
    assert main(["crds", "--check", str(directory)]) == 0
    assert {path.stem for path in directory.glob("*.yaml")} == {definition.name for definition in DEFINITIONS}


def test_a_file_that_differs_is_told_and_then_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crds", "--check", str(tmp_path)]) == 1
    assert "abtests.finetune.dev.yaml" in capsys.readouterr().err
    assert main(["crds", str(tmp_path)]) == 0
    assert main(["crds", "--check", str(tmp_path)]) == 0


@each_definition
def test_the_file_means_what_the_model_says(definition: Definition) -> None:
    """Also to a reader of YAML 1.2, to whom an unquoted 2e-4 is a number."""
    text = (ROOT / "crds" / f"{definition.name}.yaml").read_text()
    assert yaml.safe_load(text) == custom_resource_definition(definition)
    assert "default: 2e-4" not in text


@each_definition
def test_it_is_small(definition: Definition) -> None:
    """`kubectl apply` keeps a copy in an annotation, which may have 256 KiB in all."""
    assert (ROOT / "crds" / f"{definition.name}.yaml").stat().st_size < MAX_BYTES


@each_definition
@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_text_list_and_map_is_bounded(definition: Definition, part: str) -> None:
    schema = schema_of(definition, part)
    allowed = "number" if part == "status" else "nothing"
    assert [line for line in unbounded(schema) if allowed not in line] == []


@each_definition
def test_it_is_structural(definition: Definition) -> None:
    refused = {"$ref", "$defs", "title", "const", "oneOf", "allOf", "exclusiveMinimum", "exclusiveMaximum", "examples"}
    for path, node in nodes(schema_of(definition)):
        assert not refused & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert node.get("additionalProperties") is not False, path
        assert not ("anyOf" in node and not node.get("x-kubernetes-int-or-string")), path
        assert "null" not in str(node.get("type")), path
        assert node.get("default", "") is not None, path


@each_definition
def test_only_the_spec_has_defaults(definition: Definition) -> None:
    assert [path for path, node in nodes(schema_of(definition, "status")) if "default" in node] == []


@each_definition
def test_every_field_is_explained(definition: Definition) -> None:
    mute = [path for path, node in nodes(schema_of(definition, "spec")) if path and "description" not in node]
    # Items and values are explained by the list or map that they are in, tolerations by core/v1.
    assert [path for path in mute if not path.endswith(("[]", "{}")) and ".tolerations[]" not in path] == []


@each_definition
def test_every_rule_says_what_to_change(definition: Definition) -> None:
    rules = [rule for _, node in nodes(schema_of(definition)) for rule in node.get("x-kubernetes-validations", [])]
    assert rules
    for rule in rules:
        assert rule["message"]
        assert rule["reason"] == "FieldValueInvalid"


@each_definition
def test_every_column_shows_a_field_that_exists(definition: Definition) -> None:
    for column in definition.columns:
        _, top, *path = column.json_path.split(".")
        if top == "metadata":
            continue
        if found := CONDITION_PATH.fullmatch(column.json_path):
            said = schema_of(definition, "status", "conditions")
            assert found[1] in said["description"], column.name
            assert found[2] in said["items"]["properties"], column.name
            continue
        node = schema_of(definition, top, *path)
        kind = "string" if column.type == "date" else column.type
        assert node["type"] == kind, column.name


@each_definition
def test_conditions_are_a_map_by_type(definition: Definition) -> None:
    conditions = schema_of(definition, "status", "conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_names() -> None:
    names = [custom_resource_definition(definition)["spec"]["names"] for definition in DEFINITIONS]
    assert [(name["kind"], name["shortNames"], name["categories"]) for name in names] == [
        ("FineTuneJob", ["ftj"], ["finetuning"]),
        ("ModelVersion", ["modelver"], ["finetuning"]),
        ("ABTest", ["abt"], ["finetuning"]),
        ("BatchInference", ["batch"], ["finetuning"]),
    ]


def test_all_of_a_finetunejob_but_suspend_cancel_budget_and_ttl_is_immutable() -> None:
    fields = {field.alias for field in FineTuneJobSpec.model_fields.values()}
    assert fields - set(IMMUTABLE_FIELDS) == {"suspend", "cancel", "budget", "ttlSecondsAfterFinished"}


def test_a_scaled_version_reads_and_writes_declared_fields() -> None:
    definition = next(item for item in DEFINITIONS if item.kind == "ModelVersion")
    assert definition.scale
    for json_path in definition.scale.values():
        assert schema_of(definition, *json_path.split(".")[1:])


@pytest.mark.parametrize("status", [FineTuneJobStatus, ModelVersionStatus, ABTestStatus])
def test_an_empty_status_says_nothing_but_that_nothing_is_known(status: type[Any]) -> None:
    """A default in the model would be written as a fact."""
    assert set(status().to_dict()) <= {"conditions", "history"}
