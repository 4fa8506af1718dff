"""The pages in a real browser: live without a reload, whole after each break, usable by keyboard and by everybody."""

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import expect

from tests.unit.web.dashboard import sights
from tests.unit.web.dashboard.looking import SCREENSHOTS, looked_at, settled
from tests.unit.web.dashboard.real_site import AWAY, Site, opened, refused
from tests.unit.web.dashboard.sights import NAMESPACE, progressing
from tests.unit.web.rest.conftest import Rest

LIVE = "main[data-live-open=true]"
PAGES = {
    "overview": "/fine-tuning",
    "job": f"/fine-tuning/jobs/{NAMESPACE}/plato-train",
    "job-done": f"/fine-tuning/jobs/{NAMESPACE}/plato-done",
    "job-failed": f"/fine-tuning/jobs/{NAMESPACE}/plato-bad",
    "new": "/fine-tuning/new?base_model=Qwen/Qwen3-0.6B",
    "datasets": "/fine-tuning/datasets",
    "models": "/fine-tuning/models",
    "model": f"/fine-tuning/models/{NAMESPACE}/plato-v2",
    "base-models": "/fine-tuning/base-models",
    "no-such-job": f"/fine-tuning/jobs/{NAMESPACE}/nothing",
}


@pytest.fixture
async def site(sighted: Rest, browser: Chromium) -> AsyncIterator[Site]:
    async with opened(sighted, browser) as made:
        yield made


async def tell(site: Site, done: int) -> None:
    await site.rest.cluster.tell("finetunejobs", NAMESPACE, "plato-train", progress=progressing(done))


async def test_progress_shows_without_a_reload_in_two_tabs(site: Site) -> None:
    first = await site.logged_in()
    second = await first.context.new_page()
    await second.goto("/fine-tuning")
    for page in (first, second):
        await page.wait_for_selector(LIVE)
        await page.evaluate("window.neverReloaded = true")
    await tell(site, 57)
    for page in (first, second):
        await expect(page.locator("#card-" + sights.uid_of(1))).to_contain_text("57 %")
        assert await page.evaluate("window.neverReloaded") is True
    await site.rest.cluster.tell("finetunejobs", NAMESPACE, "plato-train", phase="Succeeded")
    for page in (first, second):
        await expect(page.locator("#active-jobs")).not_to_contain_text("plato-train")
        await expect(page.locator("table").first).to_contain_text("plato-train")
        assert await page.evaluate("window.neverReloaded") is True


