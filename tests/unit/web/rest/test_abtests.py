"""ABTests over REST: made by who asks, and the same by id as by namespace and name."""

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.resources.abtest import ABTestSpec
from finetune_operator.web.abtest_requests import AbTestRequest, abtest_spec
from tests.unit.web.conftest import ab_test
from tests.unit.web.rest.conftest import API_TOKEN, READER, Rest
from tests.unit.web.rest.played_api_server import User
from tests.unit.web.test_access import is_problem

TESTS = "/v1/fine-tuning/ab-test"
LITTLE = {"model": "plato", "baseline": {"base": True}, "candidate": {"modelVersion": "plato-v2"}}

SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as little as possible": ({"candidate": "plato-v2"}, LITTLE),
    "a model with a v": (
        {"candidate": "my-v-v12"},
        LITTLE | {"model": "my-v", "candidate": {"modelVersion": "my-v-v12"}},
    ),
    "all": (
        {
            "candidate": "plato-v2",
            "baseline": "plato-v1",
            "test_prompts": ["What is AI?"],
            "candidate_percent": 20,
            "alpha": 0.01,
            "min_votes": 5,
            "max_votes": 50,
            "min_effect": "0.1",
            "weights": {"accuracy": 100, "latency": 0, "cost": 0},
            "on_win": "notify",
            "on_loss": "rollback",
        },
        LITTLE
        | {
            "baseline": {"modelVersion": "plato-v1"},
            "prompts": ["What is AI?"],
            "traffic": {"candidatePercent": 20},
            "decision": {
                "alpha": "0.01",
                "minVotes": 5,
                "maxVotes": 50,
                "minEffect": "0.1",
                "weights": {"accuracy": 100, "latency": 0, "cost": 0},
            },
            "onWin": "Notify",
            "onLoss": "Rollback",
        },
    ),
    "users' feedback": (
        {"candidate": "plato-v2", "weights": {"accuracy_from": "ratings"}},
        LITTLE | {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 20, "accuracyFrom": "Ratings"}}},
    ),
    "the usual weights": (
        {"candidate": "plato-v2", "weights": {}},
        LITTLE | {"decision": {"weights": {"accuracy": 60, "latency": 20, "cost": 20}}},
    ),
    "a spec": ({"spec": LITTLE}, LITTLE),
}


@pytest.mark.parametrize("case", SPECS)
def test_specs(case: str) -> None:
    body, spec = SPECS[case]
    assert abtest_spec(AbTestRequest.model_validate(body)) == spec
    ABTestSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "candidate must be set"),
        ({"candidate": "plato"}, "candidate"),
        ({"candidate": "plato-v2", "prompts": []}, "prompts"),
        ({"candidate": "plato-v2", "spec": LITTLE}, "remove candidate"),
        ({"candidate": "plato-v2", "alpha": 1}, "alpha"),
        ({"candidate": "plato-v2", "min_effect": "0.5"}, "min_effect"),
        ({"candidate": "plato-v2", "min_effect": "0.001"}, "min_effect"),
        ({"candidate": "plato-v2", "weights": {"accuracy": 100}}, "must sum to 100, not 140"),
        ({"candidate": "plato-v2", "weights": {"speed": 20}}, "speed"),
        ({"candidate": "plato-v2", "alpha": "1e-100000000"}, "at most 24 characters"),
    ],
)
def test_mistakes_are_named(body: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AbTestRequest.model_validate(body)


async def test_a_test_is_an_abtest(rest: Rest) -> None:
    body = {"candidate": "plato-v2", "test_prompts": ["What is AI?"]}
    first = await rest.post(TESTS, body, idempotency_key="k")
    again = await rest.post(TESTS, body, idempotency_key="k")
    assert (first.status_code, again.status_code) == (201, 200)
    made = first.json()
    assert made == again.json()
    assert made["manifest"]["spec"] == LITTLE | {"prompts": ["What is AI?"]}
    assert first.headers["location"] == f"{TESTS}/{made['id']}"
    listed = (await rest.get(TESTS, READER, model="plato")).json()
    assert [test["id"] for test in listed["tests"]] == [made["id"], "finetune.v1-v2"]
    assert (await rest.get(TESTS, API_TOKEN, phase="Running")).json()["total"] == 0


async def test_an_id_is_as_good_as_namespace_and_name(rest: Rest) -> None:
    for name in ("finetune.v1-v2", "v1-v2"):
        compared = (await rest.post(f"{TESTS}/{name}/comparisons", {"evaluator": name}, API_TOKEN)).json()
        vote = {"comparison_id": compared["comparison_id"], "evaluator": name, "vote": "tie"}
        assert (await rest.post(f"{TESTS}/{name}/vote", vote, API_TOKEN)).json()["vote"] == "tie"
    for name, path in itertools.product(("finetune.v1-v2", "v1-v2"), ("", "/voters", "/win-rates")):
        by_id = await rest.get(f"{TESTS}/{name}{path}", READER)
        assert by_id.status_code == 200, by_id.text
        assert by_id.json() == (await rest.get(f"{TESTS}/finetune/v1-v2{path}", READER)).json()
    for name in ("finetune.v1-v2", "v1-v2"):
        listed = (await rest.get(f"{TESTS}/{name}/comparisons", READER)).json()["comparisons"]
        assert {entry["evaluator"] for entry in listed} == {"finetune.v1-v2", "v1-v2"}
    state = (await rest.get(f"{TESTS}/v1-v2", READER)).json()
    assert (state["id"], state["manifest"]["kind"]) == ("finetune.v1-v2", "ABTest")


@pytest.mark.parametrize("name", ["comparisons", "samples"])
async def test_a_test_may_be_called_as_what_it_has(rest: Rest, name: str) -> None:
    body = rest.cluster.objects["abtests", "finetune", "v1-v2"]
    rest.cluster.put("abtests", body | {"metadata": body["metadata"] | {"name": name}})
    assert (await rest.get(f"{TESTS}/finetune/{name}", READER)).json()["name"] == name
    assert is_problem(await rest.get(f"{TESTS}/finetune/voters", READER), 404, "unknown-ab-test")


async def test_a_test_is_told_to_who_may_not_read_versions(rest: Rest) -> None:
    rest.cluster.users["judge"] = User("judge", {("get", "abtests")})
    response = await rest.get(f"{TESTS}/v1-v2", {"Authorization": "Bearer judge"})
    assert (response.status_code, response.json()["baseline"]) == (200, None)
    assert (await rest.get(f"{TESTS}/v1-v2", READER)).json()["baseline"] == "tiny"


async def test_ending_a_test_is_asked_for_once_and_not_after_its_verdict(rest: Rest) -> None:
    for _ in range(2):
        answer = await rest.post(f"{TESTS}/v1-v2/cancel")
        assert answer.json()["manifest"]["spec"]["cancel"] is True
    assert len(rest.cluster.writes()) == 1
    rest.cluster.put("abtests", ab_test() | {"status": {"verdict": "Won"}})
    assert is_problem(await rest.post(f"{TESTS}/v1-v2/cancel"), 409, "finished")
