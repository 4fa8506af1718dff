"""Lists on pages, page by page by their links."""

import html
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from finetune_operator.web.dashboard import api_key_pages, comparison_pages, dataset_pages
from tests.builders import merged
from tests.unit.web.dashboard import experiment_sights
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.sights import NAMESPACE, at, uid_of
from tests.unit.web.rest.conftest import ROBOT

PAIR = f"left={NAMESPACE}.plato-v1&right={NAMESPACE}.plato-v2"


class Paged(NamedTuple):
    """A list of five things on a page; `fill` makes them, and `row` finds what tells one from the others."""

    path: str
    module: Any
    constant: str
    row: str
    fill: Callable[[Browser], Awaitable[None]]


async def exported(editor: Browser) -> None:
    for limit in range(1, 6):
        answer = await editor.post("/fine-tuning/datasets", {"domain": "ethics", "limit": str(limit)})
        assert answer.status_code == 303, answer.text


async def with_tests(editor: Browser) -> None:
    experiment_sights.fill(editor.rest.cluster)
    for number in range(1, 5):
        own = {"name": f"test-{number}", "uid": uid_of(300 + number), "creationTimestamp": at(-20 + number // 2)}
        editor.rest.cluster.put("abtests", merged(experiment_sights.test_of_both(), {"metadata": own}))


async def keyed(editor: Browser) -> None:
    editor.rest.cluster.now = editor.rest.services.now
    for number in range(5):
        answer = await editor.post("/api-keys", {"name": f"key-{number}", "account": ROBOT})
        assert answer.status_code == 200, answer.text


DATASET_ROW = r'<a href="/fine-tuning/datasets/([a-z]+-[0-9a-f]+)">'
TEST_ROW = r'<td><a href="/model-comparison/tests/([^"/]+)">'
PAGES = {
    "datasets": Paged("/fine-tuning/datasets", dataset_pages, "LISTED", DATASET_ROW, exported),
    "datasets of a format and domain": Paged(
        "/fine-tuning/datasets?format=chatml&domain=ethics", dataset_pages, "LISTED", DATASET_ROW, exported
    ),
    "tests": Paged("/model-comparison", comparison_pages, "LISTED_TESTS", TEST_ROW, with_tests),
    "tests beside a pair": Paged(f"/model-comparison?{PAIR}", comparison_pages, "LISTED_TESTS", TEST_ROW, with_tests),
    "API keys": Paged("/api-keys", api_key_pages, "LISTED", r'<th scope="row">(key-\d)</th>', keyed),
}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"FINETUNE_API_KEY_ACCOUNTS": ROBOT}


def link(page: str, text: str) -> str | None:
    found = re.search(rf'<a href="([^"]+)">{text}</a>', page)
    return html.unescape(found[1]) if found else None


@pytest.mark.parametrize("paged", PAGES.values(), ids=PAGES.keys())
async def test_each_row_is_on_one_page(editor: Browser, paged: Paged, monkeypatch: pytest.MonkeyPatch) -> None:
    await paged.fill(editor)
    whole = await editor.page(paged.path)
    expected = re.findall(paged.row, whole)
    assert (len(expected), link(whole, "Older"), link(whole, "Newest")) == (5, None, None)
    monkeypatch.setattr(paged.module, paged.constant, 2)
    where: str | None = paged.path
    found = []
    while where:
        page = await editor.page(where)
        found += re.findall(paged.row, page)
        assert (link(page, "Newest") is None) == (where == paged.path)
        where = link(page, "Older")
    assert found == expected
    first = link(page, "Newest")
    assert first is not None
    assert re.findall(paged.row, await editor.page(first)) == expected[:2]


async def test_datasets_are_shown_by_their_filters_and_the_commands_say_so(editor: Browser) -> None:
    await exported(editor)
    page = await editor.page("/fine-tuning/datasets?domain=it%27s+ethics&format=alpaca")
    assert "None was exported so." in page
    assert re.findall(DATASET_ROW, page) == []
    assert "<option selected>alpaca</option>" in page
    assert "ftctl export --list --format alpaca --domain &#39;it" in page
    assert "/v1/fine-tuning/datasets?format=alpaca&amp;domain=it%27s+ethics" in page
