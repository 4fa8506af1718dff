"""Batch runs: what the form makes, and what the pages show of a run."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.contract.batch_answers import BatchAnswer, BatchAnswers
from finetune_operator.contract.batch_inference import AskedModel
from finetune_operator.contract.places import INTERNAL_TOKEN_VARIABLE
from finetune_operator.contract.training import JobIdentity
from finetune_operator.evaluator.batch import run
from finetune_operator.manifests.batch_inference import batch_config
from finetune_operator.resources.abtest import ABTestSpec
from finetune_operator.resources.batch_inference import BatchInference, BatchInferenceSpec
from finetune_operator.store import batch_answers
from finetune_operator.web.batch_requests import batch_objects
from finetune_operator.web.dashboard.batch_forms import BatchForm
from tests.builders import CONFIG, batch_object, merged
from tests.unit.evaluator.batches import surroundings
from tests.unit.evaluator.engine_double import EngineDouble
from tests.unit.web.conftest import INTERNAL, model_version
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.test_fine_tuning import words
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import PlayedApiServer
from tests.unit.web.rest.test_files import listening

SAID = {"namespace": "finetune", "name": "answers", "model_version": "plato-v2"}
FORM = {"name": "answers", "model_version": "finetune.plato-v2", "judged": "true"}
EXPORTED, UPLOADED = f"chatml-{'0' * 32}/test.jsonl", f"file-{'0' * 32}/data.jsonl"
DIGEST = f"sha256:{'0' * 64}"

SPECS: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, Any] | None]] = {
    "against the base model, with votes": (
        {"domain": "ai", "ratings_claim": "ratings"},
        {
            "compareWith": {"base": True},
            "dataset": {"ratings": {"claimName": "ratings", "domain": "ai"}},
            "abTest": {"name": "answers"},
        },
        {"baseline": {"base": True}},
    ),
    "against another version": (
        {"compare_with": "plato-v1"},
        {
            "compareWith": {"modelVersion": "plato-v1"},
            "dataset": {"ratings": {}},
            "abTest": {"name": "answers"},
        },
        {"baseline": {"modelVersion": "plato-v1"}},
    ),
    "an exported dataset": (
        {"source": EXPORTED, "compare_with": "nobody", "domain": "of ratings alone"},
        {"dataset": {"stored": {"path": EXPORTED}, "format": "ChatML"}},
        None,
    ),
    "an uploaded file": (
        {"source": "file", "path": UPLOADED, "compare_with": "nobody"},
        {"dataset": {"stored": {"path": UPLOADED}}},
        None,
    ),
    "alone": ({"compare_with": "nobody"}, {"dataset": {"ratings": {}}}, None),
    "a file, nobody votes": (
        {"source": "file", "path": "volume://data/a/prompts.jsonl", "judged": "false"},
        {
            "compareWith": {"base": True},
            "dataset": {"volume": {"claimName": "data", "path": "a/prompts.jsonl"}},
        },
        None,
    ),
}


@pytest.mark.parametrize(("changes", "expected", "test"), SPECS.values(), ids=SPECS)
def test_what_a_form_makes(changes: dict[str, str], expected: dict[str, Any], test: dict[str, Any] | None) -> None:
    form = BatchForm.model_validate_strings(SAID | changes)
    made = batch_objects(form.request(), form.namespace, form.name, form.digest, None)
    always = {"modelVersion": "plato-v2", "limit": 100, "parameters": {"maxTokens": 256}}
    assert made.batch["spec"] == always | expected
    BatchInferenceSpec.model_validate(made.batch["spec"])
    if test is None:
        assert made.test is None
    else:
        assert made.test is not None
        assert (
            made.test["spec"]
            == {
                "model": "plato",
                "candidate": {"modelVersion": "plato-v2"},
                "onWin": "Notify",
            }
            | test
        )
        ABTestSpec.model_validate(made.test["spec"])


@pytest.fixture
def editor(rest: Rest) -> Browser:
    """With one version that is served."""
    rest.cluster.put("modelversions", merged(model_version(), {"spec": {"serving": {}}}))
    return Browser(rest, "editor")


async def test_a_run_is_made_once_with_the_test_that_gets_its_answers(
    editor: Browser, cluster: PlayedApiServer
) -> None:
    answers = [await editor.post("/batches", FORM) for _ in range(2)]
    assert {(each.status_code, each.headers["location"]) for each in answers} == {(303, "/batches/finetune.answers")}
    assert cluster.names("batchinferences") == ["answers"]
    assert cluster.names("abtests") == ["answers", "v1-v2"]


async def test_an_unticked_box_makes_no_test(editor: Browser, cluster: PlayedApiServer) -> None:
    await editor.post("/batches", {name: value for name, value in FORM.items() if name != "judged"})
    assert cluster.names("abtests") == ["v1-v2"]


MISTAKES = {
    "no file": ({"source": "file"}, "say where the file is"),
    "no place of a file": ({"source": "file", "path": "/etc/passwd"}, "dataset_path: write volume://"),
    "against itself": ({"compare_with": "plato-v2"}, "choose another version"),
    "another family": ({"compare_with": "kant-v1"}, "switch voting off"),
    "no number": ({"limit": "all"}, "limit"),
    "no version": ({"model_version": "finetune.plato"}, "model_version"),
}


@pytest.mark.parametrize(("changes", "hint"), MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_makes_nothing(
    editor: Browser, cluster: PlayedApiServer, changes: dict[str, str], hint: str
) -> None:
    assert hint in (await editor.post("/batches/preview", FORM | changes, HX_Request="true")).text
    assert (await editor.post("/batches", FORM | changes)).status_code == 422
    assert cluster.names("batchinferences") == []
    assert cluster.names("abtests") == ["v1-v2"]


async def test_the_preview_shows_both_objects(editor: Browser, cluster: PlayedApiServer) -> None:
    text = (await editor.post("/batches/preview", FORM, HX_Request="true")).text
    assert "kind: ABTest" in text
    assert "kind: BatchInference" in text
    assert "request-digest" not in text
    assert cluster.names("batchinferences") == []


async def test_a_run_is_followed_to_its_answers_and_to_their_vote(editor: Browser, cluster: PlayedApiServer) -> None:
    assert "No batch run yet" in await editor.page("/batches")
    await editor.post("/batches", FORM)
    assert 'href="/batches/finetune.answers"' in await editor.page("/batches")
    await cluster.tell(
        "batchinferences",
        "finetune",
        "answers",
        phase="Succeeded",
        results={
            "uri": "volume://artifacts/finetune/batches/answers",
            "rows": 20,
            "failed": 1,
            "digest": DIGEST,
            "pairs": 19,
            "models": [
                {"servedName": "plato-v2", "file": "results/plato-v2.jsonl", "failed": 1, "firstError": "<b>too long"},
                {"servedName": "tiny", "file": "results/tiny.jsonl", "failed": 0},
            ],
        },
    )
    assert 'href="/batches/finetune.answers"' in await editor.page("/batches?phase=Succeeded")
    running = await editor.page("/batches?phase=Running")
    assert "No batch run is running." in running
    assert "ftctl get batches -n finetune --phase Running" in running
    page = await editor.page("/batches/finetune.answers")
    assert "volume://artifacts/finetune/batches/answers/results/plato-v2.jsonl" in page
    assert "&lt;b&gt;too long" in page
    assert 'href="/model-comparison/tests/finetune.answers/vote"' in page
    assert "kubectl apply -f batch.yaml" in page


async def test_the_form_offers_what_is_served_and_knows_the_volume(editor: Browser, cluster: PlayedApiServer) -> None:
    assert 'value="finetune.plato-v2"' in await editor.page("/batches/new")
    await cluster.remove("modelversions", "finetune", "plato-v2")
    assert "nobody could answer" in await editor.page("/batches/new")


async def test_the_form_offers_what_was_exported(sighted: Rest) -> None:
    sighted.cluster.put("modelversions", merged(model_version(), {"spec": {"serving": {}}}))
    editor = Browser(sighted, "editor")
    made = await editor.post("/fine-tuning/datasets", {"test_fraction": "0.2", "switches": "gold_star_only"})
    dataset = made.headers["location"].rpartition("/")[2]
    assert f'href="/batches/new?dataset_path={dataset}/train.jsonl"' in await editor.page(made.headers["location"])
    page = await editor.page(f"/batches/new?dataset_path={dataset}/train.jsonl")
    assert f'<option value="{dataset}/train.jsonl" selected>' in page
    assert f'<option value="{dataset}/test.jsonl">' in page
    chosen = FORM | {"source": f"{dataset}/test.jsonl"}
    assert f"path: {dataset}/test.jsonl" in (await editor.post("/batches/preview", chosen, HX_Request="true")).text
    assert (await editor.post("/batches", chosen)).status_code == 303
    (batch,) = (body for (plural, *_), body in sighted.cluster.objects.items() if plural == "batchinferences")
    assert batch["spec"]["dataset"] == {"stored": {"path": f"{dataset}/test.jsonl"}, "format": "ChatML"}


async def test_what_the_form_makes_of_an_export_is_asked_and_answered(sighted: Rest, tmp_path: Path) -> None:
    """The pod's own process, over real sockets: it fetches the dataset of the api, and tells it the answers."""
    sighted.cluster.put("modelversions", merged(model_version(), {"spec": {"serving": {}}}))
    editor = Browser(sighted, "editor")
    dataset = (await editor.post("/fine-tuning/datasets")).headers["location"].rpartition("/")[2]
    chosen = FORM | {"source": f"{dataset}/train.jsonl", "compare_with": "nobody", "limit": "3"}
    page = (await editor.post("/batches", chosen)).headers["location"]
    batch = BatchInference.parse(sighted.cluster.objects["batchinferences", "finetune", "answers"])
    engine = EngineDouble({"plato-v2": {}})
    async with listening(sighted) as api_url, engine.running():
        models = (AskedModel(served_name="plato-v2", engine_url=engine.url),)
        config = batch_config(batch, models, replace(CONFIG, api_url=api_url))
        token = INTERNAL["Authorization"].removeprefix("Bearer ")
        around = surroundings(tmp_path, **{INTERNAL_TOKEN_VARIABLE: token})
        report = await asyncio.to_thread(run, config, around)
    assert report.rows == 3
    assert (await editor.page(page)).count('class="answered-row"') == 3
    rows = [json.loads(line) for line in (await editor.get(f"{page}/answers.jsonl")).text.splitlines()]
    assert [row["answers"][0]["answer"].strip() for row in rows] == ["what?"] * 3
    assert {row["prompt"] for row in rows} == {body["messages"][-1]["content"] for body in engine.asked}


