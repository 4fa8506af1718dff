"""The wizard end to end on a real node: from an earlier training's settings to a live version, and back, in Chromium.

Each step leaves a screenshot, also where it fails; the deadlines are those of the demo's own story.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from demo import install
from demo.chat import ask, client
from demo.story import ALIAS, FIRST, QUESTIONS, SECOND_JOB, SERVING_TIMEOUT_SECONDS, TRAINING_TIMEOUT_SECONDS
from demo.target import NAMESPACE
from tests import chromium
from tests.e2e.conftest import World, editor_token
from tests.waiting import eventually

expect.set_options(timeout=60_000)
SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots" / "e2e-wizard"
ACCOUNT = "wizard"
STEP_TIMEOUT_SECONDS = 60
ANSWER_TIMEOUT_SECONDS = 180
"""Two models on a CPU that other tests use, too."""
COMPLAINTS = ("Content Security Policy", "Refused to")
VOTES = ("1", "ArrowRight", "3", "x")


@pytest.fixture
def token(world: World) -> str:
    """Of somebody who may train, vote and deploy, and nothing else."""
    return editor_token(world, ACCOUNT)


@asynccontextmanager
async def person(world: World) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page, and what the browser refused on it."""
    refused: list[str] = []
    # As below, one of its own: that of all tests ends with the pod that it began with, and others kill pods.
    with world.kubectl.port_forward(f"{install.RELEASE}-api") as api_url:
        async with _page(api_url, refused) as page:
            yield page, refused


@asynccontextmanager
async def _page(api_url: str, refused: list[str]) -> AsyncIterator[Page]:
    async with chromium.running() as browser:
        context = await browser.new_context(base_url=api_url, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * STEP_TIMEOUT_SECONDS)
        page = await context.new_page()
        page.on(
            "console",
            lambda said: refused.append(said.text) if any(word in said.text for word in COMPLAINTS) else None,
        )
        page.on("pageerror", lambda error: refused.append(str(error)))
        try:
            yield page
        finally:
            await seen(page, "last")


