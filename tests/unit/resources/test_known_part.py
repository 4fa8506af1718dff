"""What is left of a resource that a newer operator, or a person, wrote."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.resources.known_part import known_part
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import version_object

GOOD = {"time": "2026-11-22T12:00:00Z", "state": "Ready", "why": "test"}
ODD = GOOD | {"state": "Canary"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "nothing is odd": ({}, {"state": "Ready"}, (), {"state": "Ready"}),
    "a field that a newer release added": ({}, {"state": "Ready", "mood": "good"}, (), {"state": "Ready"}),
    "a state": ({}, {"state": "Canary", "message": "m"}, ("status.state",), {"message": "m"}),
    "some entries of a list": (
        {},
        {"history": [ODD, GOOD, dict(ODD)]},
        ("status.history.2.state", "status.history.0.state", "status.history.2", "status.history.0"),
        {"history": [GOOD]},
    ),
    "an optional wish": ({"promotion": "Sometimes"}, {"state": "Ready"}, ("spec.promotion",), {"state": "Ready"}),
    "the whole status": ({}, "gone", ("status",), {}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("spec", "status", "left_out", "kept"), CASES.values(), ids=CASES)
def test_the_rest_is_read(spec: Any, status: Any, left_out: tuple[str, ...], kept: dict[str, Any]) -> None:
    body = version_object(1, spec) | {"status": status}
    before = copy.deepcopy(body)
    version, told = known_part(ModelVersion, body)
    assert version.metadata.name == "plato-v1"
    assert version.status.model_dump(mode="json", by_alias=True, exclude_unset=True) == kept
    assert told == left_out
    assert body == before


@pytest.mark.parametrize("part", ["metadata", "spec"])
def test_without_what_every_one_has_there_is_none(part: str) -> None:
    body = version_object(1)
    body[part] = {"name": 7}
    with pytest.raises(ValidationError):
        known_part(ModelVersion, body)
