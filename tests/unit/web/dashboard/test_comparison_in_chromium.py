"""Comparison, voting and the wizard in a real browser: by keyboard, in two tabs, through outages, for everybody."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, Route, expect

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store import votes
from tests.unit.web.dashboard import experiment_sights
from tests.unit.web.dashboard.experiment_sights import TEST, TEST_UID, Philosophers
from tests.unit.web.dashboard.looking import SCREENSHOTS, looked_at, settled
from tests.unit.web.dashboard.real_site import AWAY, Site, opened, refused
from tests.unit.web.dashboard.sights import HOSTILE, NAMESPACE
from tests.unit.web.rest.conftest import Rest
from tests.waiting import eventually

TEST_PAGE = f"/model-comparison/tests/{NAMESPACE}.{TEST}"
VOTE_PAGE = f"{TEST_PAGE}/vote"
LIVE = "main[data-live-open=true]"
BEFORE = 34
PAGES = {
    "comparison": "/model-comparison",
    "comparison-base": f"/model-comparison?left=base&right={NAMESPACE}.plato-v2",
    "new-test": f"/model-comparison/tests/new?left={NAMESPACE}.plato-v1&right={NAMESPACE}.plato-v2",
    "test": TEST_PAGE,
    "wizard-1-model": "/wizard",
    "wizard-2-data": "/wizard/data?base_model=Qwen/Qwen3-0.6B&model=plato",
    "wizard-3-train": "/wizard/train?base_model=Qwen/Qwen3-0.6B&model=plato&domain=ethics",
    "wizard-3-training": f"/wizard/training/{NAMESPACE}.plato-train",
    "wizard-3-done": f"/wizard/training/{NAMESPACE}.plato-done",
    "wizard-3-failed": f"/wizard/training/{NAMESPACE}.plato-bad",
    "wizard-4-compare": f"/wizard/compare/{NAMESPACE}.plato-v2",
    "wizard-4-new": f"/wizard/compare/{NAMESPACE}.plato-v1",
    "wizard-5-deploy": f"/wizard/deploy/{NAMESPACE}.plato-v2",
    "batches": "/batches",
    "batch-new": "/batches/new",
    "batch": f"/batches/{NAMESPACE}.answers",
    "batch-answers": f"/batches/{NAMESPACE}.answers?named=true",
    "wizard-5-live": f"/wizard/deploy/{NAMESPACE}.plato-v1",
}


expect.set_options(timeout=20_000)


@pytest.fixture
async def site(sighted: Rest, browser: Chromium) -> AsyncIterator[Site]:
    experiment_sights.fill(sighted.cluster)
    await experiment_sights.vote(sighted.services.engine, BEFORE)
    await experiment_sights.answer(sighted.services.engine)
    object.__setattr__(sighted.services, "arms", Philosophers())
    async with opened(sighted, browser) as made:
        yield made


async def tally(site: Site) -> VoteCounts:
    return await votes.tally(site.services.engine, TEST_UID)


async def voting(site: Site, *, phone: bool = False) -> Page:
    page = await site.logged_in(phone=phone)
    await page.goto(VOTE_PAGE)
    await stage(page, "pair")
    return page


async def stage(page: Page, name: str) -> None:
    """Shown, and its form in the hands of htmx: before, a press is sent as by a browser without scripts."""
    await expect(page.locator("#booth")).to_have_attribute("data-stage", name)
    await expect(page.locator("#booth form[data-htmx-powered]")).to_have_count(1)


async def test_one_votes_by_keyboard_alone(site: Site) -> None:
    page = await voting(site)
    before = await tally(site)
    for key, said in (("1", "You preferred"), ("ArrowRight", "You preferred"), ("3", "a tie"), ("x", "both bad")):
        await stage(page, "pair")
        await expect(page.locator("#question")).to_be_focused()
        assert not [name for name in ("plato-v1", "plato-v2") if name in await page.locator(".answers").inner_text()]
        await page.keyboard.press(key)
        await stage(page, "revealed")
        await expect(page.locator(".verdict-line")).to_contain_text(said)
        await expect(page.locator("#vote-said")).to_contain_text("Left was plato-v")
        await expect(page.get_by_role("button", name="Next pair")).to_be_focused()
        await page.keyboard.press("Enter")
    after = await tally(site)
    assert after.total == before.total + 4
    assert (after.tie, after.both_bad) == (before.tie + 2, before.both_bad + 1)


async def test_a_reload_and_two_tabs_lose_nothing_and_count_once(site: Site) -> None:
    page = await voting(site)
    before = await tally(site)
    shown = page.locator("input[name=comparison_id]")
    comparison = await shown.input_value()
    await page.reload()
    await stage(page, "pair")
    assert await shown.input_value() == comparison
    second = await page.context.new_page()
    await second.goto(VOTE_PAGE)
    await stage(second, "pair")
    assert await second.locator("input[name=comparison_id]").input_value() == comparison
    await page.keyboard.press("1")
    await stage(page, "revealed")
    await second.keyboard.press("2")
    await stage(second, "revealed")
    await expect(second.locator("#booth")).to_contain_text("that first vote counts")
    assert (await tally(site)).total == before.total + 1


async def test_pressing_twice_counts_once(site: Site) -> None:
    page = await voting(site)
    before = await tally(site)
    await page.evaluate("() => { const [left] = document.querySelectorAll('.ballot'); left.click(); left.click(); }")
    await page.keyboard.press("1")
    await stage(page, "revealed")
    assert (await tally(site)).total == before.total + 1


async def test_a_vote_during_an_outage_is_sent_again_and_counts_once(site: Site) -> None:
    page = await voting(site)
    before = await tally(site)
    site.expected = AWAY
    await site.stop()
    await page.keyboard.press("2")
    await expect(page.locator("#notices")).to_contain_text("it counts once")
    await site.start()
    await page.keyboard.press("2")
    await stage(page, "revealed")
    assert (await tally(site)).total == before.total + 1


async def test_hostile_answers_are_text_and_long_ones_scroll(site: Site) -> None:
    philosophers = site.services.arms
    assert isinstance(philosophers, Philosophers)
    philosophers.hostile = True
    page = await voting(site)
    await page.keyboard.press("4")
    await stage(page, "revealed")
    await page.keyboard.press("n")
    await stage(page, "pair")
    for text in await page.locator(".model-text").all():
        assert HOSTILE in await text.inner_text()
    scrolls = "() => [...document.querySelectorAll('.answer .model-text')].every(e => e.scrollHeight > e.clientHeight)"
    assert await page.evaluate(scrolls)
    assert "owned" not in await page.title()
    answer = page.locator(".answer .model-text").first
    await answer.focus()
    await page.keyboard.press("ArrowDown")
    await eventually(lambda: answer.evaluate("e => e.scrollTop > 0"))
    await stage(page, "pair")


async def test_where_the_test_stands_follows_the_votes_without_a_reload(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(TEST_PAGE)
    await page.wait_for_selector(LIVE)
    await expect(page.locator("#test-state")).to_contain_text("34 of about")
    await expect(page.locator("#win-rates canvas")).to_be_visible()
    await page.evaluate("window.neverReloaded = true")
    await site.rest.cluster.tell("abtests", NAMESPACE, TEST, verdict="Won", phase="Concluded")
    await expect(page.locator("#test-state")).to_contain_text("plato-v2 is better")
    assert await page.evaluate("window.neverReloaded") is True
    await page.get_by_role("button", name="Promote plato-v2").click()
    await expect(page.locator("#test-state")).to_contain_text("plato-v2 goes live as soon as it answers")
    await site.rest.cluster.tell("modelversions", NAMESPACE, "plato-v2", state="Deployed", observedState="Deployed")
    await expect(page.locator("#test-state")).to_contain_text("plato-v2 is live")


@pytest.mark.parametrize("path", [TEST_PAGE, "/model-comparison"])
async def test_the_win_rate_is_drawn_by_votes_or_by_time(site: Site, path: str) -> None:
    page = await site.logged_in()
    await page.goto(path)
    legend = page.locator("#win-rates .u-legend")
    await expect(legend).to_contain_text("votes")
    await page.get_by_label("Axis of Win rate").select_option(label="by time")
    await expect(legend).to_contain_text("hours since the first vote")
    await page.get_by_label("Axis of Win rate").select_option(label="by votes")
    await expect(legend).not_to_contain_text("hours")


async def test_a_phone_shows_all_sections_and_both_models_beside_each_other(site: Site) -> None:
    page = await site.logged_in(phone=True)
    await page.goto(TEST_PAGE)
    for link in await page.locator(".top nav a").all():
        await expect(link).to_be_in_viewport(ratio=1)
    rate = page.locator(".versus tr", has_text="Win rate").first
    await rate.scroll_into_view_if_needed()
    for place, name in enumerate(("plato-v1", "plato-v2")):
        await expect(rate.locator(".whose").nth(place)).to_have_text(name)
        await expect(rate.locator(".side-value").nth(place)).to_be_in_viewport(ratio=1)
        await expect(rate.locator(".mark").nth(place)).to_be_in_viewport(ratio=1)
    wider = "tables => tables.filter(each => each.scrollWidth > each.clientWidth).length"
    assert await page.locator(".comparison .scroll").evaluate_all(wider) == 0


async def test_a_change_during_a_fetch_is_shown_by_the_next_fetch(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(TEST_PAGE)
    await page.wait_for_selector(LIVE)
    await settled(page)
    asked, changed = asyncio.Event(), asyncio.Event()

    async def slow(route: Route) -> None:
        answer = await route.fetch()
        asked.set()
        await changed.wait()
        await route.fulfill(response=answer)

    await page.route("**/state", slow, times=1)
    tell_state = "document.querySelector('#test-state').dispatchEvent(new Event('live'))"
    await page.evaluate(tell_state)
    async with asyncio.timeout(20):
        await asked.wait()
    await site.rest.cluster.tell("abtests", NAMESPACE, TEST, verdict="Won", phase="Concluded")
    await page.evaluate(tell_state)
    changed.set()
    await expect(page.locator("#test-state")).to_contain_text("plato-v2 is better")


async def test_a_question_that_is_open_is_not_swapped_for_another_one(site: Site) -> None:
    """Somebody who is about to press what promotes must not roll back since another person was sooner."""
    page = await site.logged_in()
    await page.goto(TEST_PAGE)
    await page.wait_for_selector(LIVE)
    await page.locator("summary", has_text="Promote plato-v2").click()
    await expect(page.get_by_role("button", name="Promote plato-v2", exact=True)).to_be_visible()
    await site.rest.cluster.tell("modelversions", NAMESPACE, "plato-v2", state="Deployed")
    await expect(page.locator("#test-state")).to_contain_text("plato-v2 is live")
    await expect(page.locator("summary", has_text="Roll back")).to_be_visible()
    await expect(page.get_by_role("button", name="Roll back", exact=True)).to_be_hidden()


async def test_the_wizard_leads_from_a_model_to_a_deployed_version(site: Site) -> None:
    cluster = site.rest.cluster
    page = await site.logged_in()
    await page.goto("/wizard")
    await page.get_by_text("Qwen3-0.6B").click()
    await page.get_by_label("Name of your model").fill("plato")
    await page.get_by_role("button", name="Next: choose data").last.click()
    await page.get_by_label("Topic").fill("ethics")
    await expect(page.locator("#counts")).to_contain_text("24 ratings")
    await page.get_by_role("button", name="Next: train").click()
    await expect(page.locator("#outlook")).to_contain_text("domain: ethics")
    await page.go_back()
    await expect(page.get_by_label("Topic")).to_have_value("ethics")
    await page.go_forward()
    await page.reload()
    await expect(page.locator("#outlook")).to_contain_text("domain: ethics")
    known = set(cluster.names("finetunejobs"))
    await page.get_by_role("button", name="Start the training").click()
    await page.wait_for_url(re.compile("/wizard/training/"))
    await page.wait_for_selector(LIVE)
    made = (set(cluster.names("finetunejobs")) - known).pop()
    await cluster.tell("finetunejobs", NAMESPACE, made, phase="Succeeded", modelVersion="plato-v3")
    cluster.put("modelversions", experiment_sights.sights.version(3, "Ready", conditions=[]))
    await page.get_by_role("button", name="Next: compare").click()
    await page.get_by_label("Questions, one on each line").fill("What is time?\nWhat is virtue?")
    await expect(page.locator("#preview")).to_contain_text("What is virtue?")
    await page.get_by_role("button", name="Let people vote").click()
    await expect(page.locator("#test-state")).to_contain_text("Not started yet")
    await cluster.tell("abtests", NAMESPACE, "plato-v3-wizard", phase="Running")
    await page.get_by_role("button", name="Vote", exact=True).click()
    await stage(page, "pair")
    await page.keyboard.press("1")
    await stage(page, "revealed")
    await page.goto(f"/wizard/compare/{NAMESPACE}.plato-v3")
    await page.get_by_role("button", name="Next: deploy").click()
    await page.get_by_role("button", name="Deploy plato-v3").click()
    await expect(page.locator("#deployment")).to_contain_text("It was asked for")
    assert cluster.objects["modelversions", NAMESPACE, "plato-v3"]["spec"]["state"] == "Deployed"


async def test_a_batch_is_made_of_an_exported_dataset_and_its_answers_come_by_themselves(site: Site) -> None:
    page = await site.logged_in()
    cluster, engine = site.rest.cluster, site.services.engine
    await page.goto("/fine-tuning/datasets")
    await page.get_by_role("button", name="Export").click()
    await page.wait_for_url("**/datasets/*-*")
    await page.get_by_role("button", name="Ask a version its questions").click()
    await expect(page.get_by_label("Questions")).to_have_value(re.compile(r"^chatml-[0-9a-f]{32}/train\.jsonl$"))
    await page.get_by_label("Let people vote").uncheck()
    await expect(page.locator("#preview")).to_contain_text("stored:")
    await page.get_by_role("button", name="Start the run").click()
    await page.wait_for_url(f"**/batches/{NAMESPACE}.answers-*")
    await expect(page.locator("#answers")).to_contain_text("None yet.")
    await expect(page.locator(LIVE)).to_have_count(1)

    name = page.url.rpartition(".")[2]
    batch = cluster.objects["batchinferences", NAMESPACE, name]
    await experiment_sights.answer(engine, uid=batch["metadata"]["uid"], rows=12)
    progress = {"percent": 50, "done": 12, "total": 24, "failed": 1}
    await cluster.tell("batchinferences", NAMESPACE, name, phase="Running", progress=progress)
    await expect(page.locator("#batch progress")).to_have_attribute("value", "50")
    await expect(page.locator(".answered-row")).to_have_count(10)
    await expect(page.get_by_label("Answer of plato-v2 to row 3")).to_contain_text("maximum context length")
    await page.get_by_role("link", name="Next").press("Enter")
    await expect(page.locator(".answered-row")).to_have_count(2)
    async with page.expect_download() as downloading:
        await page.get_by_role("link", name="Download these").click()
    assert (await downloading.value).suggested_filename == f"{name}.answers.jsonl"

    await page.get_by_role("button", name="Suspend").click()
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert cluster.objects["batchinferences", NAMESPACE, name]["spec"]["suspend"] is True
    await page.get_by_text("Cancel…").click()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await expect(page.locator("#batch")).to_contain_text("being cancelled")
    await expect(page.locator(LIVE)).to_have_count(1)
    await cluster.tell("batchinferences", NAMESPACE, name, phase="Cancelled")
    # The stream may tell the page that its batch is gone before the answer leads away from it.
    site.expected = (refused(404),)
    await page.get_by_text("Delete…").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.wait_for_url("**/batches")
    assert name not in cluster.names("batchinferences")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_pages_are_for_everybody(site: Site, dark: bool, phone: bool) -> None:
    where = SCREENSHOTS / f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
    where.mkdir(parents=True, exist_ok=True)
    page = await site.logged_in(dark=dark, phone=phone)
    for name, path in PAGES.items():
        await page.goto(path)
        await looked_at(page, where / f"{name}.png")
    await page.goto(VOTE_PAGE)
    await stage(page, "pair")
    await looked_at(page, where / "vote.png")
    await page.keyboard.press("1")
    await stage(page, "revealed")
    await looked_at(page, where / "vote-revealed.png")
    nobody_in_particular = await site.logged_in(dark=dark, phone=phone, who="public-token")
    await nobody_in_particular.goto(VOTE_PAGE)
    await expect(nobody_in_particular.get_by_role("heading", name="Who votes?")).to_be_visible()
    await looked_at(nobody_in_particular, where / "vote-name.png")
