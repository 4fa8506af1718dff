"""The training interface: its own words for the same FineTuneJobs."""

from typing import Any

import pytest

from tests.builders import job_object, version_object
from tests.unit.web.rest.conftest import EDITOR, READER, Rest
from tests.unit.web.test_access import is_problem

JOBS = "/api/training/jobs"
FLAT = {"model": "plato", "base_model": "volume://models/tiny"}


async def test_a_training_waits_to_be_started(rest: Rest) -> None:
    made = (await rest.post(JOBS, FLAT | {"vertical": "law"})).json()
    spec = made["manifest"]["spec"]
    assert (made["status"], made["suspended"], made["vertical"]) == ("queued", True, "law")
    assert spec["dataset"]["ratings"] == {"domain": "law"}
    assert spec["lora"] == {"r": 8, "alpha": 16}, "the defaults of this interface"
    started = (await rest.post(f"{JOBS}/{made['id']}/start")).json()
    assert started["suspended"] is False
    assert (await rest.post(f"{JOBS}/{made['id']}/start")).status_code == 200
    assert len(rest.cluster.writes()) == 2


@pytest.mark.parametrize(
    ("body", "spec"),
    [
        (FLAT | {"start": True}, {"lora": {"r": 8, "alpha": 16}}),
        (FLAT | {"lora_r": 4}, {"suspend": True, "lora": {"r": 4, "alpha": 16}}),
        ({"spec": job_object()["spec"]}, {"suspend": True}),
        ({"spec": job_object()["spec"], "start": True}, {}),
    ],
)
async def test_what_is_made(rest: Rest, body: dict[str, Any], spec: dict[str, Any]) -> None:
    found = (await rest.post(JOBS, body)).json()["manifest"]["spec"]
    assert {name: found[name] for name in ("suspend", "lora") if name in found} == spec


@pytest.mark.parametrize("other", [{"domain": "art"}, {"dataset_path": "s3://b/k"}, {"spec": {}}])
async def test_a_vertical_is_a_domain_of_ratings(rest: Rest, other: dict[str, Any]) -> None:
    response = await rest.post(JOBS, FLAT | {"vertical": "law"} | other)
    assert is_problem(response, 422, "invalid-request")
    assert "vertical" in response.json()["detail"]


async def test_it_is_the_same_job_elsewhere(rest: Rest) -> None:
    made = (await rest.post(JOBS, FLAT)).json()
    elsewhere = (await rest.get(f"/v1/fine-tuning/jobs/{made['id']}")).json()
    assert elsewhere == {name: value for name, value in made.items() if name != "vertical"}


async def test_starting_at_once_is_another_request(rest: Rest) -> None:
    assert (await rest.post(JOBS, FLAT, idempotency_key="k")).status_code == 201
    assert (await rest.post(JOBS, FLAT, idempotency_key="k")).status_code == 200
    again = await rest.post(JOBS, FLAT | {"start": True}, idempotency_key="k")
    assert is_problem(again, 409, "idempotency-key-reused")


async def test_the_list_knows_verticals_and_states(rest: Rest) -> None:
    for name, domain, phase in (("a", "law", "Training"), ("b", "law", "Failed"), ("c", "art", "Failed")):
        spec = {"dataset": {"ratings": {"domain": domain}}}
        rest.cluster.put("finetunejobs", job_object(spec, name=name, status={"phase": phase}))
    for query, names in (
        ({"vertical": "law"}, ["a", "b"]),
        ({"status": "failed"}, ["b", "c"]),
        ({"vertical": "law", "status": "failed"}, ["b"]),
        ({"vertical": "none"}, []),
    ):
        found = (await rest.get(JOBS, READER, **query)).json()
        assert (sorted(job["name"] for job in found["jobs"]), found["total"]) == (names, len(names))


async def test_cancel_and_delete(rest: Rest) -> None:
    made = (await rest.post(JOBS, FLAT)).json()
    assert (await rest.post(f"{JOBS}/{made['id']}/cancel")).json()["cancelled"] is True
    assert (await rest.ask("DELETE", f"{JOBS}/{made['id']}")).status_code == 204
    assert is_problem(await rest.get(f"{JOBS}/{made['id']}"), 404, "unknown-job")


STATUS = {
    "phase": "Succeeded",
    "modelVersion": "plato-v3",
    "dataset": {"rows": 120, "testRows": 12, "digest": "sha256:" + "a" * 64},
    "result": {"finalLoss": "0.21", "testLoss": "0.4", "baseTestLoss": "1.2"},
    "progress": {"bestLoss": "0.19"},
    "evaluation": {"metrics": [{"name": "TokenF1", "base": "0.1", "fineTuned": "0.4"}]},
    "artifacts": [
        {"name": "adapter", "type": "Adapter", "sizeBytes": 10, "path": "adapter"},
        {"name": "checkpoints", "type": "Checkpoint", "sizeBytes": 20, "path": "checkpoints"},
        {"name": "dataset", "type": "Dataset", "sizeBytes": 30, "path": "dataset"},
    ],
}
DOMAIN = {"name": "ExactMatch", "base": "0.1", "fineTuned": "0.8", "domain": "law", "examples": 9}
EVALUATION = {"id": "0" * 64, "time": "2026-11-22T12:00:00Z", "engine": "e", "examples": 9, "domains": [DOMAIN]}


async def test_metrics(rest: Rest) -> None:
    rest.cluster.put("finetunejobs", job_object(name="plato-1", status=STATUS))
    known = {"metrics": {"winRate": "0.675", "elo": 1540}, "evaluation": EVALUATION}
    rest.cluster.put("modelversions", version_object(3, status=known))
    body = (await rest.get(f"{JOBS}/finetune.plato-1/metrics", READER)).json()
    assert body == {
        "id": "finetune.plato-1",
        "status": "completed",
        "training_examples": 120,
        "test_examples": 12,
        "final_loss": 0.21,
        "best_loss": 0.19,
        "test_loss": 0.4,
        "base_test_loss": 1.2,
        "scores": [{"name": "TokenF1", "base": 0.1, "fine_tuned": 0.4}],
        "model_version": "finetune.plato-v3",
        "elo": 1540,
        "win_rate": 0.675,
        "accuracy_by_vertical": {"law": 0.8},
    }


async def test_metrics_of_a_version_that_is_gone(rest: Rest) -> None:
    rest.cluster.put("finetunejobs", job_object(name="plato-1", status=STATUS))
    body = (await rest.get(f"{JOBS}/plato-1/metrics", READER)).json()
    assert (body["final_loss"], body["elo"], body["accuracy_by_vertical"]) == (0.21, None, {})
    rest.cluster.put("finetunejobs", job_object(name="new"))
    assert (await rest.get(f"{JOBS}/new/metrics", READER)).json()["final_loss"] is None


async def test_artifacts(rest: Rest) -> None:
    rest.cluster.put("finetunejobs", job_object(name="plato-1", status=STATUS))
    body = (await rest.get(f"{JOBS}/plato-1/artifacts", EDITOR)).json()
    directory = "finetune/plato/uid-of-plato-1"
    assert (body["directory"], body["checkpoint_path"]) == (directory, f"{directory}/checkpoints")
    assert body["data_directory"] == f"{directory}/dataset"
    assert body["files"][0] == {
        "name": "adapter",
        "type": "Adapter",
        "size_bytes": 10,
        "path": f"{directory}/adapter",
    }
    rest.cluster.put("finetunejobs", job_object(name="new"))
    assert (await rest.get(f"{JOBS}/new/artifacts")).json()["files"] == []
