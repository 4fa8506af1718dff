"""Blind voting on a page: names stay hidden until the vote, and a vote counts once however often it is sent."""

import re
from typing import Any

import pytest

from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import PlayedApiServer, User

HERE = "/model-comparison/tests/finetune.v1-v2/vote"
HTMX = {"HX_Request": "true"}
NAMES = ("plato-v2", "tiny")
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7 * 7 }}'


@pytest.fixture
def editor(rest: Rest) -> Browser:
    """With one ABTest and its candidate to look at, and nothing else."""
    return Browser(rest, "editor")


async def pair(browser: Browser) -> str:
    answer = await browser.post(f"{HERE}/pair", **HTMX)
    assert answer.status_code == 200, answer.text
    return answer.text


def id_in(html: str) -> str:
    return re.findall(r'name="comparison_id" value="([-0-9a-f]+)"', html)[0]


async def vote(browser: Browser, comparison_id: str, word: str) -> str:
    answer = await browser.post(f"{HERE}/cast", {"comparison_id": comparison_id, "vote": word}, **HTMX)
    assert answer.status_code == 200, answer.text
    return answer.text


async def tally(rest: Rest) -> dict[str, Any]:
    found: dict[str, Any] = (await rest.get("/v1/fine-tuning/ab-test/finetune.v1-v2")).json()["tally"]
    return found


class HonestArms:
    """Answers that tell nothing of who gave them."""

    def __init__(self, text: str = "an answer") -> None:
        self.text = text
        self.asked = 0

    async def ask(self, served_name: str, prompt: str) -> str:
        self.asked += 1
        return self.text


@pytest.fixture
def arms(rest: Rest) -> HonestArms:
    found = HonestArms()
    object.__setattr__(rest.services, "arms", found)
    return found


async def test_the_page_asks_the_models_only_when_it_is_open(editor: Browser, arms: HonestArms) -> None:
    page = await editor.get(HERE)
    assert page.status_code == 200
    assert f'hx-post="{HERE}/pair" hx-trigger="load, submit"' in page.text
    assert arms.asked == 0


async def test_names_are_hidden_until_the_vote(editor: Browser, arms: HonestArms) -> None:
    blind = await pair(editor)
    assert "an answer" in blind
    assert not [name for name in NAMES if name in blind]
    seen = await vote(editor, id_in(blind), "a")
    assert "You preferred plato-v2." in seen
    assert all(name in seen for name in NAMES)


@pytest.mark.parametrize(
    ("word", "said", "counted"),
    [
        ("a", "You preferred plato-v2.", "fine_tuned"),
        ("b", "You preferred tiny.", "base"),
        ("tie", "You called it a tie.", "tie"),
        ("both_bad", "You called both bad.", "both_bad"),
    ],
)
async def test_each_ballot_says_what_it_says(
    editor: Browser, rest: Rest, arms: HonestArms, word: str, said: str, counted: str
) -> None:
    assert said in await vote(editor, id_in(await pair(editor)), word)
    assert (await tally(rest))[counted] == 1


async def test_a_reload_and_a_second_tab_show_the_same_pair(editor: Browser, arms: HonestArms) -> None:
    first, second = await pair(editor), await pair(editor)
    assert id_in(first) == id_in(second)
    assert arms.asked == 2


async def test_a_vote_that_is_sent_twice_counts_once(editor: Browser, rest: Rest, arms: HonestArms) -> None:
    comparison = id_in(await pair(editor))
    assert await vote(editor, comparison, "a") == await vote(editor, comparison, "a")
    assert (await tally(rest))["fine_tuned"] == 1


async def test_a_second_opinion_is_told_from_a_vote_that_counts(editor: Browser, rest: Rest, arms: HonestArms) -> None:
    """The prompts are asked in turn, and these models answer each as before."""
    seen = [await vote(editor, id_in(await pair(editor)), "a") for _ in range(4)]
    assert ["second opinion" in each for each in seen] == [False, False, False, True]
    assert (await tally(rest))["fine_tuned"] == 3
    state = (await editor.get(HERE.removesuffix("/vote"))).text
    assert "3 for, 0 against, 0 ties; not counted: 1 second opinion" in state


async def test_another_vote_of_a_second_tab_is_told_that_the_first_counts(
    editor: Browser, rest: Rest, arms: HonestArms
) -> None:
    comparison = id_in(await pair(editor))
    await vote(editor, comparison, "a")
    seen = await vote(editor, comparison, "b")
    assert "that first vote counts" in seen
    assert "You preferred plato-v2." in seen
    assert (await tally(rest))["base"] == 0


