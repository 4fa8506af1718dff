"""Fine-tuned models over REST: versions are listed, deployed and rolled back by who asks."""

from typing import Any

import pytest

from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.version_changes import previous_version
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import job_object, version_object
from tests.unit.web.rest.conftest import API_TOKEN, READER, Rest
from tests.unit.web.rest.example_requests import LOADED
from tests.unit.web.test_access import is_problem

MODELS = "/v1/fine-tuning/models"
BASE_MODELS = "/v1/fine-tuning/base-models"


def history(*previous: str | None) -> list[dict[str, Any]]:
    entry = {"time": "2026-11-22T12:00:00Z", "state": "Deployed", "why": "test", "who": "kubectl-patch"}
    return [entry | ({"previous": name} if name else {}) for name in previous]


def put_version(
    rest: Rest, number: int, *, promoted: int | None = None, history: Any = (), state: str = "Ready", **spec: Any
) -> None:
    status = {"state": state, "engine": "vllm-a", "conditions": [LOADED], "history": list(history)}
    if promoted is not None:
        status["promotedAt"] = f"2026-11-22T12:{promoted:02}:00Z"
    rest.cluster.put("modelversions", version_object(number, spec, status=status))


def spec_of(rest: Rest, number: int) -> dict[str, Any]:
    spec: dict[str, Any] = rest.cluster.objects["modelversions", "finetune", f"plato-v{number}"]["spec"]
    return spec


@pytest.fixture
def family(rest: Rest) -> Rest:
    """v1 was active before v2; v3 is loaded."""
    put_version(rest, 1, promoted=1)
    put_version(rest, 2, promoted=2, history=history("plato-v0", "plato-v1"))
    put_version(rest, 3)
    return rest


class TestReading:
    async def test_a_page_reads_the_jobs_that_it_names_alone(self, family: Rest) -> None:
        assert (await family.get(MODELS, READER)).status_code == 200
        assert family.cluster.lists == ["modelversions"]

    @pytest.mark.parametrize(("action", "name"), [("deploy", "plato-v3"), ("rollback", "plato-v2")])
    async def test_a_change_lists_once(self, family: Rest, action: str, name: str) -> None:
        body = (await family.post(f"{MODELS}/finetune.{name}/{action}")).json()
        assert family.cluster.lists == ["modelversions"]
        assert body["requested_state"] == "Deployed"

    async def test_one_says_where_it_stands(self, family: Rest) -> None:
        body = (await family.get(f"{MODELS}/finetune.plato-v2", READER)).json()
        assert (body["id"], body["active"], body["state"]) == ("finetune.plato-v2", True, "Ready")
        assert (body["manifest"]["kind"], body["manifest"]["metadata"]["name"]) == ("ModelVersion", "plato-v2")
        assert [change["previous"] for change in body["history"]] == ["plato-v0", "plato-v1"]
        assert is_problem(await family.get(f"{MODELS}/plato-v9", READER), 404, "unknown-model-version")

    async def test_the_list_knows_which_is_active(self, family: Rest) -> None:
        body = (await family.get(MODELS, READER, model="plato")).json()
        assert {entry["name"]: entry["active"] for entry in body["models"]} == {
            "plato-v1": False,
            "plato-v2": True,
            "plato-v3": False,
        }
        assert "manifest" not in body["models"][0]
        page = (await family.get(MODELS, READER, limit=1)).json()
        assert (len(page["models"]), page["total"], page["has_more"]) == (1, 3, True)
        assert (await family.get(MODELS, READER, state="Archived")).json()["total"] == 0

    async def test_philosopher_and_domain_are_the_jobs(self, family: Rest) -> None:
        spec = {"dataset": {"ratings": {"philosopher": "ada", "domain": "law"}}}
        family.cluster.put("finetunejobs", job_object(spec, name="plato-job-3", uid="job-3"))
        family.cluster.put("finetunejobs", job_object(spec, name="plato-job-1", uid="of another one of this name"))
        for query in ({"philosopher": "ada"}, {"domain": "law"}, {"philosopher": "ada", "domain": "law"}):
            found = (await family.get(MODELS, READER, **query)).json()["models"]
            assert [(entry["name"], entry["philosopher"], entry["domain"]) for entry in found] == [
                ("plato-v3", "ada", "law")
            ]
        assert (await family.get(MODELS, READER, domain="art")).json()["total"] == 0
        assert (await family.get(f"{MODELS}/plato-v3", READER)).json()["domain"] == "law"
        assert (await family.get(f"{MODELS}/plato-v1", READER)).json()["domain"] is None

    async def test_the_apis_token_reads_versions_and_not_whose_they_are(self, family: Rest) -> None:
        assert (await family.get(MODELS, API_TOKEN)).json()["total"] == 3
        assert (await family.get(f"{MODELS}/plato-v3", API_TOKEN)).json()["philosopher"] is None
        assert is_problem(await family.get(MODELS, API_TOKEN, domain="law"), 403, "kubernetes-token-needed")


