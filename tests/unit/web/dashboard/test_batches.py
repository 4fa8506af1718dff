"""Batch runs: what the form makes, and what the pages show of a run."""

from typing import Any

import pytest

from finetune_operator.resources.abtest import ABTestSpec
from finetune_operator.resources.batch_inference import BatchInferenceSpec
from finetune_operator.web.dashboard.batch_forms import BatchForm, objects_of
from tests.builders import merged
from tests.unit.web.conftest import model_version
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import PlayedApiServer

SAID = {"namespace": "finetune", "name": "answers", "model_version": "plato-v2"}
FORM = {"name": "answers", "model_version": "finetune.plato-v2", "judged": "true"}
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
    "alone": ({"compare_with": "nobody"}, {"dataset": {"ratings": {}}}, None),
    "a file, nobody votes": (
        {"source": "volume", "path": "volume://data/a/prompts.jsonl", "judged": "false"},
        {
            "compareWith": {"base": True},
            "dataset": {"volume": {"claimName": "data", "path": "a/prompts.jsonl"}},
        },
        None,
    ),
}


@pytest.mark.parametrize(("changes", "expected", "test"), SPECS.values(), ids=SPECS)
def test_what_a_form_makes(changes: dict[str, str], expected: dict[str, Any], test: dict[str, Any] | None) -> None:
    made = objects_of(BatchForm.model_validate_strings(SAID | changes))
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
    "no file": ({"source": "volume"}, "say where the file is"),
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
    page = await editor.page("/batches/finetune.answers")
    assert "volume://artifacts/finetune/batches/answers/results/plato-v2.jsonl" in page
    assert "&lt;b&gt;too long" in page
    assert 'href="/model-comparison/tests/finetune.answers/vote"' in page
    assert "kubectl apply -f batch.yaml" in page


async def test_the_form_offers_what_is_served_and_knows_the_volume(editor: Browser, cluster: PlayedApiServer) -> None:
    assert 'value="finetune.plato-v2"' in await editor.page("/batches/new")
    await cluster.remove("modelversions", "finetune", "plato-v2")
    assert "nobody could answer" in await editor.page("/batches/new")
