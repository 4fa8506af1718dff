"""The page of API keys in a real browser: made and copied by keyboard, gone with a reload, revoked, for everybody."""

import itertools
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import expect

from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.dashboard.looking import SCREENSHOTS, looked_at
from tests.unit.web.dashboard.real_site import Site, opened, refused
from tests.unit.web.dashboard.sights import HOSTILE
from tests.unit.web.rest.conftest import ROBOT, Rest

PATH = "/api-keys"
KEY = re.compile(r"ftk_[0-9a-f]{16}_[-_A-Za-z0-9]{43}")


@pytest.fixture
def environment() -> dict[str, str]:
    return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune", "FINETUNE_API_KEY_ACCOUNTS": ROBOT}


@pytest.fixture
async def site(rest: Rest, browser: Chromium) -> AsyncIterator[Site]:
    rest.cluster.now = rest.services.now
    numbers = itertools.count()
    object.__setattr__(rest.services, "suffix", lambda: f"form-{next(numbers)}")
    async with opened(rest, browser) as made:
        yield made


async def test_a_key_is_made_copied_and_revoked_by_keyboard_alone(site: Site) -> None:
    page = await site.logged_in()
    await page.goto(PATH)
    await page.get_by_label("Name", exact=True).focus()
    await page.keyboard.type("nightly")
    await page.keyboard.press("Enter")
    heading = page.get_by_role("heading", name="The key nightly was made")
    await expect(heading).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Copy").first).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    key = await page.evaluate("navigator.clipboard.readText()")
    assert KEY.fullmatch(key)
    answer = await site.rest.get("/v1/fine-tuning/jobs", {"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200

    await page.reload()
    await expect(page.get_by_role("row", name=re.compile("nightly"))).to_have_count(1)
    assert key not in await page.content()
    await page.locator("summary", has_text="Revoke").press("Enter")
    await page.get_by_role("button", name="Revoke", exact=True).press("Enter")
    await expect(page.get_by_role("row", name=re.compile("nightly"))).to_contain_text("revoked")
    answer = await site.rest.get("/v1/fine-tuning/jobs", {"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401


async def test_a_mistake_is_told_beside_what_was_typed(site: Site) -> None:
    page = await site.logged_in()
    site.expected = (refused(422),)
    await page.goto(PATH)
    await page.get_by_label("Name", exact=True).fill("   ")
    await page.get_by_role("button", name="Make the key").click()
    await expect(page.locator("#notices")).to_contain_text("name")
    await expect(page.get_by_label("Name", exact=True)).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
async def test_it_is_for_everybody(site: Site, dark: bool, phone: bool) -> None:
    where = SCREENSHOTS / f"{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}"
    where.mkdir(parents=True, exist_ok=True)
    page = await site.logged_in(dark=dark, phone=phone)
    await page.goto(PATH)
    await looked_at(page, where / "api-keys-none.png")
    await page.goto(PATH)
    for name in ("first", HOSTILE):
        await page.get_by_label("Name", exact=True).fill(name)
        await page.get_by_role("button", name="Make the key").click()
        await expect(page.get_by_role("heading", name=f"The key {name} was made")).to_be_visible()
    await looked_at(page, where / "api-keys-made.png")
    await page.goto(PATH)
    await page.locator("summary", has_text="Revoke").last.click()
    await page.get_by_role("button", name="Revoke", exact=True).click()
    await expect(page.get_by_text("revoked")).to_be_visible()
    await page.locator("summary", has_text="Revoke").first.click()
    await looked_at(page, where / "api-keys.png")
