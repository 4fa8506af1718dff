"""The wizard's pages: what each step shows and makes, and that nothing is lost on the way."""

import re
from typing import Any

import pytest

from finetune_operator.web.problems import Problem
from tests.builders import merged
from tests.unit.web.conftest import model_version
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.test_wizard_choices import LIKE
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import PlayedApiServer

CHOSEN = {"base_model": "Qwen/Qwen3-0.6B", "model": "plato", "domain": "ethics"}
QUERY = "base_model=Qwen%2FQwen3-0.6B&model=plato&domain=ethics"
EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def editor(rest: Rest) -> Browser:
    """With one ABTest and its candidate to look at, and nothing else."""
    return Browser(rest, "editor")


def job(status: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": "plato-1", "namespace": "finetune", "uid": "00000000-0000-4000-8000-000000000001"}
    return {"kind": "FineTuneJob", "metadata": metadata, "spec": LIKE, "status": status or {}}


async def test_the_first_step_offers_models_and_earlier_trainings(editor: Browser, cluster: PlayedApiServer) -> None:
    assert "Go on from an earlier training" not in (await editor.get("/wizard")).text
    cluster.put("finetunejobs", job())
    page = (await editor.get("/wizard")).text
    assert 'value="finetune.plato-1"' in page
    assert 'value="Qwen/Qwen3-0.6B"' in page


@pytest.mark.parametrize("path", ["/wizard", f"/wizard/data?{QUERY}", f"/wizard/train?{QUERY}"])
async def test_no_element_has_two_ids_and_no_two_the_same(editor: Browser, path: str) -> None:
    page = (await editor.get(path)).text
    tags = [re.findall(r'\sid="([^"]*)"', tag) for tag in re.findall(r"<[a-z][^>]*>", page)]
    assert [ids for ids in tags if len(ids) > 1] == []
    found = [ids[0] for ids in tags if ids]
    assert len(found) == len(set(found))
    assert set(re.findall(r'<label[^>]* for="([^"]+)"', page)) <= set(found)


@pytest.mark.parametrize("path", ["/wizard/data", "/wizard/train"])
async def test_choices_are_carried_along_in_the_address(editor: Browser, path: str) -> None:
    page = (await editor.get(f"{path}?{QUERY}")).text
    assert 'name="base_model" value="Qwen/Qwen3-0.6B"' in page
    assert 'value="ethics"' in page
    assert f'href="/wizard?{QUERY}'.replace("&", "&amp;") in page


@pytest.mark.parametrize("path", ["/wizard/data", "/wizard/train"])
async def test_a_step_without_the_one_before_says_so(editor: Browser, path: str) -> None:
    answer = await editor.get(path)
    assert answer.status_code == 422
    assert "step 1" in answer.text


async def test_what_it_would_make_is_shown_before(editor: Browser, cluster: PlayedApiServer) -> None:
    answer = await editor.post("/wizard/train/outlook", CHOSEN, HX_Request="true")
    assert answer.status_code == 200
    assert "kind: FineTuneJob" in answer.text
    assert "domain: ethics" in answer.text
    assert "kubectl apply -f job.yaml" in answer.text
    assert cluster.names("finetunejobs") == []


class BrokenWorker:
    """A ratings database that does not answer."""

    async def outcome(self, *_: object) -> None:
        raise Problem(503, "ratings-unreachable", "the ratings database did not answer")


async def test_a_ratings_database_that_is_away_hides_the_counts_alone(editor: Browser) -> None:
    object.__setattr__(editor.rest.services, "worker", BrokenWorker())
    answer = await editor.post("/wizard/train/outlook", CHOSEN, HX_Request="true")
    assert "the ratings database did not answer" in answer.text
    assert "kind: FineTuneJob" in answer.text
    counts = await editor.post("/wizard/data/count", CHOSEN, HX_Request="true")
    assert (counts.status_code, "did not answer" in counts.text) == (200, True)


async def test_a_mistake_is_told_beside_the_form_and_makes_nothing(editor: Browser, cluster: PlayedApiServer) -> None:
    wrong = CHOSEN | {"num_epochs": "many"}
    assert "num_epochs" in (await editor.post("/wizard/train/outlook", wrong, HX_Request="true")).text
    assert (await editor.post("/wizard/train", wrong)).status_code == 422
    assert cluster.names("finetunejobs") == []


async def test_a_training_is_made_once_by_the_key_of_the_page(editor: Browser, cluster: PlayedApiServer) -> None:
    page = (await editor.get(f"/wizard/train?{QUERY}")).text
    key = re.findall(r'name="key" value="([0-9a-f]{8})"', page)[0]
    answers = [await editor.post("/wizard/train", CHOSEN | {"key": key}) for _ in range(2)]
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(cluster.names("finetunejobs")) == 1
    spec = cluster.objects["finetunejobs", "finetune", cluster.names("finetunejobs")[0]]["spec"]
    assert (spec["promotion"], spec["serving"]) == ("Manual", {})


async def test_an_earlier_training_is_repeated_with_changes(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("finetunejobs", job())
    page = (await editor.get("/wizard/data?like=finetune.plato-1")).text
    assert 'value="emotion"' in page
    await editor.post("/wizard/train", {"like": "finetune.plato-1", "domain": "ai", "key": "0badcafe"})
    made = next(name for name in cluster.names("finetunejobs") if name != "plato-1")
    spec = cluster.objects["finetunejobs", "finetune", made]["spec"]
    assert spec["model"] == "plato"
    assert spec["dataset"]["ratings"]["claimName"] == "ratings"
    assert spec["dataset"]["ratings"]["domain"] == "ai"


async def test_the_training_is_followed_until_it_leads_on(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("finetunejobs", job({"phase": "Training"}))
    page = (await editor.get("/wizard/training/finetune.plato-1")).text
    assert 'hx-get="/wizard/training/finetune.plato-1"' in page
    assert "Next: compare" not in page
    await cluster.tell("finetunejobs", "finetune", "plato-1", phase="Succeeded", modelVersion="plato-v2")
    page = (await editor.get("/wizard/training/finetune.plato-1")).text
    assert 'href="/wizard/compare/finetune.plato-v2"' in page


async def test_a_failed_training_says_why_and_leads_back(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("finetunejobs", job({"phase": "Failed", "message": f"out of memory {EVIL}"}))
    page = (await editor.get("/wizard/training/finetune.plato-1")).text
    assert "out of memory" in page
    assert EVIL not in page
    again = re.findall(r'href="(/wizard/train\?like=[^"]+)"', page)[0].replace("&amp;", "&")
    assert 'value="20"' in (await editor.get(again)).text


async def test_the_comparison_is_made_once_and_found_again(editor: Browser, cluster: PlayedApiServer) -> None:
    await cluster.remove("abtests", "finetune", "v1-v2")
    cluster.put("modelversions", merged(model_version("plato-v1"), {"spec": {"version": 1}}))
    here = "/wizard/compare/finetune.plato-v2"
    page = (await editor.get(here)).text
    assert 'value="finetune.plato-v1"' in page
    form = {"candidate": "finetune.plato-v2", "baseline": "finetune.plato-v1", "prompts": "What is time?"}
    form |= {"name": "plato-v2-wizard", "on_win": "notify"}
    answers = [await editor.post(here, form) for _ in range(2)]
    assert {(answer.status_code, answer.headers["location"]) for answer in answers} == {(303, here)}
    assert cluster.names("abtests") == ["plato-v2-wizard"]
    assert cluster.objects["abtests", "finetune", "plato-v2-wizard"]["spec"]["onWin"] == "Notify"
    assert "plato-v2 against plato-v1" in (await editor.get(here)).text


async def test_a_version_is_measured_from_the_step_that_compares(editor: Browser, cluster: PlayedApiServer) -> None:
    here = "/wizard/compare/finetune.plato-v2"
    assert "Measure it</button>" in (await editor.get(here)).text
    answer = await editor.post("/fine-tuning/models/finetune/plato-v2/evaluate", {"next": here})
    assert (answer.status_code, answer.headers["location"]) == (303, here)
    page = (await editor.get(here)).text
    assert ("Measure it</button>" in page, "Not measured yet" in page) == (False, True)


async def test_deploying_and_going_back(editor: Browser, cluster: PlayedApiServer) -> None:
    here = "/wizard/deploy/finetune.plato-v2"
    assert "Deploy plato-v2" in (await editor.get(here)).text
    await editor.post("/model-comparison/deploy", {"version": "finetune.plato-v2", "next": here})
    assert "It was asked for" in (await editor.get(here)).text
    await cluster.tell(
        "modelversions",
        "finetune",
        "plato-v2",
        state="Deployed",
        engine="vllm-1",
        servedName="plato-v2",
        promotedAt="2026-11-22T12:00:00.000000Z",
        conditions=[
            {"type": "Loaded", "status": "True", "reason": "Loaded", "lastTransitionTime": "2026-11-22T12:00:00Z"}
        ],
    )
    page = (await editor.get(here)).text
    assert "It is live" in page
    assert "Roll back" in page


async def test_what_somebody_wrote_is_text_in_each_step(editor: Browser) -> None:
    sent = {"base_model": EVIL, "domain": EVIL, "model": EVIL}
    for path in ("/wizard", "/wizard/data", "/wizard/train"):
        page = await editor.rest.client.get(path, params=sent, headers={"Cookie": "finetune_session=editor"})
        assert page.status_code == 200
        assert "<script>alert" not in page.text
    answer = await editor.post("/wizard/train/outlook", sent, HX_Request="true")
    assert "<script>alert" not in answer.text


async def test_who_may_only_read_makes_nothing(editor: Browser, cluster: PlayedApiServer) -> None:
    reader = Browser(editor.rest, "reader")
    assert (await reader.get("/wizard")).status_code == 200
    assert (await reader.post("/wizard/train", CHOSEN | {"key": "0badcafe"})).status_code == 403
    assert cluster.names("finetunejobs") == []
