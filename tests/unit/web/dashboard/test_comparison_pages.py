"""The pages of comparisons and of tests: what they show, and what their forms make."""

import re
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store import vote_statistics
from finetune_operator.store.vote_statistics import WinRatePoint
from tests.builders import merged
from tests.unit.web.conftest import ab_test, model_version
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import PlayedApiServer

PATH = "/model-comparison"
TEST = f"{PATH}/tests/finetune.v1-v2"
FORM = {"candidate": "finetune.plato-v2", "baseline": "base", "prompts": "What is virtue?\n\n What is time? \n"}
MEASURED = {
    "evaluation": {
        "id": "abc",
        "time": "2026-11-22T12:00:00Z",
        "engine": "vllm-1",
        "examples": 10,
        "tokensPerSecond": {"base": "100", "fineTuned": "120"},
        "meanLatencySeconds": {"base": "1.0", "fineTuned": "2.0"},
    }
}


@pytest.fixture
def editor(rest: Rest) -> Browser:
    """With one ABTest and its candidate to look at, and nothing else."""
    return Browser(rest, "editor")


def first_version() -> dict[str, Any]:
    return merged(model_version("plato-v1"), {"spec": {"version": 1}})


async def test_the_newest_version_stands_against_its_base_model(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("modelversions", merged(model_version(), {"status": MEASURED}))
    page = await editor.get(PATH)
    assert page.status_code == 200
    assert "20\u202f% higher: better" in page.text
    assert "100\u202f% higher: worse" in page.text
    assert page.text.count("▲</span> better") >= 3


async def test_two_versions_are_chosen_by_their_addresses(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("modelversions", first_version())
    page = await editor.get(f"{PATH}?left=finetune.plato-v1&right=finetune.plato-v2")
    assert '<th scope="col">plato-v1</th><th scope="col">plato-v2</th>' in page.text
    mirrored = await editor.get(f"{PATH}?left=finetune.plato-v2&right=base")
    assert '<th scope="col">tiny</th><th scope="col">plato-v2</th>' in mirrored.text


async def test_votes_on_exactly_these_two_are_shown(editor: Browser, cluster: PlayedApiServer) -> None:
    votes = {"fineTuned": 21, "base": 4, "tie": 3, "total": 28, "winRate": "0.804"}
    cluster.put("abtests", ab_test() | {"status": {"phase": "Concluded", "verdict": "Won", "votes": votes}})
    page = (await editor.get(f"{PATH}?left=base&right=finetune.plato-v2")).text
    assert "80.4\u202f%" in page
    assert "preferred in 28 votes" in page


@pytest.mark.parametrize("query", ["left=finetune.gone", "right=finetune.gone-v1"])
async def test_a_version_that_is_not_there(editor: Browser, query: str) -> None:
    answer = await editor.get(f"{PATH}?{query}")
    assert answer.status_code == 404
    assert "choose another one" in answer.text


async def test_without_versions_it_leads_to_the_wizard(editor: Browser, cluster: PlayedApiServer) -> None:
    await cluster.remove("modelversions", "finetune", "plato-v2")
    assert 'href="/wizard"' in (await editor.get(PATH)).text


async def test_pages_of_tests_go_on(editor: Browser, cluster: PlayedApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.web.dashboard.comparison_pages.LISTED_TESTS", 1)
    cluster.put("abtests", merged(ab_test(), {"metadata": {"name": "second", "uid": "second-uid"}}))
    first = (await editor.get(PATH)).text
    older = re.search(r'href="(/model-comparison\?[^"]*after=[^"]+)">Older', first)
    assert older
    assert ">Newest</a>" not in first
    second = (await editor.get(older[1].replace("&amp;", "&"))).text
    lists = [page[page.index('id="tests"') :] for page in (first, second)]
    links = [re.findall(r'href="/model-comparison/tests/(finetune[^"/]+)"', each) for each in lists]
    assert sorted(links) == [["finetune.second"], ["finetune.v1-v2"]]
    assert ">Newest</a>" in second
    assert ">Older</a>" not in second


async def test_where_a_test_stands(editor: Browser, rest: Rest, cluster: PlayedApiServer) -> None:
    await cluster.tell("abtests", "finetune", "v1-v2", phase="Running", pValue="0.9")
    page = (await editor.get(TEST)).text
    assert "plato-v2 against tiny" in page
    assert "0 of at least 10 votes" in page
    assert f'href="{TEST}/vote"' in page
    assert "kind: ABTest" in page
    assert "ftctl vote v1-v2 -n finetune" in page
    state = (await editor.get(f"{TEST}/state", HX_Request="true")).text
    assert "<!doctype" not in state
    assert "Promote plato-v2" in state


async def test_a_test_that_feedback_decides_shows_its_score_and_no_p_value(
    editor: Browser, cluster: PlayedApiServer
) -> None:
    scored = {"servedName": "plato-v2", "score": "0.5417"}
    status = {
        "phase": "Running",
        "leader": "plato-v2",
        "arms": {"baseline": {"servedName": "tiny"}, "candidate": scored},
    }
    by_feedback = {"decision": {"weights": {"accuracyFrom": "Ratings"}}}
    cluster.put("abtests", merged(ab_test(), {"spec": by_feedback}) | {"status": status})
    page = (await editor.get(TEST)).text
    assert "plato-v2 is ahead by the weighted score" in page
    assert "Weighted score" in page
    assert "0.5417" in page
    assert "p-value" not in page


async def test_the_curve_follows_the_votes(editor: Browser, rest: Rest) -> None:
    path = "/v1/fine-tuning/ab-test/finetune.v1-v2"
    for word in ("fine_tuned", "base", "tie"):
        made = (await rest.post(f"{path}/comparisons", {})).json()
        await rest.post(f"{path}/vote", {"comparison_id": made["comparison_id"], "vote": word})
    curve = (await editor.get(f"{TEST}/win-rates")).json()
    assert curve["x"] == [1.0, 2.0, 3.0]
    assert curve["series"][0]["y"] == [100.0, 50.0, 50.0]
    assert curve["band"] == [2, 1]
    by_time = (await editor.get(f"{TEST}/win-rates?by=time")).json()
    assert (by_time["x_label"], by_time["x"][0], by_time["series"]) == (
        "hours since the first vote", 0.0, curve["series"],
    )  # fmt: skip


@pytest.mark.parametrize("sides", ["left=base&right=finetune.plato-v2", ""])
async def test_the_comparison_has_the_curve_of_its_newest_test(editor: Browser, sides: str) -> None:
    page = (await editor.get(f"/model-comparison?{sides}")).text
    assert f'data-chart="{TEST}/win-rates"' in page
    assert f'<option value="{TEST}/win-rates?by=time">by time</option>' in page
    assert f'href="{TEST}"' in page


async def test_two_that_nobody_has_voted_on_have_no_curve(editor: Browser, cluster: PlayedApiServer) -> None:
    cluster.put("modelversions", merged(model_version("plato-v1"), {"spec": {"version": 1}}))
    page = (await editor.get("/model-comparison?left=finetune.plato-v1&right=finetune.plato-v2")).text
    assert ("data-chart" in page, "nobody has voted on these two yet" in page) == (False, True)


async def test_the_curve_is_worked_out_once_as_long_as_nobody_votes(
    editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_out, asked = vote_statistics.win_rates, []

    async def counted(
        engine: AsyncEngine, abtest_uid: str, max_votes: int | None, max_points: int
    ) -> tuple[WinRatePoint, ...]:
        asked.append(abtest_uid)
        return await work_out(engine, abtest_uid, max_votes, max_points)

    monkeypatch.setattr(vote_statistics, "win_rates", counted)
    for _ in range(3):
        assert (await editor.get(f"{TEST}/win-rates")).status_code == 200
    assert len(asked) == 1


async def test_the_form_makes_the_test_once(editor: Browser, cluster: PlayedApiServer) -> None:
    form = FORM | {"name": "once", "min_votes": "5", "max_votes": "2000"}
    answers = [await editor.post(f"{PATH}/tests", form) for _ in range(2)]
    assert {(each.status_code, each.headers["location"]) for each in answers} == {(303, f"{PATH}/tests/finetune.once")}
    spec = cluster.objects["abtests", "finetune", "once"]["spec"]
    assert spec["prompts"] == ["What is virtue?", "What is time?"]
    assert spec["decision"]["minVotes"] == 5
    assert "traffic" not in spec


async def test_the_smallest_difference_that_matters_is_taken_over(editor: Browser, cluster: PlayedApiServer) -> None:
    await editor.post(f"{PATH}/tests", FORM | {"name": "effect", "min_effect": "0.10"})
    decision = cluster.objects["abtests", "finetune", "effect"]["spec"]["decision"]
    assert decision["minEffect"] == "0.1"
    assert "maxVotes" not in decision


async def test_users_traffic_is_split_only_where_that_was_chosen(editor: Browser, cluster: PlayedApiServer) -> None:
    await editor.post(f"{PATH}/tests", FORM | {"name": "split", "source": "traffic", "candidate_percent": "30"})
    assert cluster.objects["abtests", "finetune", "split"]["spec"]["traffic"] == {"candidatePercent": 30}


MISTAKES = {
    "no question": ({"prompts": " \n"}, "at least one question"),
    "against itself": ({"baseline": "finetune.plato-v2"}, "two different models"),
    "another model": ({"baseline": "finetune.kant-v1"}, "both must be versions of plato"),
    "no number": ({"min_votes": "some"}, "min_votes"),
    "too many": ({"max_votes": "9999999"}, "max_votes"),
    "too small a difference": ({"min_effect": "0.001"}, "min_effect"),
    "no version": ({"candidate": "finetune.plato"}, "candidate"),
}


@pytest.mark.parametrize(("changes", "hint"), MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_is_told_before_and_after(
    editor: Browser, cluster: PlayedApiServer, changes: dict[str, str], hint: str
) -> None:
    before = await editor.post(f"{PATH}/tests/preview", FORM | changes, HX_Request="true")
    assert before.status_code == 200
    assert hint in before.text
    after = await editor.post(f"{PATH}/tests", FORM | {"name": "wrong"} | changes)
    assert after.status_code == 422
    assert cluster.names("abtests") == ["v1-v2"]


async def test_the_preview_is_what_would_be_made(editor: Browser, cluster: PlayedApiServer) -> None:
    preview = await editor.post(f"{PATH}/tests/preview", FORM | {"name": "seen"}, HX_Request="true")
    assert "name: seen" in preview.text
    assert "- What is time?" in preview.text
    assert "kubectl apply -f abtest.yaml" in preview.text
    assert cluster.names("abtests") == ["v1-v2"]


async def test_ending_a_test_is_asked_for_once_and_not_after_its_verdict(
    editor: Browser, cluster: PlayedApiServer
) -> None:
    for _ in range(2):
        assert (await editor.post(f"{TEST}/cancel")).status_code == 303
    assert cluster.objects["abtests", "finetune", "v1-v2"]["spec"]["cancel"] is True
    assert len(cluster.writes()) == 1
    cluster.put("abtests", ab_test() | {"status": {"phase": "Concluded", "verdict": "Won"}})
    assert (await editor.post(f"{TEST}/cancel")).status_code == 409


async def test_promoting_pins_the_candidate_and_leads_back(editor: Browser, cluster: PlayedApiServer) -> None:
    answer = await editor.post(f"{PATH}/deploy", {"version": "finetune.plato-v2", "next": TEST})
    assert (answer.status_code, answer.headers["location"]) == (303, TEST)
    assert cluster.objects["modelversions", "finetune", "plato-v2"]["spec"]["state"] == "Deployed"
    elsewhere = await editor.post(f"{PATH}/deploy", {"version": "finetune.plato-v2", "next": "//evil.example"})
    assert elsewhere.headers["location"] == "/"


@pytest.mark.parametrize("path", [f"{PATH}/deploy", f"{PATH}/rollback"])
async def test_who_may_only_read_changes_nothing(editor: Browser, cluster: PlayedApiServer, path: str) -> None:
    reader = Browser(editor.rest, "reader")
    answer = await reader.post(path, {"version": "finetune.plato-v2", "next": TEST})
    assert answer.status_code in (403, 409)
    assert cluster.objects["modelversions", "finetune", "plato-v2"]["spec"].get("state") is None