async def seen(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


async def stage(page: Page, name: str, timeout_seconds: float = STEP_TIMEOUT_SECONDS) -> None:
    """A model that did not answer in time is asked again, as a person would."""

    async def is_reached() -> bool:
        if await page.locator("#booth").get_attribute("data-stage") == name:
            # Before htmx has the form, a press is sent as by a browser without scripts.
            return await page.locator("#booth form[data-htmx-powered]").count() == 1
        retry = page.locator("#booth button.retry")
        if name == "pair" and await retry.is_visible():
            await retry.click()
        return False

    await eventually(is_reached, timeout_seconds)


async def answering(world: World, version: str) -> None:
    """The unmodified client, that knows nothing of versions, gets this one's answers."""
    with world.kubectl.port_forward(f"{install.RELEASE}-gateway") as gateway_url:

        async def is_answering() -> bool:
            answer = await asyncio.to_thread(ask, client(gateway_url), ALIAS, QUESTIONS[0])
            return bool(answer.version == version)

        await eventually(is_answering, SERVING_TIMEOUT_SECONDS)


def counted(world: World, test: str) -> int:
    """Votes that the operator knows of."""
    total: int = world.kubectl.get("abtest", test)["status"].get("votes", {}).get("total", 0)
    return total


async def choose(page: Page) -> None:
    await page.goto("/wizard")
    await page.locator("select[name=like]").select_option(f"{NAMESPACE}.{SECOND_JOB}")
    await seen(page, "1-model")
    await page.get_by_role("button", name="Next: choose data").first.click()
    await expect(page.get_by_label("Topic")).to_have_value("ai")
    await expect(page.locator("#counts .total")).to_contain_text(re.compile(r"[1-9]\d* ratings"))
    await seen(page, "2-data")
    await page.get_by_role("button", name="Next: train").click()
    await page.get_by_label("Rounds").fill("8")
    await expect(page.locator("#outlook")).to_contain_text("epochs: 8")
    await page.reload()
    await expect(page.get_by_label("Rounds")).to_have_value("8")
    await expect(page.locator("#outlook")).to_contain_text("epochs: 8")
    await expect(page.locator("#outlook")).to_contain_text("claimName: ratings")
    await seen(page, "3-train")


async def train(page: Page) -> str:
    """The name of the version that came out."""
    await page.get_by_role("button", name="Start the training").click()
    await page.wait_for_url(re.compile("/wizard/training/"))
    await page.wait_for_selector("main[data-live-open=true]")
    await page.evaluate("window.neverReloaded = true")
    await expect(page.locator("#training")).to_have_attribute(
        "data-status", re.compile("training|completed"), timeout=1000 * TRAINING_TIMEOUT_SECONDS
    )
    await seen(page, "3-training")
    await expect(page.locator("#training")).to_have_attribute(
        "data-status", re.compile("completed|failed|cancelled"), timeout=1000 * TRAINING_TIMEOUT_SECONDS
    )
    await seen(page, "3-trained")
    await expect(page.locator("#training")).to_have_attribute("data-status", "completed")
    assert await page.evaluate("window.neverReloaded") is True
    onward = page.get_by_role("button", name="Next: compare")
    version = (await onward.get_attribute("href") or "").rpartition(".")[2]
    await onward.click()
    return version


async def compare(page: Page, version: str) -> None:
    here = f"/wizard/compare/{NAMESPACE}.{version}"
    await page.get_by_label("Compare it with").select_option(f"{NAMESPACE}.{FIRST}")
    await page.get_by_label("Questions, one on each line").fill("\n".join(QUESTIONS))
    await expect(page.locator("#preview")).to_contain_text("kind: ABTest")
    await seen(page, "4-new-test")
    await page.get_by_role("button", name="Let people vote").click()
    vote = page.get_by_role("button", name="Vote", exact=True)
    await expect(vote).to_be_visible(timeout=1000 * SERVING_TIMEOUT_SECONDS)
    await seen(page, "4-compare")
    await vote.click()
    for key in VOTES:
        await stage(page, "pair", ANSWER_TIMEOUT_SECONDS)
        await seen(page, f"4-vote-{key}")
        await page.keyboard.press(key)
        await stage(page, "revealed")
        await expect(page.locator(".answers")).to_contain_text(version)
        await seen(page, f"4-revealed-{key}")
        await page.keyboard.press("n")
    await page.goto(here)
    await expect(page.locator("#test-state")).to_contain_text(f"{len(VOTES)} of")
    await page.get_by_role("button", name="Next: deploy").click()


async def deploy_and_go_back(page: Page, world: World, version: str) -> None:
    await seen(page, "5-deploy")
    await page.get_by_role("button", name=f"Deploy {version}").click()
    deployment = page.locator("#deployment")
    await expect(deployment).to_have_attribute("data-active", "true", timeout=1000 * SERVING_TIMEOUT_SECONDS)
    await seen(page, "5-live")
    await answering(world, version)
    await page.locator("summary", has_text="Roll back").click()
    await page.get_by_role("button", name="Roll back", exact=True).click()
    await expect(deployment).to_have_attribute("data-active", "false", timeout=1000 * STEP_TIMEOUT_SECONDS)
    await answering(world, FIRST)
    await seen(page, "5-rolled-back")


async def test_a_person_makes_compares_deploys_and_takes_back_a_version(world: World, token: str) -> None:
    async with person(world) as (page, refused):
        await page.goto("/wizard")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/wizard")
        await choose(page)
        version = await train(page)
        assert re.fullmatch(rf"{ALIAS}-v[0-9]+", version)
        await compare(page, version)
        await deploy_and_go_back(page, world, version)
        assert refused == []
    await eventually(lambda: counted(world, f"{version}-wizard") == len(VOTES))