class TestDeploy:
    async def test_serves_and_pins(self, family: Rest) -> None:
        put_version(family, 4, serving=None)
        wanted = {"gpu_memory_utilization": 0.5, "max_model_len": 512, "tensor_parallel_size": 2, "notes": "first"}
        body = (await family.post(f"{MODELS}/finetune.plato-v4/deploy", wanted)).json()
        assert (body["requested_state"], body["notes"]) == ("Deployed", "first")
        serving = {"gpuMemoryUtilization": "0.5", "maxModelLen": 512, "tensorParallelSize": 2}
        assert spec_of(family, 4) | {"serving": serving, "state": "Deployed", "notes": "first"} == spec_of(family, 4)

    async def test_says_nothing_of_what_was_not_asked(self, family: Rest) -> None:
        before = spec_of(family, 3)
        assert (await family.post(f"{MODELS}/plato-v3/deploy")).status_code == 200
        assert spec_of(family, 3) == before | {"state": "Deployed"}

    async def test_takes_back_pins_that_could_win(self, family: Rest) -> None:
        put_version(family, 1, promoted=1, state="Deployed")
        family.cluster.objects["modelversions", "finetune", "plato-v1"]["spec"]["state"] = "Deployed"
        body = (await family.post(f"{MODELS}/plato-v3/deploy")).json()
        assert body["active"] is True
        assert "state" not in spec_of(family, 1)

    @pytest.mark.parametrize(
        "body",
        [
            {"replicas": 2},
            {"gpu_memory_utilization": 2},
            {"gpu_memory_utilization": "1e-99999999"},
            {"max_model_len": "long"},
        ],
    )
    async def test_wrong_wishes_are_named(self, family: Rest, body: dict[str, Any]) -> None:
        response = await family.post(f"{MODELS}/plato-v3/deploy", body)
        assert is_problem(response, 422, "invalid-request")
        assert next(iter(body)) in response.json()["detail"]


class TestServe:
    async def test_loads_it_beside_the_active_one(self, family: Rest) -> None:
        put_version(family, 4, serving=None)
        before = spec_of(family, 4)
        body = (await family.post(f"{MODELS}/plato-v4/serve", {"max_model_len": 512})).json()
        assert (body["served"], body["active"], body["requested_state"]) == (True, False, None)
        assert spec_of(family, 4) == before | {"serving": {"maxModelLen": 512}}
        again = await family.post(f"{MODELS}/plato-v4/serve")
        assert (again.status_code, spec_of(family, 4)["serving"]) == (200, {"maxModelLen": 512})