class TestOneRun:
    """What its page shows of its answers, and what can be done with it."""

    PAGE = "/batches/finetune.sums"

    @pytest.fixture
    async def batch(self, rest: Rest) -> dict[str, Any]:
        status = {"phase": "Running", "directory": "volume://artifacts/finetune/batches/uid"}
        body = rest.cluster.put(
            "batchinferences", batch_object({"compareWith": {"base": True}}, name="sums", status=status)
        )
        identity = JobIdentity(namespace="finetune", name="sums", uid=body["metadata"]["uid"])
        told = [
            BatchAnswer(number=number, served_name=name, custom_id=f"row-{number}", prompt=f"{number}+0?", answer=said)
            for number in range(1, 13)
            for name, said in (("tiny", "<script>what?</script>"), ("plato-v1", f"it is {number}"))
        ]
        for begin in range(0, len(told), 20):
            sent = BatchAnswers(batch=identity, answers=tuple(told[begin : begin + 20]))
            await batch_answers.record(rest.services.engine, sent, rest.services.now())
        return body

    async def test_its_first_answers_are_side_by_side(self, editor: Browser, batch: dict[str, Any]) -> None:
        page = await editor.page(self.PAGE)
        assert page.count('class="answered-row"') == 10
        assert page.index("it is 1</pre>") < page.index("&lt;script&gt;what?"), "the version's comes first"
        assert "<script>what?" not in page
        assert f'href="{self.PAGE}?after=10#answers"' in page
        rest_of_it = await editor.page(f"{self.PAGE}?after=10")
        assert rest_of_it.count('class="answered-row"') == 2
        assert "it is 12</pre>" in rest_of_it

    async def test_they_are_downloaded_as_json_lines(self, editor: Browser, batch: dict[str, Any]) -> None:
        assert f'href="{self.PAGE}/answers.jsonl"' in await editor.page(self.PAGE)
        answer = await editor.get(f"{self.PAGE}/answers.jsonl")
        assert answer.headers["content-disposition"] == 'attachment; filename="sums.answers.jsonl"'
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert [row["number"] for row in rows] == list(range(1, 13))
        assert rows[0]["answers"][0] == {
            "served_name": "plato-v1", "answer": "it is 1", "error": None, "shortened": False,
        }  # fmt: skip

    async def test_it_says_how_to_copy_all_files(self, editor: Browser, batch: dict[str, Any]) -> None:
        page = await editor.page(self.PAGE)
        assert "kubectl cp files-sums:/artifacts/finetune/batches/uid" in page
        assert "ftctl answers sums -n finetune --script sums.sh" in page

    async def test_what_people_judge_blind_has_no_names_unless_one_asks(self, editor: Browser, rest: Rest) -> None:
        spec = {"compareWith": {"base": True}, "abTest": {"name": "v1-v2"}}
        rest.cluster.put("batchinferences", batch_object(spec, name="sums"))
        assert "Show who answered what" in await editor.page(self.PAGE)
        assert "Show who answered what" not in await editor.page(f"{self.PAGE}?named=true")

    async def test_it_is_suspended_resumed_and_cancelled(
        self, editor: Browser, cluster: PlayedApiServer, batch: dict[str, Any]
    ) -> None:
        for verb, other, suspended in (("suspend", "resume", True), ("resume", "suspend", False)):
            assert f'action="{self.PAGE}/{verb}"' in await editor.page(self.PAGE)
            assert (await editor.post(f"{self.PAGE}/{verb}")).headers["location"] == self.PAGE
            assert cluster.objects["batchinferences", "finetune", "sums"]["spec"]["suspend"] is suspended
            page = await editor.page(self.PAGE)
            assert f'action="{self.PAGE}/{other}"' in page
            assert f"ftctl {other} batch/sums" in page
        assert (await editor.post(f"{self.PAGE}/cancel")).headers["location"] == self.PAGE
        page = await editor.page(self.PAGE)
        assert "being cancelled" in page
        assert f'action="{self.PAGE}/' not in page

    async def test_what_has_ended_is_only_deleted(self, editor: Browser, rest: Rest, batch: dict[str, Any]) -> None:
        await rest.cluster.tell("batchinferences", "finetune", "sums", phase="Succeeded")
        page = await editor.page(self.PAGE)
        assert f'action="{self.PAGE}/suspend"' not in page
        assert f'action="{self.PAGE}/delete"' in page
        assert (await editor.post(f"{self.PAGE}/delete")).headers["location"] == "/batches"
        assert rest.cluster.names("batchinferences") == []

    async def test_a_reader_changes_nothing(self, rest: Rest, batch: dict[str, Any]) -> None:
        reader = Browser(rest, "reader")
        assert "it is 1</pre>" in await reader.page(self.PAGE)
        for verb in ("suspend", "delete"):
            assert (await reader.post(f"{self.PAGE}/{verb}")).status_code == 403
        assert rest.cluster.names("batchinferences") == ["sums"]


COSTS: dict[str, tuple[dict[str, Any], str]] = {
    "known": (
        {"cost": {"currency": "USD", "spent": "2.5", "basis": "plato-v2: 9 generated tokens x 2 USD per million"}},
        "Cost 2.50 USD plato-v2: 9 generated tokens x 2 USD per million",
    ),
    "unknown": (
        {"cost": {"unknown": "plato-v2: no price for cpu: set prices.perHour.cpu"}},
        "plato-v2: no price for cpu: set prices.perHour.cpu",
    ),
    "not known yet": ({}, "its tokens are told with its results, once all are there"),
}


@pytest.mark.parametrize(("status", "shown"), COSTS.values(), ids=COSTS.keys())
async def test_a_run_shows_its_cost_with_its_basis_or_a_reason(
    editor: Browser, cluster: PlayedApiServer, status: dict[str, Any], shown: str
) -> None:
    cluster.put("batchinferences", batch_object(status={"phase": "Running"} | status))
    assert shown in words(await editor.page("/batches/finetune.answers"))
