"""The pages below /cost: what they show, and what the calculator reckons."""

import re
from urllib.parse import urlencode

import pytest

from finetune_operator.web.dashboard.templating import money
from tests.unit.web.dashboard import prices
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.prices import VERSION
from tests.unit.web.dashboard.test_fine_tuning import words
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.test_mirroring import mirroring

PAGES = (
    "/cost",
    "/cost/trainings",
    "/cost/models",
    f"/cost/roi?version={VERSION}",
    f"/cost/roi/result?version={VERSION}",
)


@pytest.fixture
async def priced(sighted: Rest) -> Browser:
    await prices.fill(sighted)
    return Browser(sighted, "editor")


async def result(browser: Browser, **typed: str) -> str:
    return words(await browser.page(f"/cost/roi/result?{urlencode({'version': VERSION} | typed)}"))


@pytest.mark.parametrize("path", PAGES)
async def test_hostile_text_is_text_and_nothing_runs_inline(priced: Browser, path: str) -> None:
    page = await priced.page(path)
    assert "<img src=x" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", page)
    assert not re.search(r"<[^>]+\s(?:style|on[a-z]+)=", page)


async def test_the_overview_has_totals_and_says_what_they_lack(priced: Browser) -> None:
    page = words(await priced.page("/cost"))
    assert "Trainings 458.05 USD all attempts" in page
    assert "Answers 4.74 USD" in page
    assert "Calls 8 117" in page
    assert "Stopped by a budget 1 of 8 trainings" in page
    assert "The totals lack 1 of the trainings" in page
    assert "The totals lack the answers of 1 of the versions" in page


async def test_a_deleted_training_stays_in_the_sums_and_has_no_link(priced: Browser) -> None:
    async with mirroring(priced.rest):
        assert "deleted" not in words(await priced.page("/cost"))
        assert (await priced.rest.ask("DELETE", "/v1/fine-tuning/jobs/finetune.plato-done")).status_code == 204
        overview = words(await priced.page("/cost"))
        assert "Trainings 458.05 USD all attempts" in overview
        assert "1 of the trainings was deleted; what was spent stays in the sums." in overview
        assert "plato-done" not in words(await priced.page("/cost/trainings"))
        page = await priced.page("/cost/trainings?deleted=true")
    assert "plato-done plato completed deleted" in words(page)
    assert "431.20 USD" in words(page)
    assert 'href="/fine-tuning/jobs/finetune/plato-done"' not in page
    assert 'action="/cost/trainings/finetune/plato-done/budget"' not in page


async def test_the_answers_of_a_deleted_version_stay_in_the_sums_and_have_no_link(priced: Browser) -> None:
    async with mirroring(priced.rest):
        assert "deleted" not in words(await priced.page("/cost"))
    await priced.rest.cluster.remove("modelversions", "finetune", "plato-v2")
    async with mirroring(priced.rest):
        overview = words(await priced.page("/cost"))
        assert "Answers 4.74 USD" in overview
        assert "1 of the versions was deleted; what its answers cost stays in the sums." in overview
        page = await priced.page("/cost/models?deleted=true")
    assert "plato-v2 finetune deleted" in words(page)
    assert 'href="/fine-tuning/models/finetune/plato-v2"' not in page


async def test_an_unknown_cost_is_a_dash_with_its_reason(priced: Browser) -> None:
    page = words(await priced.page("/cost/trainings"))
    row = page[page.index("plato-unpriced") :]
    assert "set prices.perHour" in row
    assert "plato-dear plato queued 25.01 USD" in page
    assert "25.00 USD held" in page
    assert "its engine's speed was not measured" in words(await priced.page("/cost/models"))


async def test_a_budget_is_raised_on_the_page(priced: Browser) -> None:
    path = "/cost/trainings/finetune/plato-dear/budget"
    assert (await priced.post(path, {"max_cost": "40", "currency": "USD"})).headers["location"] == "/cost/trainings"
    spec = priced.rest.cluster.objects["finetunejobs", "finetune", "plato-dear"]["spec"]
    assert spec["budget"] == {"maxCost": "40", "currency": "USD"}
    await priced.post(path, {"max_cost": "", "currency": "USD"})
    assert not priced.rest.cluster.objects["finetunejobs", "finetune", "plato-dear"]["spec"].get("budget")
    wrong = await priced.post(path, {"max_cost": "much", "currency": "USD"})
    assert (wrong.status_code, "max_cost" in wrong.text) == (422, True)
    done = await priced.post(path.replace("dear", "done"), {"max_cost": "40", "currency": "USD"})
    assert (done.status_code, "can not be" in words(done.text) or "ended" in words(done.text)) == (409, True)


