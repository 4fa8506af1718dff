"""One resource that a newer operator, or a person, has written oddly never breaks an answer about the others."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.builders import abtest_object, job_object, version_object
from tests.unit.web.rest.conftest import READER, Rest
from tests.unit.web.rest.example_requests import LOADED
from tests.unit.web.rest.test_mirroring import mirroring

NOW = "2026-11-22T12:00:00Z"
KNOWN_CHANGE = {"time": NOW, "state": "Deployed", "why": "won", "previous": "plato-v1"}
ODD_VERSION: dict[str, Any] = {
    "state": "Canary",
    "message": "a tenth of the requests",
    "history": [{"time": NOW, "state": "Canary", "why": "newer"}, KNOWN_CHANGE, {"state": "Ready"}],
    "metrics": {"winRate": "0.7500", "elo": "many"},
}
LISTS = {
    "models": "/v1/fine-tuning/models",
    "jobs": "/v1/fine-tuning/jobs",
    "tests": "/v1/fine-tuning/ab-test",
}
OTHER_PLACES = (
    "/v1/models",
    "/v1/fine_tuning/jobs",
    "/api/training/jobs",
    "/v1/fine-tuning/costs",
    "/v1/fine-tuning/costs/jobs",
    "/v1/fine-tuning/costs/models",
    "/v1/fine-tuning/models?philosopher=ada",
    "/v1/fine-tuning/models/finetune.plato-v7",
    "/v1/fine-tuning/models/finetune.plato-v8",
    "/v1/fine-tuning/jobs/finetune.odd",
    "/v1/fine-tuning/jobs/finetune.odd/events",
    "/v1/fine-tuning/ab-test/finetune.odd",
    "/v1/fine-tuning/ab-test/finetune/odd",
    "/v1/fine-tuning/ab-test/finetune/odd/voters",
    "/v1/fine-tuning/ab-test/finetune/odd/win-rates",
    "/model-comparison",
    "/model-comparison?right=finetune.plato-v8",
)


@pytest.fixture(params=["the API server", "the api's tables"])
async def odd(rest: Rest, request: pytest.FixtureRequest) -> AsyncIterator[Rest]:
    """An odd one and a whole one of each kind, listed from either place."""
    uid = f"odd-{uuid4()}"
    whole = {"state": "Ready", "engine": "vllm-a", "conditions": [LOADED]}
    rest.cluster.put("modelversions", version_object(8, status=whole))
    rest.cluster.put("modelversions", version_object(7, {"promotion": "Sometimes"}, status=ODD_VERSION, uid=uid))
    rest.cluster.put("finetunejobs", job_object(name="whole", status={"phase": "Training"}))
    status = {"phase": "Dreaming", "message": "newer", "conditions": [{"type": "Odd"}]}
    rest.cluster.put("finetunejobs", job_object(name="odd", status=status))
    rest.cluster.put("abtests", abtest_object(name="odd", status={"phase": "Dreaming", "message": "newer"}))
    if request.param == "the API server":
        yield rest
        return
    async with mirroring(rest):
        yield rest


async def test_it_is_listed_with_what_is_known(odd: Rest) -> None:
    models = {each["name"]: each for each in (await odd.get(LISTS["models"], READER)).json()["models"]}
    assert {"plato-v2", "plato-v7", "plato-v8"} <= models.keys()
    found = models["plato-v7"]
    assert (found["state"], found["message"]) == (None, ODD_VERSION["message"])
    assert (found["metrics"]["win_rate"], found["metrics"]["elo"]) == (0.75, None)
    assert models["plato-v8"]["state"] == "Ready"
    jobs = {each["name"]: each for each in (await odd.get(LISTS["jobs"], READER)).json()["jobs"]}
    assert (jobs["odd"]["status"], jobs["odd"]["phase"], jobs["odd"]["message"]) == ("queued", None, "newer")
    assert jobs["whole"]["status"] == "training"
    tests = {each["name"]: each for each in (await odd.get(LISTS["tests"], READER)).json()["tests"]}
    assert (tests["odd"]["phase"], tests["odd"]["message"]) == (None, "newer")


@pytest.mark.parametrize("path", [*LISTS.values(), *OTHER_PLACES])
async def test_nothing_breaks(odd: Rest, path: str) -> None:
    response = await odd.get(path, READER)
    assert response.status_code == 200, response.text


async def test_its_history_is_told_as_far_as_it_is_known(odd: Rest) -> None:
    body = (await odd.get("/v1/fine-tuning/models/finetune.plato-v7", READER)).json()
    assert [(change["state"], change["previous"]) for change in body["history"]] == [("Deployed", "plato-v1")]


async def test_another_version_of_its_model_can_be_deployed(odd: Rest) -> None:
    response = await odd.post("/v1/fine-tuning/models/finetune.plato-v8/deploy")
    assert (response.status_code, response.json()["requested_state"]) == (200, "Deployed")


async def test_it_is_logged_once_with_what_was_not_understood(rest: Rest) -> None:
    rest.cluster.put("modelversions", version_object(7, status=ODD_VERSION, uid=f"odd-{uuid4()}"))
    with capture_logs() as logs:
        for _ in range(3):
            await rest.get(LISTS["models"], READER)
    told = [each for each in logs if "understand" in each["event"]]
    assert [each["name"] for each in told] == ["plato-v7"]
    assert {"status.state", "status.history.0", "status.history.2"} <= set(told[0]["what"])


async def test_what_has_no_readable_spec_is_left_out_of_lists(rest: Rest) -> None:
    body = version_object(9)
    body["spec"]["baseModel"] = {"name": 7}
    rest.cluster.put("modelversions", body)
    response = await rest.get(LISTS["models"], READER)
    assert response.status_code == 200, response.text
    assert [each["name"] for each in response.json()["models"]] == ["plato-v2"]
