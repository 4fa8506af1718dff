"""The page of API keys: what it shows to whom, and what its forms do."""

import itertools
import re

import pytest

from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.sights import HOSTILE
from tests.unit.web.rest.conftest import ROBOT, Rest

PATH = "/api-keys"
FORM = {"name": "nightly", "account": ROBOT, "expires_in_days": "7"}
SECRET = re.compile(r"ftk_([0-9a-f]{16})_[-_A-Za-z0-9]{43}")


@pytest.fixture
def environment() -> dict[str, str]:
    return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune", "FINETUNE_API_KEY_ACCOUNTS": ROBOT}


@pytest.fixture
def editor(rest: Rest) -> Browser:
    rest.cluster.now = rest.services.now
    return Browser(rest, "editor")


async def made(editor: Browser) -> tuple[str, str]:
    """The id, and the page that shows the key."""
    answer = await editor.post(PATH, FORM)
    assert answer.status_code == 200, answer.text
    found = SECRET.search(answer.text)
    assert found is not None
    return found[1], answer.text


async def test_a_key_is_shown_once(editor: Browser) -> None:
    identity, page = await made(editor)
    key = SECRET.search(page)
    assert key is not None
    listed = await editor.page(PATH)
    assert SECRET.search(listed) is None
    for text in ("nightly", f"ftk_{identity}", ROBOT, "active", "never", "by editor"):
        assert text in listed
    holder = {"Authorization": f"Bearer {key[0]}"}
    assert (await editor.rest.get("/v1/fine-tuning/jobs", holder)).status_code == 200
    assert "never" not in await editor.page(PATH), "it has been used"


async def test_the_same_form_sent_again_makes_no_other_key(editor: Browser) -> None:
    numbers = itertools.count()
    object.__setattr__(editor.rest.services, "suffix", lambda: f"form-{next(numbers)}")
    page = await editor.page(PATH)
    found = re.search(r'name="key" value="([^"]+)"', page)
    assert found is not None
    answers = [await editor.post(PATH, FORM | {"key": found[1]}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert "was made with this Idempotency-Key" in answers[1].text
    assert found[1] not in answers[0].text, "the next form is another one"
    assert (await editor.page(PATH)).count("ftk_") == 1


async def test_a_script_gets_the_part_that_changes(editor: Browser) -> None:
    answer = await editor.post(PATH, FORM, HX_Request="true")
    assert answer.text.lstrip().startswith('<div id="api-keys">')
    assert SECRET.search(answer.text)
    assert answer.headers["cache-control"] == "no-store"


async def test_it_is_revoked_by_its_button(editor: Browser) -> None:
    identity, page = await made(editor)
    path = f"{PATH}/{identity}/revoke"
    assert f'action="{path}"' in page
    for _ in range(2):
        answer = await editor.post(path)
        assert (answer.status_code, answer.headers["location"]) == (303, PATH)
    listed = await editor.page(PATH)
    assert "revoked" in listed
    assert f'action="{path}"' not in listed


async def test_a_hostile_name_stays_a_text(editor: Browser) -> None:
    answer = await editor.post(PATH, FORM | {"name": HOSTILE})
    assert answer.status_code == 200
    assert "<img src=x" not in answer.text
    assert "&lt;img src=x" in answer.text


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        (FORM | {"name": " "}, 422, "name"),
        (FORM | {"expires_in_days": "9999"}, 422, "expires_in_days"),
        (FORM | {"account": "finetune/admin"}, 403, "serviceaccounts/token"),
        ({}, 422, "name"),
    ],
)
async def test_what_is_wrong_is_said_and_no_key_is_made(
    editor: Browser, form: dict[str, str], status: int, words: str
) -> None:
    answer = await editor.post(PATH, form)
    assert answer.status_code == status
    assert words in answer.text
    assert "No key yet" in await editor.page(PATH)


async def test_who_may_make_none_is_told_why(rest: Rest, editor: Browser) -> None:
    page = await Browser(rest, "reader").page(PATH)
    assert "serviceaccounts/token" in page
    assert '<form method="post" action="/api-keys"' not in page
    answer = await Browser(rest, "reader").post(PATH, FORM)
    assert answer.status_code == 403


async def test_who_is_logged_in_with_a_key_is_told_to_use_a_token(editor: Browser) -> None:
    _, page = await made(editor)
    key = SECRET.search(page)
    assert key is not None
    editor.rest.cluster.accounts[ROBOT].accounts.add(ROBOT)
    assert "log in with a Kubernetes token" in await Browser(editor.rest, key[0]).page(PATH)


class TestWithoutAccounts:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune"}

    async def test_the_chart_value_is_named(self, editor: Browser) -> None:
        assert "api.keys.serviceAccounts" in await editor.page(PATH)