async def test_pages_of_a_list_go_on(priced: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_operator.web.dashboard.cost_pages.LISTED", 3)
    page = await priced.page("/cost/trainings")
    older = re.search(r'href="(/cost/trainings\?after=[^"]+)"', page)
    assert older
    assert "plato-" in words(await priced.page(older[1]))


async def test_the_calculator_has_what_is_measured_and_where_it_comes_from(priced: Browser) -> None:
    page = await priced.page(f"/cost/roi?version={VERSION}")
    values = dict(re.findall(r'name="(\w+)" type="text" value="([^"]*)"', page))
    assert values == {
        "base_error_rate": "10", "error_rate": "4", "value_per_error_saved": "10", "calls_per_day": "4050",
        "training_cost": "431.2", "base_cost_per_call": "0.00052", "cost_per_call": "0.00061", "days": "365",
    }  # fmt: skip
    text = words(page)
    assert "1 - Accuracy of its evaluation, this version" in text
    assert f"FineTuneJob plato-done, all attempts: {prices.BASIS}" in text
    assert "8100 calls through the gateway in 2 days" in text


async def test_the_result_follows_what_is_typed(priced: Browser) -> None:
    measured = await result(priced)
    assert "It pays after 719 calls, in less than a day." in measured
    assert await result(priced, error_rate="4", days="365", calls_per_day="4050") == measured
    assert "It pays after 719 calls, in 71.9 days." in await result(priced, calls_per_day="10")
    assert "It never pays: it makes no fewer errors" in await result(priced, error_rate="10")
    assert "in 143.8 days" in await result(priced, calls_per_day="5,0")


@pytest.mark.parametrize("typed", [{"error_rate": "101"}, {"days": "many"}, {"training_cost": "-1"}])
async def test_what_is_no_number_is_told_beside_the_form(priced: Browser, typed: dict[str, str]) -> None:
    path = f"/cost/roi/result?{urlencode({'version': VERSION} | typed)}"
    answer = await priced.get(path, HX_Request="true")
    assert (answer.status_code, answer.headers["hx-retarget"]) == (422, "#notices")
    assert "write a number from 0 to" in words(answer.text)


async def test_the_curve_begins_with_what_the_training_cost(priced: Browser) -> None:
    curve = (await priced.get(f"/cost/roi/curve?version={VERSION}&days=30")).json()
    (line,) = curve["series"]
    assert (curve["x"][0], curve["x"][-1], line["y"][0], line["label"]) == (0, 30, -431.2, "net value, USD")
    assert line["y"][-1] > 0


async def test_an_unknown_input_leaves_the_result_unknown_and_says_which(priced: Browser) -> None:
    path = f"/cost/roi?version={VERSION.replace('v2', 'v1')}"
    page = await priced.page(path)
    assert "was measured: add one to spec.evaluation.metrics" in words(page)
    assert 'placeholder="unknown"' in page
    found = words(await priced.page(path.replace("/roi?", "/roi/result?")))
    assert "Not known without base cost per call" in found
    assert "Return –" in found.replace("\u2013", "–")  # noqa: RUF001 - the dash that the page shows
    curve = (await priced.get(path.replace("/roi?", "/roi/curve?"))).json()
    assert curve["x"] == []


async def test_without_a_version_there_is_nothing_to_reckon(priced: Browser) -> None:
    priced.rest.cluster.objects.clear()
    assert "No version yet" in words(await priced.page("/cost/roi"))
    assert "nothing has a price yet" in words(await priced.page("/cost"))


async def test_who_may_not_see_is_told_so(sighted: Rest) -> None:
    page = words(await Browser(sighted, "nobody").page("/cost"))
    assert "cannot list resource" in page


@pytest.mark.parametrize(
    ("amount", "shown"), [(0.000061, "0.000061 USD"), (0.0012, "0.0012 USD"), (0.5, "0.50 USD"), (0, "0.00 USD")]
)
def test_a_fraction_of_a_cent_is_not_0(amount: float, shown: str) -> None:
    assert money(amount, "USD") == shown


@pytest.mark.parametrize("path", ["/cost", "/cost/trainings", "/cost/models"])
async def test_what_no_object_tells_of_is_fetched_now_and_then(priced: Browser, path: str) -> None:
    """Calls and answers are counted by gateways, and a cost that grows is no event of a list."""
    (element,) = re.findall(r'<\w+[^>]* id="costs"[^>]*>', await priced.page(path))
    assert 'data-live-seconds="10"' in element
    assert 'hx-trigger="live"' in element
