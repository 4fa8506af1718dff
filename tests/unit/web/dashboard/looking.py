"""A page as somebody sees it: a screenshot, and what no page may have."""

from pathlib import Path

from playwright.async_api import Page, expect

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
SCREENSHOTS = Path(__file__).parents[4] / "artifacts" / "screenshots"
SERIOUS = {"serious", "critical"}


async def settled(page: Page) -> None:
    """All that a page fetches for itself has arrived."""
    await expect(page.locator(".htmx-request")).to_have_count(0)
    await expect(page.locator(".chart-state", has_text="Loading")).to_have_count(0)
    await expect(page.locator(".chart-state", has_text="could not be loaded")).to_have_count(0)
    await page.evaluate("document.fonts.ready")


async def looked_at(page: Page, file: Path) -> None:
    """Nothing that axe calls serious, nothing wider than the screen, and no stranger's script has run."""
    await settled(page)
    await page.screenshot(path=file, full_page=True)
    assert "owned" not in await page.title()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{file}: wider than the screen"
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    told = [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]
    assert told == [], file