async def test_without_a_script_the_whole_page_comes_and_a_reload_shows_it_again(
    editor: Browser, arms: HonestArms
) -> None:
    page = (await editor.post(f"{HERE}/pair")).text
    assert "<!doctype html>" in page
    comparison = id_in(page)
    answer = await editor.post(f"{HERE}/cast", {"comparison_id": comparison, "vote": "tie"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{HERE}?seen={comparison}")
    assert "You called it a tie." in (await editor.get(answer.headers["location"])).text


async def test_an_open_pair_is_never_revealed_by_its_address(editor: Browser, arms: HonestArms) -> None:
    comparison = id_in(await pair(editor))
    page = (await editor.get(f"{HERE}?seen={comparison}")).text
    assert not [name for name in NAMES if name in page]


async def test_who_may_only_vote_needs_no_other_right(
    editor: Browser, cluster: PlayedApiServer, arms: HonestArms
) -> None:
    cluster.users["voter"] = User("system:serviceaccount:finetune:voter", {("create", "abtests/votes")})
    voter = Browser(editor.rest, "voter")
    assert (await voter.get(HERE)).status_code == 200
    assert "You preferred" in await vote(voter, id_in(await pair(voter)), "b")
    assert (await voter.get("/model-comparison/tests/finetune.v1-v2")).status_code == 403


async def test_who_may_not_vote_is_told_so(editor: Browser) -> None:
    reader = Browser(editor.rest, "reader")
    answer = await reader.get(HERE)
    assert answer.status_code == 403
    assert "abtests/votes" in answer.text


async def test_two_people_judge_pairs_of_their_own(editor: Browser, cluster: PlayedApiServer, arms: HonestArms) -> None:
    cluster.users["voter"] = User("system:serviceaccount:finetune:voter", {("create", "abtests/votes")})
    voter = Browser(editor.rest, "voter")
    comparison = id_in(await pair(editor))
    assert id_in(await pair(voter)) != comparison
    answer = await voter.post(f"{HERE}/cast", {"comparison_id": comparison, "vote": "a"}, **HTMX)
    assert answer.status_code == 403


async def test_who_has_no_name_is_asked_for_one_and_keeps_it(rest: Rest, arms: HonestArms) -> None:
    holder = Browser(rest, "public-token")
    asked = (await holder.get(HERE)).text
    assert "Who votes?" in asked
    assert "ftctl vote v1-v2 -n finetune --evaluator Ada" in asked
    answer = await holder.post(f"{HERE}/name", {"name": " Ada Löve "})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    holder.cookies["finetune_evaluator"] = cookie.partition("=")[2].partition(";")[0]
    await vote(holder, id_in(await pair(holder)), "a")
    entries = (await rest.get("/v1/fine-tuning/ab-test/finetune.v1-v2/voters")).json()["voters"]
    assert [entry["evaluator"] for entry in entries] == ["Ada Löve"]


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 129])
async def test_a_name_that_is_none_is_refused(rest: Rest, name: str) -> None:
    answer = await Browser(rest, "public-token").post(f"{HERE}/name", {"name": name})
    assert answer.status_code == 422
    assert "1 to 128 characters" in answer.text


async def test_a_forged_name_in_the_cookie_is_asked_for_again(rest: Rest) -> None:
    holder = Browser(rest, "public-token")
    holder.cookies["finetune_evaluator"] = "%0A"
    asked = (await holder.get(HERE)).text
    assert "Who votes?" in asked
    assert "ftctl vote v1-v2 -n finetune --evaluator Ada" in asked


async def test_what_models_and_people_wrote_is_text(
    editor: Browser, cluster: PlayedApiServer, arms: HonestArms
) -> None:
    arms.text = EVIL
    body = cluster.objects["abtests", "finetune", "v1-v2"]
    body["spec"]["prompts"] = [EVIL]
    for html in (blind := await pair(editor), await vote(editor, id_in(blind), "a")):
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3
        assert "{{ 7 * 7 }}" in html


async def test_a_model_that_does_not_answer_is_told_and_can_be_asked_again(editor: Browser, rest: Rest) -> None:
    rest.services.arms.broken.add("tiny")  # type: ignore[attr-defined]
    answer = await editor.post(f"{HERE}/pair", **HTMX)
    assert (answer.status_code, answer.headers["hx-retarget"]) == (502, "#notices")
    assert "try again" in answer.text
    rest.services.arms.broken.clear()  # type: ignore[attr-defined]
    assert await pair(editor)


async def test_after_the_verdict_it_says_that_votes_do_not_count(
    editor: Browser, cluster: PlayedApiServer, arms: HonestArms
) -> None:
    await cluster.tell("abtests", "finetune", "v1-v2", verdict="Won", phase="Concluded")
    assert "votes no longer count" in (await editor.get(HERE)).text
    assert "does not count" in await vote(editor, id_in(await pair(editor)), "a")


async def test_how_far_it_is_in_plain_words(editor: Browser, arms: HonestArms) -> None:
    assert "0 of at least 10 votes" in await pair(editor)
    seen = await vote(editor, id_in(await pair(editor)), "a")
    assert re.search(r"1 of (about|at least) [0-9]+ votes", seen)


@pytest.mark.parametrize(
    "form", [{}, {"comparison_id": "x", "vote": "a"}, {"comparison_id": "0", "vote": "c"}, {"vote": "a"}]
)
async def test_what_is_no_vote_is_refused(editor: Browser, form: dict[str, str]) -> None:
    assert (await editor.post(f"{HERE}/cast", form, **HTMX)).status_code == 422


async def test_other_sites_cast_no_vote(editor: Browser, rest: Rest, arms: HonestArms) -> None:
    comparison = id_in(await pair(editor))
    answer = await editor.post(f"{HERE}/cast", {"comparison_id": comparison, "vote": "a"}, Sec_Fetch_Site="cross-site")
    assert answer.status_code == 403
    assert (await tally(rest))["fine_tuned"] == 0