class TestEvaluate:
    async def test_asks_for_texts_scores_by_default(self, family: Rest) -> None:
        body = (await family.post(f"{MODELS}/plato-v3/evaluate")).json()
        assert spec_of(family, 3)["evaluation"] == {"metrics": ["RougeL", "TokenF1"]}
        assert body["evaluation"] == {"done": False, "reason": "Pending", "message": "the operator has not begun"}

    async def test_what_is_left_out_stays(self, family: Rest) -> None:
        wanted = {"metrics": ["Accuracy"], "max_examples": 7, "saturation": True}
        await family.post(f"{MODELS}/plato-v3/evaluate", wanted)
        assert spec_of(family, 3)["evaluation"] == {"metrics": ["Accuracy"], "maxExamples": 7, "saturation": {}}
        await family.post(f"{MODELS}/plato-v3/evaluate", {"metrics": ["F1"]})
        assert spec_of(family, 3)["evaluation"] == {"metrics": ["F1"], "maxExamples": 7, "saturation": {}}
        await family.post(f"{MODELS}/plato-v3/evaluate", {"metrics": ["F1"], "saturation": False})
        assert spec_of(family, 3)["evaluation"] == {"metrics": ["F1"], "maxExamples": 7}

    async def test_says_what_came_of_it(self, family: Rest) -> None:
        told = {"type": "Evaluated", "status": "True", "reason": "Measured", "message": "7 questions answered"}
        told |= {"lastTransitionTime": "2026-11-22T12:00:00Z"}
        assert (await family.get(f"{MODELS}/plato-v3", READER)).json()["evaluation"] is None
        version = version_object(3, {"evaluation": {"metrics": ["F1"]}}, status={"conditions": [LOADED, told]})
        for generation, expected in ((1, True), (2, False)):
            version["metadata"]["generation"] = generation
            version["status"]["conditions"][1]["observedGeneration"] = 1
            family.cluster.put("modelversions", version)
            found = (await family.get(f"{MODELS}/plato-v3", READER)).json()["evaluation"]
            assert found["done"] is expected

    @pytest.mark.parametrize("body", [{"metrics": []}, {"metrics": ["Beauty"]}, {"max_examples": 0}])
    async def test_wrong_wishes_are_named(self, family: Rest, body: dict[str, Any]) -> None:
        response = await family.post(f"{MODELS}/plato-v3/evaluate", body)
        assert is_problem(response, 422, "invalid-request")
        assert next(iter(body)) in response.json()["detail"]


class TestRollback:
    async def test_goes_to_the_one_before(self, family: Rest) -> None:
        body = (await family.post(f"{MODELS}/finetune.plato-v2/rollback")).json()
        assert (body["name"], body["active"], body["requested_state"]) == ("plato-v1", True, "Deployed")

    async def test_goes_where_it_is_told(self, family: Rest) -> None:
        assert (await family.post(f"{MODELS}/plato-v2/rollback", {"to": "plato-v3"})).json()["name"] == "plato-v3"
        assert is_problem(
            await family.post(f"{MODELS}/plato-v3/rollback", {"to": "plato-v9"}), 404, "unknown-model-version"
        )

    async def test_is_of_the_active_version(self, family: Rest) -> None:
        response = await family.post(f"{MODELS}/plato-v3/rollback")
        assert is_problem(response, 409, "not-active")
        assert "plato-v2 is" in response.json()["detail"]
        assert family.cluster.writes() == []

    async def test_needs_something_before(self, family: Rest) -> None:
        put_version(family, 2, promoted=2, history=history("plato-v0"))
        assert is_problem(await family.post(f"{MODELS}/plato-v2/rollback"), 409, "no-previous-version")


PREVIOUS: dict[str, tuple[tuple[str | None, ...], str, str | None]] = {
    "the latest that there was": (("plato-v1", "plato-v2"), "Ready", "plato-v2"),
    "none where it was the first": ((None,), "Ready", None),
    "none where it is gone": (("plato-v7",), "Ready", None),
    "none where it has failed": (("plato-v2",), "Failed", None),
    "not itself": (("plato-v1", "plato-v3"), "Ready", "plato-v1"),
}


@pytest.mark.parametrize("case", PREVIOUS)
def test_previous_version(case: str) -> None:
    named, state, expected = PREVIOUS[case]
    active = ModelVersion.parse(version_object(3, status={"history": history(*named)}))
    family = [active, *(ModelVersion.parse(version_object(number, status={"state": state})) for number in (1, 2))]
    found = previous_version(active, family)
    assert (found.metadata.name if found else None) == expected


async def test_base_models_to_begin_with(rest: Rest) -> None:
    found = (await rest.get(BASE_MODELS, READER)).json()["base_models"]
    assert [each["id"] for each in found] == [each.id for each in CATALOGUE]
    assert found[0] == {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(CATALOGUE[0]).items()
        if name != "shape"
    }
