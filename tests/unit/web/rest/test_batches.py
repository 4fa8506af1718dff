"""Batches over REST: what a request makes, what is told of a batch, and the first of its answers."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_operator.contract.places import BATCH_ANSWERS_PATH
from finetune_operator.resources.abtest import ABTestSpec
from finetune_operator.resources.batch_inference import BatchInferenceSpec
from finetune_operator.web.batch_requests import BatchRequest, batch_objects
from finetune_operator.web.job_requests import ApiVolumes, WrongRequest
from tests.builders import batch_object
from tests.unit.web.conftest import INTERNAL
from tests.unit.web.rest.conftest import API_TOKEN, NOBODY, READER, Rest
from tests.unit.web.test_access import is_problem

BATCHES = "/v1/fine-tuning/batches"
ANSWERS = f"{BATCHES}/finetune.sums"
DIGEST = "0" * 32
LITTLE: dict[str, Any] = {"modelVersion": "plato-v2", "dataset": {"ratings": {}}}


def stored(record_format: str, **more: str) -> dict[str, Any]:
    return {"stored": {"path": f"{record_format}-{DIGEST}/train.jsonl"}} | more


SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as little as possible": ({}, {}),
    "beside the base model": ({"compare_with": "base"}, {"compareWith": {"base": True}}),
    "beside a version": ({"compare_with": "plato-v1"}, {"compareWith": {"modelVersion": "plato-v1"}}),
    "some ratings": (
        {"domain": "ethics", "min_rating": 1, "gold_star_only": False, "ratings_claim": "ratings"},
        {"dataset": {"ratings": {"domain": "ethics", "minRating": 1, "goldStarOnly": False, "claimName": "ratings"}}},
    ),
    "a file on a volume": (
        {"dataset_path": "volume://data/a/q.jsonl"},
        {"dataset": {"volume": {"claimName": "data", "path": "a/q.jsonl"}}},
    ),
    "a file in a store, of a format": (
        {"dataset_path": "s3://bucket/q.jsonl", "format": "alpaca"},
        {"dataset": {"s3": {"url": "s3://bucket/q.jsonl"}, "format": "Alpaca"}},
    ),
    "an exported dataset": (
        {"dataset_path": f"chatml-{DIGEST}/train.jsonl"},
        {"dataset": stored("chatml", format="ChatML")},
    ),
    "an exported dataset of instructions": (
        {"dataset_path": f"rawjsonl-{DIGEST}/train.jsonl"},
        {"dataset": stored("rawjsonl", format="RawJSONL")},
    ),
    "an export of pairs, which have a prompt": (
        {"dataset_path": f"dpo-{DIGEST}/train.jsonl"},
        {"dataset": stored("dpo")},
    ),
    "an uploaded file": (
        {"dataset_path": f"file-{DIGEST}/data.jsonl"},
        {"dataset": {"stored": {"path": f"file-{DIGEST}/data.jsonl"}}},
    ),
    "an uploaded file of a format": (
        {"dataset_path": f"file-{DIGEST}/data.jsonl", "format": "openai"},
        {"dataset": {"stored": {"path": f"file-{DIGEST}/data.jsonl"}, "format": "OpenAI"}},
    ),
    "how it is asked": (
        {
            "limit": 20,
            "max_tokens": 64,
            "temperature": 0.7,
            "top_p": "0.9",
            "seed": 7,
            "max_concurrent_requests": 32,
        },
        {
            "limit": 20,
            "parameters": {"maxTokens": 64, "temperature": "0.7", "topP": "0.9", "seed": 7},
            "maxConcurrentRequests": 32,
        },
    ),
}


@pytest.mark.parametrize(("members", "expected"), SPECS.values(), ids=SPECS)
def test_what_a_request_makes(members: dict[str, Any], expected: dict[str, Any]) -> None:
    request = BatchRequest.model_validate({"model_version": "plato-v2"} | members)
    made = batch_objects(request, "finetune", "sums", None, None)
    assert made.batch["spec"] == LITTLE | expected
    assert made.test is None
    BatchInferenceSpec.model_validate(made.batch["spec"])


def test_a_spec_is_taken_as_it_is() -> None:
    made = batch_objects(BatchRequest(spec=LITTLE), "finetune", "sums", None, None)
    assert made.batch["spec"] == LITTLE


def test_where_the_volume_of_datasets_is_it_is_mounted() -> None:
    request = BatchRequest(model_version="plato-v2", dataset_path=f"chatml-{DIGEST}/train.jsonl")
    places = {
        namespace: batch_objects(request, namespace, "sums", None, ApiVolumes("finetune", "datasets"))
        for namespace in ("finetune", "other")
    }
    assert places["finetune"].batch["spec"]["dataset"] == {
        "volume": {"claimName": "datasets", "path": f"chatml-{DIGEST}/train.jsonl"},
        "format": "ChatML",
    }
    assert places["other"].batch["spec"]["dataset"] == stored("chatml", format="ChatML")


def test_a_vote_is_on_a_test_of_the_same_name() -> None:
    request = BatchRequest(model_version="plato-v2", compare_with="base", vote=True)
    made = batch_objects(request, "finetune", "sums", None, None)
    assert made.batch["spec"]["abTest"] == {"name": "sums"}
    assert made.test is not None
    assert made.test["metadata"]["name"] == "sums"
    assert made.test["spec"] == {
        "model": "plato",
        "baseline": {"base": True},
        "candidate": {"modelVersion": "plato-v2"},
        "onWin": "Notify",
    }
    ABTestSpec.model_validate(made.test["spec"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nobody is asked": ({"model_version": None}, "model_version must be set"),
    "both forms": ({"spec": LITTLE}, "send either `spec` or flat members"),
    "against itself": ({"compare_with": "plato-v2"}, "choose another version"),
    "a vote on one answer": ({"vote": True}, "set compare_with"),
    "a vote on two models": ({"vote": True, "compare_with": "kant-v1"}, "switch voting off"),
    "filters of a file": (
        {"dataset_path": "volume://a/b", "domain": "ethics"},
        "domain choose ratings, which dataset_path replaces",
    ),
    "a format of ratings": ({"format": "alpaca"}, "format is of the rows at dataset_path"),
    "pairs": ({"dataset_path": "volume://a/b", "format": "dpo"}, "format"),
    "no version": ({"model_version": "plato"}, "model_version"),
    "too hot": ({"temperature": 2.1}, "temperature"),
}


@pytest.mark.parametrize(("members", "hint"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_says_so(members: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint):
        BatchRequest.model_validate({"model_version": "plato-v2"} | members)


@pytest.mark.parametrize("path", ["volume://claim", "chatml-1/train.jsonl", "/etc/passwd"])
def test_no_place_of_a_dataset(path: str) -> None:
    request = BatchRequest(model_version="plato-v2", dataset_path=path)
    with pytest.raises(WrongRequest, match="dataset_path: write volume://"):
        batch_objects(request, "finetune", "sums", None, None)


class TestLife:
    async def test_it_is_made_in_the_callers_name(self, rest: Rest) -> None:
        response = await rest.post(BATCHES, {"name": "sums", "model_version": "plato-v2"})
        assert response.status_code == 201, response.text
        assert response.headers["location"] == f"{BATCHES}/finetune.sums"
        body = response.json()
        assert (body["id"], body["model_version"], body["phase"]) == ("finetune.sums", "plato-v2", None)
        assert body["manifest"]["spec"] == LITTLE
        taken = await rest.post(BATCHES, {"name": "sums", "model_version": "plato-v2"})
        assert is_problem(taken, 409, "already-exists")

    async def test_what_the_api_does_not_keep_is_no_dataset(self, rest: Rest, tmp_path: Path) -> None:
        body = {"model_version": "plato-v2", "dataset_path": f"chatml-{DIGEST}/train.jsonl"}
        assert is_problem(await rest.post(BATCHES, body), 409, "datasets-not-configured")
        object.__setattr__(rest.services.settings, "datasets_directory", tmp_path)
        assert is_problem(await rest.post(BATCHES, body), 404, "unknown-file")
        body["dataset_path"] = f"file-{DIGEST}/data.jsonl"
        assert is_problem(await rest.post(BATCHES, body), 404, "unknown-file")
        assert rest.cluster.names("batchinferences") == []

    async def test_a_key_makes_it_and_its_test_once(self, rest: Rest) -> None:
        body = {"model_version": "plato-v2", "compare_with": "base", "vote": True}
        answers = [await rest.post(BATCHES, body, Idempotency_Key="night") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 200]
        assert answers[0].json()["id"] == answers[1].json()["id"]
        (name,) = rest.cluster.names("batchinferences")
        assert name in rest.cluster.names("abtests")
        assert answers[0].json()["ab_test"] == f"finetune.{name}"
        other = await rest.post(BATCHES, body | {"limit": 5}, Idempotency_Key="night")
        assert is_problem(other, 409, "idempotency-key-reused")

    async def test_a_key_and_a_name_are_one_too_many(self, rest: Rest) -> None:
        body = {"name": "sums", "model_version": "plato-v2"}
        assert is_problem(await rest.post(BATCHES, body, Idempotency_Key="night"), 422, "name-and-key")

    async def test_it_is_suspended_and_resumed(self, rest: Rest) -> None:
        rest.cluster.put("batchinferences", batch_object(name="sums"))
        for verb, suspended in (("suspend", True), ("suspend", True), ("resume", False)):
            response = await rest.post(f"{BATCHES}/finetune.sums/{verb}")
            assert (response.status_code, response.json()["suspended"]) == (200, suspended)

    async def test_cancelled_it_stays_so(self, rest: Rest) -> None:
        rest.cluster.put("batchinferences", batch_object(name="sums"))
        for _ in range(2):
            response = await rest.post(f"{BATCHES}/finetune.sums/cancel")
            assert (response.status_code, response.json()["cancelled"]) == (200, True)
        for verb in ("suspend", "resume"):
            assert is_problem(await rest.post(f"{BATCHES}/finetune.sums/{verb}"), 409, "cancelled")

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
    async def test_what_has_ended_stays_as_it_is(self, rest: Rest, phase: str) -> None:
        rest.cluster.put("batchinferences", batch_object(name="sums", status={"phase": phase}))
        for verb in ("suspend", "resume", "cancel"):
            assert is_problem(await rest.post(f"{BATCHES}/finetune.sums/{verb}"), 409, "finished")

    async def test_deleted_it_and_its_answers_are_gone(self, rest: Rest) -> None:
        batch = rest.cluster.put("batchinferences", batch_object(name="sums"))
        await told(rest, batch, answer(1))
        assert (await rest.ask("DELETE", f"{BATCHES}/finetune.sums")).status_code == 204
        assert is_problem(await rest.get(f"{BATCHES}/finetune.sums"), 404, "unknown-batch-inference")
        rest.cluster.put("batchinferences", batch)
        assert (await rest.get(f"{ANSWERS}/answers")).json()["rows"] == []

    async def test_what_is_told_of_its_results(self, rest: Rest) -> None:
        models = [{"servedName": "plato-v2", "file": "results/plato-v2.jsonl", "failed": 1, "firstError": "too long"}]
        results = {"uri": "volume://artifacts/a", "rows": 12, "failed": 1, "digest": f"sha256:{'0' * 64}"}
        status = {
            "phase": "Succeeded",
            "progress": {"percent": 100, "done": 12, "total": 12, "failed": 1},
            "results": results | {"models": models},
            "tokens": {"prompt": 48, "completion": 40},
        }
        rest.cluster.put("batchinferences", batch_object(name="sums", status=status))
        body = (await rest.get(f"{BATCHES}/finetune.sums")).json()
        assert (body["progress"]["percent"], body["tokens"]) == (100, {"prompt": 48, "completion": 40})
        assert body["results"]["files"] == [
            {
                "served_name": "plato-v2",
                "uri": "volume://artifacts/a/results/plato-v2.jsonl",
                "failed": 1,
                "first_error": "too long",
            }
        ]


class TestLists:
    @pytest.fixture(autouse=True)
    def several(self, rest: Rest) -> None:
        for number, (model, phase) in enumerate(
            itertools.product(("plato-v1", "kant-v1"), ("Running", "Succeeded")), start=1
        ):
            body = batch_object({"modelVersion": model}, name=f"sums-{number}", status={"phase": phase})
            rest.cluster.put("batchinferences", body)

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({}, ["sums-4", "sums-3", "sums-2", "sums-1"]),
            ({"phase": "Running"}, ["sums-3", "sums-1"]),
            ({"model": "plato"}, ["sums-2", "sums-1"]),
            ({"model": "kant", "phase": "Succeeded"}, ["sums-4"]),
            ({"namespace": "finetune", "limit": 1}, ["sums-4"]),
        ],
        ids=["all", "of a phase", "of a model", "of both", "the first"],
    )
    async def test_the_newest_first(self, rest: Rest, params: dict[str, Any], expected: list[str]) -> None:
        body = (await rest.get(BATCHES, READER, **params)).json()
        assert [batch["name"] for batch in body["batches"]] == expected

    async def test_a_page_goes_on_after_the_one_before(self, rest: Rest) -> None:
        names, after = [], ""
        for _ in range(2):
            body = (await rest.get(BATCHES, READER, limit=2, **({"after": after} if after else {}))).json()
            names.append([batch["name"] for batch in body["batches"]])
            after = body["next"]
        assert names == [["sums-4", "sums-3"], ["sums-2", "sums-1"]]
        assert (body["total"], body["has_more"], after) == (4, False, None)


def answer(number: int, name: str = "plato-v1", **changes: Any) -> dict[str, Any]:
    told_ = {"number": number, "servedName": name, "customId": f"row-{number}", "prompt": f"{number}+{number}?"}
    return told_ | {"answer": f"it is {2 * number}"} | changes


async def told(rest: Rest, batch: dict[str, Any], *answers: dict[str, Any]) -> int:
    metadata = {name: batch["metadata"][name] for name in ("namespace", "name", "uid")}
    path = BATCH_ANSWERS_PATH.format(uid=metadata["uid"])
    body = {"batch": metadata, "answers": answers}
    return (await rest.client.put(path, json=body, headers=INTERNAL)).status_code


class TestAnswers:
    @pytest.fixture
    def batch(self, rest: Rest) -> dict[str, Any]:
        return rest.cluster.put("batchinferences", batch_object({"compareWith": {"base": True}}, name="sums"))

    async def test_side_by_side_the_versions_first(self, rest: Rest, batch: dict[str, Any]) -> None:
        failed = answer(1, "a-base", answer=None, error="too long")
        assert await told(rest, batch, failed, answer(1), answer(2, shortened=True)) == 204
        body = (await rest.get(f"{ANSWERS}/answers", READER)).json()
        assert (body["kept"], body["has_more"], body["next"]) == (2, False, None)
        first, second = body["rows"]
        assert (first["number"], first["custom_id"], first["prompt"]) == (1, "row-1", "1+1?")
        assert first["answers"] == [
            {"served_name": "plato-v1", "answer": "it is 2", "error": None, "shortened": False},
            {"served_name": "a-base", "answer": None, "error": "too long", "shortened": False},
        ]
        assert second["answers"][0]["shortened"]

    async def test_a_page_goes_on_after_the_one_before(self, rest: Rest, batch: dict[str, Any]) -> None:
        await told(rest, batch, *(answer(number) for number in range(1, 6)))
        pages, after = [], 0
        for _ in range(3):
            body = (await rest.get(f"{ANSWERS}/answers", READER, limit=2, after=after)).json()
            pages.append([row["number"] for row in body["rows"]])
            after = body["next"]
        assert (pages, after) == ([[1, 2], [3, 4], [5]], None)

    async def test_who_may_not_read_the_batch_reads_no_answer(self, rest: Rest, batch: dict[str, Any]) -> None:
        await told(rest, batch, answer(1))
        assert (await rest.get(f"{ANSWERS}/answers", NOBODY)).status_code == 403
        assert (await rest.get(f"{ANSWERS}/answers", API_TOKEN)).status_code == 403
        assert is_problem(await rest.get(f"{BATCHES}/finetune.other/answers"), 404, "unknown-batch-inference")

    @pytest.mark.parametrize(
        "change",
        [{"prompt": "x" * 4001}, {"number": 101}, {"number": 0}, {"answer": None}, {"error": "both"}],
        ids=["too long", "too many", "no row", "neither", "both"],
    )
    async def test_what_is_no_answer_is_refused(
        self, rest: Rest, batch: dict[str, Any], change: dict[str, Any]
    ) -> None:
        assert await told(rest, batch, answer(1) | change) == 422