async def test_state_and_history_of_a_version_follow_without_a_reload(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(f"/fine-tuning/models/{NAMESPACE}/plato-v2")
    await page.wait_for_selector(LIVE)
    for state, why in (("Deployed", "it won the test"), ("Ready", "rolled back")):
        change = {"time": "2026-01-01T12:00:00Z", "state": state, "who": "ada", "why": why}
        await site.rest.cluster.tell("modelversions", NAMESPACE, "plato-v2", state=state, history=[change])
        await expect(page.locator("#history")).to_contain_text(f"{why} by ada")
        await expect(page.locator("#state h2")).to_have_text(state)


async def test_what_a_dropped_stream_missed_is_caught_up(site: Site) -> None:
    page = await site.logged_in()
    await page.wait_for_selector(LIVE)
    site.expected = AWAY
    await page.context.set_offline(True)
    site.services.streams.stop()
    await tell(site, 63)
    await expect(page.locator("#live-state")).to_contain_text("The connection was lost")
    object.__setattr__(site.services, "streams", type(site.services.streams)())
    await page.context.set_offline(False)
    await expect(page.locator("#card-" + sights.uid_of(1))).to_contain_text("63 %")
    await expect(page.locator("#live-state")).to_be_hidden()


async def test_a_restart_of_the_api_loses_nothing(site: Site) -> None:
    page = await site.logged_in()
    await page.wait_for_selector(LIVE)
    await page.evaluate("window.neverReloaded = true")
    site.expected = AWAY
    await site.stop()
    await tell(site, 71)
    await expect(page.locator("#live-state")).to_contain_text("The connection was lost")
    await site.start()
    await expect(page.locator("#card-" + sights.uid_of(1))).to_contain_text("71 %")
    assert await page.evaluate("window.neverReloaded") is True
    await tell(site, 72)
    await expect(page.locator("#card-" + sights.uid_of(1))).to_contain_text("72 %")
    await page.reload()
    await expect(page.locator("#card-" + sights.uid_of(1))).to_contain_text("72 %")


async def test_the_curve_grows_while_one_looks_and_the_log_stays_open(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(PAGES["job"])
    await page.wait_for_selector(LIVE)
    await expect(page.locator("#curve canvas")).to_be_visible()
    await expect(page.locator("#log")).to_contain_text("the model says")
    await page.get_by_text("Conditions").click()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    await sights.measure(site.services.engine, 253, 301)
    await tell(site, 58)
    await expect(page.locator("#job")).to_contain_text("58 %")
    await page.wait_for_function("() => document.querySelector('#curve canvas')")
    await settled(page)
    assert any(url.endswith("/plato-train/curve") for url in requested)
    await expect(page.get_by_role("region", name="Conditions")).to_be_visible()
    await expect(page.locator("#log")).to_contain_text("the model says")


async def test_the_curve_of_a_training_comes_once_it_has_one(site: Site) -> None:
    page = await site.logged_in()
    await page.goto("/fine-tuning")
    await page.wait_for_selector(LIVE)
    await page.evaluate("window.neverReloaded = true")
    charts = page.locator("#active-jobs [data-chart]")
    before = await charts.count()
    await site.rest.cluster.tell("finetunejobs", NAMESPACE, "plato-wait", phase="Training", progress=progressing(1))
    await expect(charts).to_have_count(before + 1)
    assert await page.evaluate("window.neverReloaded") is True


IS_DRAWN = "before => document.querySelector('#curve canvas').toDataURL() === before"
IS_DRAWN_OTHERWISE = "before => document.querySelector('#curve canvas').toDataURL() !== before"


async def test_the_slider_smooths_what_is_drawn(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(PAGES["job"])
    slider, legend, canvas = page.get_by_label("Smoothing of"), page.locator("#curve .u-legend"), "c => c.toDataURL()"
    await expect(legend).to_contain_text("training loss, as measured")
    await settled(page)
    at_first = await page.locator("#curve canvas").evaluate(canvas)
    await slider.fill("0.98")
    await page.wait_for_function(IS_DRAWN_OTHERWISE, arg=at_first)
    await slider.fill("0.6")
    await page.wait_for_function(IS_DRAWN, arg=at_first)
    await slider.fill("0")
    await expect(legend).not_to_contain_text("as measured")
    await expect(legend).to_contain_text("training loss")
    await slider.focus()
    await page.keyboard.press("ArrowRight")
    await expect(legend).to_contain_text("training loss, as measured")


async def test_a_training_is_made_by_keyboard_alone(site: Site) -> None:
    page = await site.logged_in()
    await page.goto("/fine-tuning/new")
    await page.keyboard.press("Tab")
    await expect(page.get_by_text("Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.get_by_label("Base model", exact=True).focus()
    await page.keyboard.type("Qwen/Qwen3-0.6B")
    await page.keyboard.press("Tab")
    await page.keyboard.type("socrates")
    await page.keyboard.press("Tab")
    await expect(page.locator("#outlook")).to_contain_text("model: socrates")
    await expect(page.locator("#outlook")).to_contain_text("0.60 B")
    await page.get_by_label("Name of the model", exact=True).press("Enter")
    await page.wait_for_url(re.compile("/fine-tuning/jobs/finetune/job-"))
    await expect(page.locator("#job")).to_contain_text("socrates")


async def test_what_was_typed_outlasts_a_reload_in_its_own_tab(site: Site) -> None:
    page = await site.logged_in()
    name, gold = "Name of the model", "Gold stars only"
    await page.goto(PAGES["new"])
    await page.get_by_label(name, exact=True).fill("kept")
    await page.get_by_label(gold).uncheck()
    await page.locator("summary", has_text="Adapter and more").click()
    await page.get_by_label("Rank").fill("24")
    await expect(page.locator("#outlook")).to_contain_text("model: kept")
    await page.reload()
    await expect(page.get_by_label(name, exact=True)).to_have_value("kept")
    await expect(page.get_by_label(gold)).not_to_be_checked()
    await expect(page.get_by_label("Rank")).to_have_value("24")
    await expect(page.get_by_label("Rank")).to_be_visible()
    await expect(page.locator("#outlook")).to_contain_text("model: kept")
    another = await page.context.new_page()
    await another.goto(PAGES["new"])
    await expect(another.get_by_label(name, exact=True)).to_have_value("")
    # Who comes anew, and not back, begins anew.
    await page.goto("/fine-tuning")
    await page.goto(PAGES["new"])
    await expect(page.get_by_label(name, exact=True)).to_have_value("")


@pytest.mark.parametrize("outcome", ["away", "refused"])
async def test_what_was_typed_outlasts_a_form_that_could_not_be_sent(site: Site, outcome: str) -> None:
    page = await site.logged_in()
    name = page.get_by_label("Name of the model", exact=True)
    await page.goto(PAGES["new"])
    await name.fill("kept")
    await page.get_by_label("Base model", exact=True).fill("Qwen/Qwen3-0.6B" if outcome == "away" else "no model")
    if outcome == "away":
        await page.route("**/fine-tuning/new", lambda route: route.abort("connectionrefused"), times=1)
        async with page.expect_event("requestfailed", lambda request: request.method == "POST"):
            await name.press("Enter")
        await page.wait_for_url("chrome-error://**")
    else:
        site.expected = ("422",)
        await name.press("Enter")
        await expect(page.get_by_role("heading", level=1)).not_to_have_text("New training")
    await page.go_back()
    await expect(name).to_have_value("kept")
    await page.get_by_label("Base model", exact=True).fill("Qwen/Qwen3-0.6B")
    await name.press("Enter")
    await page.wait_for_url(re.compile("/fine-tuning/jobs/finetune/job-"))


async def test_cancelling_asks_once_more(site: Site) -> None:
    page = await site.logged_in()
    card = page.locator("#card-" + sights.uid_of(1))
    await card.locator("summary", has_text="Cancel").press("Enter")
    await card.get_by_role("button", name="Cancel", exact=True).click()
    await page.wait_for_url("**/plato-train")
    await expect(page.locator("#job")).to_contain_text("being cancelled")
    assert site.rest.cluster.objects["finetunejobs", NAMESPACE, "plato-train"]["spec"]["cancel"] is True


async def test_counts_follow_the_filters_as_one_types(site: Site) -> None:
    page = await site.logged_in()
    await page.goto("/fine-tuning/datasets")
    await expect(page.locator("#counts")).to_contain_text("25 ratings")
    await page.get_by_label("Domain", exact=True).fill("ethics")
    await expect(page.locator("#counts")).to_contain_text("24 ratings")
    await page.get_by_role("button", name="Export").click()
    await expect(page.locator("main")).to_contain_text("Rows of train.jsonl")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="train.jsonl").first.click()
    assert (await download.value).suggested_filename.endswith(".train.jsonl")


async def test_the_theme_is_switched_and_kept(site: Site) -> None:
    page = await site.logged_in()
    background = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(background)
    await page.get_by_role("button", name="Switch between light and dark").click()
    dark = await page.evaluate(background)
    assert light != dark
    await page.reload()
    assert await page.evaluate(background) == dark


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_pages_are_for_everybody_and_run_no_strangers_text(site: Site, dark: bool, phone: bool) -> None:
    """axe finds nothing serious, nothing is wider than the screen, and hostile texts stay texts."""
    where = SCREENSHOTS / f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
    where.mkdir(parents=True, exist_ok=True)
    # One of them is of what is not there.
    site.expected = (refused(404),)
    visitor = await (await site.person(dark=dark, phone=phone)).new_page()
    await visitor.goto("/login")
    await looked_at(visitor, where / "login.png")
    page = await site.logged_in(dark=dark, phone=phone)
    for name, path in PAGES.items():
        await page.goto(path)
        await looked_at(page, where / f"{name}.png")
    everything = {"gold_star_only": False, "test_fraction": 0.2}
    headers = {"Authorization": "Bearer editor"}
    made = await site.rest.ask("POST", "/v1/fine-tuning/datasets/export", everything, headers)
    await page.goto(f"/fine-tuning/datasets/{made.headers['location'].rpartition('/')[2]}")
    await expect(page.get_by_text("train.jsonl").first).to_be_visible()
    await looked_at(page, where / "dataset.png")
    for form in ("datasets", "new"):
        await page.goto(PAGES[form])
        for summary in await page.locator("form summary").all():
            await summary.click()
        await page.evaluate("scrollTo(0, 0)")
        await looked_at(page, where / f"{form}-open.png")
