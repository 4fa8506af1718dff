"""Evaluations as the operator tells them and as people read them."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from tests.unit.web.conftest import INTERNAL, NOON, PUBLIC, Api

PATH = "/v1/fine-tuning/model-versions/finetune/plato-v2/evaluations"


def row(minute: int = 0, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "source": EvaluationSource.SERVED,
        "namespace": "finetune",
        "model_version": "plato-v2",
        "model": "plato",
        "base_model": "tiny",
        "examples": 12,
        "measured_at": NOON + timedelta(minutes=minute),
        "values": (
            RecordedValue(name="RougeL", base=0.12, fine_tuned=0.41),
            RecordedValue(name="meanLatencySeconds", base=1.0, fine_tuned=1.5),
        ),
    }
    return RecordedEvaluation(**(fields | changes)).model_dump(mode="json", by_alias=True)


async def put(api: Api, identity: str, body: Any, headers: dict[str, str] = INTERNAL) -> httpx2.Response:
    return await api.client.put(f"/internal/v1/evaluations/{identity}", json=body, headers=headers)


async def listed(api: Api, path: str = PATH, **params: Any) -> list[dict[str, Any]]:
    response = await api.get(path, params=params)
    assert response.status_code == 200, response.text
    return list(response.json()["evaluations"])


async def test_an_evaluation_is_read_as_it_was_told(api: Api) -> None:
    assert (await put(api, "uid-1", row())).status_code == 204
    assert await listed(api) == [
        {
            "id": "uid-1",
            "source": "Served",
            "model": "plato",
            "base_model": "tiny",
            "adapter_digest": None,
            "dataset_digest": None,
            "examples": 12,
            "message": None,
            "currency": None,
            "measured_at": "2026-11-21T12:00:00Z",
            "values": [
                {"name": "RougeL", "base": 0.12, "fine_tuned": 0.41},
                {"name": "meanLatencySeconds", "base": 1.0, "fine_tuned": 1.5},
            ],
        }
    ]


async def test_the_same_id_again_replaces_what_was_told(api: Api) -> None:
    await put(api, "uid-1", row())
    await put(api, "uid-1", row(examples=7, values=(RecordedValue(name="F1", base=0.1, fine_tuned=0.2),)))
    (only,) = await listed(api)
    assert (only["examples"], [value["name"] for value in only["values"]]) == (7, ["F1"])


async def test_the_newest_comes_first_and_other_versions_are_not_among_them(api: Api) -> None:
    await put(api, "a", row(0, source=EvaluationSource.TRAINING))
    await put(api, "b", row(5))
    await put(api, "c", row(9, model_version="plato-v3"))
    await put(api, "d", row(9, namespace="elsewhere"))
    assert [entry["id"] for entry in await listed(api)] == ["b", "a"]
    assert [entry["id"] for entry in await listed(api, limit=1)] == ["b"]


async def test_a_version_that_was_never_evaluated_has_none(api: Api) -> None:
    assert await listed(api, "/v1/fine-tuning/model-versions/finetune/unknown-v1/evaluations") == []


REFUSED: dict[str, tuple[str, dict[str, Any], int]] = {
    "an id that is none": ("a%20b", row(), 422),
    "a source that is none": ("a", row() | {"source": "Hearsay"}, 422),
    "too many values": (
        "a",
        row(values=()) | {"values": [{"name": str(n), "base": 0, "fineTuned": 0} for n in range(65)]},
        422,
    ),
}


@pytest.mark.parametrize(("identity", "body", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_none_is_refused(api: Api, identity: str, body: dict[str, Any], status: int) -> None:
    assert (await put(api, identity, body)).status_code == status
    assert await listed(api) == []


async def test_only_the_products_own_processes_may_tell(api: Api) -> None:
    assert (await put(api, "a", row(), PUBLIC)).status_code == 401
    assert (await api.get(PATH, headers={})).status_code == 401
