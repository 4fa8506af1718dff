"""Files are judged without an API server as the API server judges them: by the same cases, and its own words."""

from typing import Any

import pytest

from finetune_operator.core.schema_check import mistakes
from finetune_operator.resources.crd import DEFINITIONS, custom_resource_definition
from tests.cluster.schema_cases import (
    abtest,
    base_model,
    batch_inference,
    evaluation,
    finetunejob,
    modelversion,
    provider,
    training,
)
from tests.cluster.schema_cases.case import Creation, sample
from tests.unit.core.crd_rules import entries_of

FILES = (base_model, finetunejob, evaluation, training, provider, modelversion, abtest, batch_inference)
ACCEPTED = [case for file in FILES for case in file.ACCEPTED]
REFUSED = [case for file in FILES for case in file.REFUSED]
SCHEMAS = {
    definition.kind: custom_resource_definition(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for definition in DEFINITIONS
}
RULES = [entry["message"] for schema in SCHEMAS.values() for entry in entries_of(schema)]


def told(kind: str, body: dict[str, Any]) -> list[str]:
    return [str(mistake) for mistake in mistakes(SCHEMAS[kind], body)]


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
def test_what_the_api_server_accepts(case: Creation) -> None:
    assert told(case.kind, sample(case.kind, case.name, case.spec)) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.title)
def test_what_the_api_server_refuses(case: Creation) -> None:
    said = told(case.kind, sample(case.kind, case.name, case.spec))

    assert said
    if any(case.refused in message for message in RULES):
        assert any(case.refused in line for line in said), said


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"training": {"epochs": "3"}}, "spec.training.epochs: must be an integer, not text: write it without quotes"),
        ({"training": {"learningRate": 0.1}}, "spec.training.learningRate: must be text, not 0.1: put it in quotes"),
        ({"training": {"epoch": 3}}, "spec.training.epoch: is no field here; did you mean epochs?"),
        ({"training": {"epochs": 0}}, "spec.training.epochs: 0 is too small: at least 1"),
        ({"method": "sft"}, 'spec.method: "sft" is none of SFT, DPO'),
        ({"method": "SFTT"}, 'spec.method: "SFTT" is none of SFT, DPO; did you mean SFT?'),
        ({"nodes": True}, "spec.nodes: must be an integer, not true"),
        ({"lora": []}, "spec.lora: must be a mapping, not []"),
        ({"model": None}, "spec.model: is empty: give it a value, or remove the line"),
        (
            {"resources": {"limits": {"memory": 1.5}}},
            "spec.resources.limits.memory: must be an integer or text, not 1.5",
        ),
        ({"outputs": ["GgufF16", "GgufF16"]}, 'spec.outputs[1]: "GgufF16" is there twice'),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_said_of_a_mistake(spec: dict[str, Any], expected: str) -> None:
    body = sample("FineTuneJob", "plato-1", {})
    body["spec"] = body["spec"] | spec
    assert expected in told("FineTuneJob", body)


def test_a_status_is_the_operators() -> None:
    body = sample("FineTuneJob", "plato-1", {}) | {"status": {"phase": "nonsense"}}
    assert told("FineTuneJob", body) == []
