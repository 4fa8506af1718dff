"""Every page says how the same is done from a terminal, and what it says is what the tools take."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser as Chromium
from playwright.async_api import Page

from finetune_operator.web.dashboard.site import PAGES
from tests.unit.web.dashboard import experiment_sights, prices
from tests.unit.web.dashboard.experiment_sights import TEST, Philosophers
from tests.unit.web.dashboard.looking import settled
from tests.unit.web.dashboard.real_site import Site, opened
from tests.unit.web.dashboard.sights import NAMESPACE
from tests.unit.web.dashboard.terminal import TOOLS, obeyed
from tests.unit.web.rest.conftest import Rest

NO_PAGES = {
    "/login": "nobody is logged in yet; it says how to get a token",
    "/login/oidc": "leads to the issuer",
    "/login/oidc/callback": "leads back from the issuer",
    "/live": "a stream of events",
    "/fine-tuning/gold-stars": "a part of /fine-tuning",
    "/fine-tuning/jobs/{namespace}/{name}/card": "a part of /fine-tuning",
    "/fine-tuning/jobs/{namespace}/{name}/log": "a part of a training's page",
    "/fine-tuning/jobs/{namespace}/{name}/curve": "what a chart draws",
    "/fine-tuning/datasets/{dataset_id}/files/{file}": "a download",
    "/batches/{batch_id}/answers.jsonl": "a download",
    "/model-comparison/tests/{test_id}/state": "a part of a test's page",
    "/model-comparison/tests/{test_id}/win-rates": "what a chart draws",
    "/cost/roi/result": "a part of /cost/roi",
    "/cost/roi/curve": "what a chart draws",
}
"""Routes that are none for a person to look at, or for nobody yet."""
NAMES = {"jobs": "plato-train", "models": "plato-v2"}
IDS = {
    "{job_id}": f"{NAMESPACE}.plato-train",
    "{version_id}": f"{NAMESPACE}.plato-v2",
    "{test_id}": f"{NAMESPACE}.{TEST}",
    "{batch_id}": f"{NAMESPACE}.answers",
    "{namespace}": NAMESPACE,
}
QUERIES = {
    "/fine-tuning": "status=failed",
    "/fine-tuning/new": "base_model=Qwen/Qwen3-0.6B",
    "/fine-tuning/models": "state=Ready&model=it%27s",
    "/model-comparison": f"left={NAMESPACE}.plato-v1&right={NAMESPACE}.plato-v2",
    "/model-comparison/tests/new": f"left={NAMESPACE}.plato-v1&right={NAMESPACE}.plato-v2",
    "/wizard/data": "base_model=Qwen/Qwen3-0.6B&model=plato&domain=ethics",
    "/wizard/train": "base_model=Qwen/Qwen3-0.6B&model=plato&domain=ethics",
    "/cost/roi": f"version={NAMESPACE}.plato-v2",
    "/cost/trainings": "model=%24%28reboot%29",
}
"""What a person has chosen on the way to a page."""
READ = [route.path for page in PAGES for route in page.router.routes if "GET" in route.methods]  # type: ignore[attr-defined]
SHOWN = [path for path in READ if path not in NO_PAGES]


@pytest.fixture
async def site(sighted: Rest, browser: Chromium) -> AsyncIterator[Site]:
    experiment_sights.fill(sighted.cluster)
    await experiment_sights.vote(sighted.services.engine)
    await experiment_sights.answer(sighted.services.engine)
    await prices.fill(sighted)
    object.__setattr__(sighted.services, "arms", Philosophers())
    async with opened(sighted, browser) as made:
        yield made


def test_what_is_no_page_is_there() -> None:
    assert set(NO_PAGES) <= set(READ)


async def test_each_page_shows_commands_that_are_real(site: Site) -> None:
    page = await site.logged_in()
    dataset = await exported(page)
    for path in SHOWN:
        where = address(path, dataset)
        answer = await page.goto(where)
        assert (answer and answer.status) == 200, where
        await settled(page)
        shown = "\n".join(await page.locator("figure.code code").all_text_contents()).splitlines()
        commands = [line for line in shown if line.startswith(TOOLS)]
        assert commands, f"{where} shows no command"
        for line in commands:
            obeyed(line)


def address(path: str, dataset: str) -> str:
    """Of something that is there."""
    name = NAMES.get(path.split("/")[2], "") if "{name}" in path else ""
    for hole, value in (IDS | {"{name}": name, "{dataset_id}": dataset}).items():
        path = path.replace(hole, value)
    return f"{path}?{QUERIES.get(path, '')}"


async def exported(page: Page) -> str:
    """The id of a dataset, made by the form."""
    await page.goto("/fine-tuning/datasets")
    await page.get_by_role("button", name="Export").click()
    await page.wait_for_url("**/datasets/*-*")
    return page.url.rpartition("/")[2]


async def test_the_commands_follow_the_form(site: Site) -> None:
    page = await site.logged_in()
    await page.goto("/fine-tuning/datasets")
    commands = page.locator("#commands")
    await commands.get_by_text("ftctl export ./dataset\n").wait_for()
    await page.get_by_label("Domain", exact=True).fill("it's ethics")
    await commands.get_by_text("""ftctl export ./dataset --domain 'it'"'"'s ethics'""").wait_for()
    await page.get_by_label("Gold stars only").uncheck()
    await commands.get_by_text("ftctl export ./dataset --all --domain").wait_for()
    await page.get_by_label("Least confidence").fill("0.5")
    await commands.get_by_text('"min_confidence": 0.5').wait_for()
    assert "ftctl" not in await commands.inner_text(), "it has no flag for this"
    await page.goto(f"/cost/roi?version={prices.VERSION}")
    result = page.locator("#result")
    await result.get_by_text("ftctl cost --roi plato-v2 -n finetune\n").wait_for()
    await page.get_by_label("Value of one saved").fill("25")
    await result.get_by_text("--value-per-error 25").wait_for()
    await page.get_by_label("Errors with it").fill("5")
    await result.get_by_text("error_rate=0.05").wait_for()
    assert "ftctl" not in await result.inner_text()


@pytest.mark.parametrize(
    "line",
    [
        "ftctl get trainings --everything",
        "ftctl trane",
        "ftctl vote",
        "kubectl get finetunes",
        'curl "$API/v1/fine-tuning/nothing"',
        'curl "$API/v1/fine-tuning/jobs?colour=red"',
    ],
)
def test_what_is_wrong_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"."):
        obeyed(line)
