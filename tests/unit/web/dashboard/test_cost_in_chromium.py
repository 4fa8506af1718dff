"""The pages of cost in a real browser: live as one types, for everybody, and to look at."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import expect

from tests.unit.web.dashboard import prices
from tests.unit.web.dashboard.looking import SCREENSHOTS, looked_at, settled
from tests.unit.web.dashboard.prices import VERSION
from tests.unit.web.dashboard.real_site import Site, opened
from tests.unit.web.rest.conftest import Rest

PAGES = {
    "cost": "/cost",
    "cost-trainings": "/cost/trainings",
    "cost-answers": "/cost/models",
    "roi": f"/cost/roi?version={VERSION}",
    "roi-unknown": f"/cost/roi?version={VERSION.replace('v2', 'v1')}",
}


@pytest.fixture
async def site(sighted: Rest, browser: Chromium) -> AsyncIterator[Site]:
    await prices.fill(sighted)
    async with opened(sighted, browser) as made:
        yield made


async def test_the_result_follows_as_one_types_without_a_reload(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(PAGES["roi"])
    await expect(page.locator("#result")).to_contain_text("It pays after 719 calls, in less than a day")
    await expect(page.locator("#roi-curve canvas")).to_be_visible()
    await page.evaluate("window.neverReloaded = true")
    await page.get_by_label("Calls a day").fill("10")
    await expect(page.locator("#result")).to_contain_text("in 71.9 days")
    await page.get_by_label("Errors with it").fill("12")
    await expect(page.locator("#result")).to_contain_text("It never pays")
    await expect(page.locator("#roi-curve canvas")).to_be_visible()
    assert await page.evaluate("window.neverReloaded") is True
    await page.get_by_role("button", name="As measured").click()
    await expect(page.locator("#result")).to_contain_text("It pays after 719 calls, in less than a day")
    await settled(page)


async def test_what_gateways_tell_appears_without_a_reload(sighted: Rest, site: Site) -> None:
    """No object changes by it, so that no stream says so."""
    page = await site.logged_in()
    await page.goto(PAGES["cost"])
    await expect(page.locator("#costs")).to_contain_text("117")
    await page.evaluate("window.neverReloaded = true")
    # The first may come with the stream's beginning.
    for sum_of_calls, shown in ((900_000, "908"), (2_000_000, "2\u202f008")):
        await prices.call_again(sighted, sum_of_calls)
        await expect(page.locator("#costs")).to_contain_text(shown, timeout=30_000)
    assert await page.evaluate("window.neverReloaded") is True


async def test_another_version_is_chosen_by_keyboard(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(PAGES["roi"])
    await page.get_by_label("Version", exact=True).focus()
    await page.get_by_label("Version", exact=True).select_option(VERSION.replace("v2", "v1"))
    await expect(page.locator("#result")).to_contain_text("Not known without")
    await settled(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_pages_are_for_everybody(site: Site, dark: bool, phone: bool) -> None:
    """axe finds nothing serious, nothing is wider than the screen, and hostile texts stay texts."""
    where = SCREENSHOTS / f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
    where.mkdir(parents=True, exist_ok=True)
    page = await site.logged_in(dark=dark, phone=phone)
    for name, path in PAGES.items():
        await page.goto(path)
        await looked_at(page, where / f"{name}.png")
