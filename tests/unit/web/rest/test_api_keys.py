"""API keys: who may make them, what they are good for, and their end."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI
from structlog.testing import capture_logs

from finetune_operator.store.tables import StoredApiKey
from finetune_operator.web.account_tokens import RENEWED_AFTER
from finetune_operator.web.api_key_routes import MAX_ACTIVE
from finetune_operator.web.identity import Identity
from tests.unit.web.conftest import NOON, Clock
from tests.unit.web.rest.conftest import API_TOKEN, EDITOR, NOBODY, READER, ROBOT, Rest
from tests.unit.web.rest.played_api_server import OWN_TOKEN, VIEW, User
from tests.unit.web.test_access import is_problem

KEYS = "/v1/api-keys"
JOBS = "/v1/fine-tuning/jobs"
WANTED = {"name": "nightly training", "service_account": "robot"}
FLAT = {"model": "plato", "base_model": "volume://models/tiny"}


@pytest.fixture(autouse=True)
def _one_clock(rest: Rest) -> None:
    rest.cluster.now = rest.services.now


async def test_an_idempotency_key_makes_one_key(rest: Rest) -> None:
    once = EDITOR | {"Idempotency-Key": "nightly-1"}
    first = await rest.post(KEYS, WANTED, once)
    assert first.status_code == 201, first.text
    key = first.json()
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    for body in (WANTED, WANTED | {"name": "another"}):
        again = await rest.post(KEYS, body, once)
        assert is_problem(again, 409, "api-key-made-before")
        assert f"DELETE {KEYS}/{key['id']}" in again.json()["detail"]
        assert key["key"] not in again.text
    assert [each["id"] for each in (await rest.get(KEYS)).json()["api_keys"]] == [key["id"]]

    await rest.ask("DELETE", f"{KEYS}/{key['id']}")
    assert is_problem(await rest.post(KEYS, WANTED, once), 409, "api-key-made-before"), "also of a revoked one"
    other = await rest.post(KEYS, WANTED, EDITOR | {"Idempotency-Key": "nightly-2"})
    assert other.status_code == 201
    assert other.json()["id"] != key["id"]


async def test_of_two_requests_at_once_one_makes_the_key(rest: Rest) -> None:
    once = EDITOR | {"Idempotency-Key": "nightly-1"}
    answers = await asyncio.gather(*(rest.post(KEYS, WANTED, once) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    (made_once,) = (await rest.get(KEYS)).json()["api_keys"]
    key = next(answer.json() for answer in answers if answer.status_code == 201)
    assert made_once["id"] == key["id"]
    assert (await rest.get(JOBS, holder(key))).status_code == 200


async def test_each_key_is_on_one_page(rest: Rest) -> None:
    for number in range(5):
        # Two of one moment at a time.
        object.__setattr__(rest.services, "now", lambda number=number: NOON + timedelta(minutes=number // 2))
        await made(rest)
    whole = (await rest.get(KEYS)).json()
    assert (len(whole["api_keys"]), whole["has_more"], whole["next"]) == (5, False, None)
    for limit in (1, 2, 4, 5):
        found, query = [], f"?limit={limit}"
        while True:
            page = (await rest.get(KEYS + query)).json()
            found += page["api_keys"]
            assert page["accounts"] == whole["accounts"]
            assert page["has_more"] == (len(found) < 5)
            if page["next"] is None:
                break
            query = f"?limit={limit}&after={page['next']}"
        assert found == whole["api_keys"]
    assert is_problem(await rest.get(f"{KEYS}?after=_abc"), 422, "wrong-cursor")


def clock(rest: Rest) -> Clock:
    assert isinstance(rest.services.now, Clock)
    return rest.services.now


async def made(rest: Rest, **changes: Any) -> dict[str, Any]:
    response = await rest.post(KEYS, WANTED | changes)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def holder(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


async def test_a_key_acts_as_its_service_account(rest: Rest) -> None:
    key = await made(rest)
    assert key["key"].startswith(f"ftk_{key['id']}_")
    assert (key["namespace"], key["service_account"], key["active"]) == ("finetune", "robot", True)
    assert key["created_by"] == "system:serviceaccount:finetune:editor"
    response = await rest.post(JOBS, FLAT, holder(key))
    assert response.status_code == 201, response.text
    writers = {user for user, method, path in rest.cluster.writes() if path.endswith("finetunejobs")}
    assert writers == {"system:serviceaccount:finetune:robot"}


async def test_rbac_of_the_service_account_decides(rest: Rest) -> None:
    key = await made(rest)
    rest.cluster.accounts[ROBOT].rights = VIEW
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    assert is_problem(await rest.post(JOBS, FLAT, holder(key)), 403, "forbidden")


async def test_openai_clients_take_it_as_theirs(rest: Rest) -> None:
    key = await made(rest)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(rest.app)) as http:
        client = AsyncOpenAI(base_url="http://api/v1", api_key=key["key"], http_client=http, max_retries=0)
        assert [model.id async for model in client.models.list()] == ["plato-v2"]


async def test_the_secret_is_neither_kept_nor_listed_nor_logged(rest: Rest) -> None:
    with capture_logs() as logs:
        key = await made(rest)
        await rest.get(JOBS, holder(key))
        guessed = key["key"][:-1] + ("B" if key["key"].endswith("A") else "A")
        await rest.get(JOBS, {"Authorization": f"Bearer {guessed}"})
        await rest.ask("DELETE", f"{KEYS}/{key['id']}")
    secret = key["key"].removeprefix(f"ftk_{key['id']}_")
    assert [entry["event"] for entry in logs if entry.get("key")] == [
        "api key created",
        "api key used",
        "api key refused",
        "api key revoked",
    ]
    assert secret[:-1] not in str(logs)
    listed = (await rest.get(KEYS)).json()
    assert [entry["id"] for entry in listed["api_keys"]] == [key["id"]]
    assert "key" not in listed["api_keys"][0]
    async with rest.services.engine.connect() as connection:
        (row,) = (await connection.execute(StoredApiKey.__table__.select())).all()
    assert secret not in str(row)
    assert row.digest == hashlib.sha256(secret.encode()).hexdigest()


REFUSED: dict[str, tuple[dict[str, str], dict[str, Any], int, str]] = {
    "who may not make tokens": (READER, WANTED, 403, "forbidden"),
    "the api's own token, which is nobody's": (API_TOKEN, WANTED, 403, "kubernetes-token-needed"),
    "an account that is not listed": (EDITOR, WANTED | {"service_account": "admin"}, 403, "api-keys-not-configured"),
    "in a namespace that is not served": (EDITOR, WANTED | {"namespace": "other"}, 403, "forbidden"),
    "without an end": (EDITOR, WANTED | {"expires_in_days": 3660}, 422, "invalid-request"),
    "already ended": (EDITOR, WANTED | {"expires_in_days": 0}, 422, "invalid-request"),
    "a path as a name": (EDITOR, WANTED | {"service_account": "../robot"}, 422, "invalid-request"),
    "without a name": (EDITOR, {"service_account": "robot"}, 422, "invalid-request"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_who_makes_no_key(rest: Rest, case: str) -> None:
    caller, body, status, kind = REFUSED[case]
    rest.cluster.users["editor"].accounts.add("finetune/admin")
    assert is_problem(await rest.post(KEYS, body, caller), status, kind)
    assert (await rest.get(KEYS)).json()["api_keys"] == []
    assert rest.cluster.made_tokens == 0


async def test_what_the_installation_lacks_is_told_before_there_is_a_key(rest: Rest) -> None:
    rest.cluster.users[OWN_TOKEN].accounts.clear()
    response = await rest.post(KEYS, WANTED)
    assert is_problem(response, 403, "api-keys-not-configured")
    assert "api.keys.serviceAccounts" in response.json()["detail"]
    rest.cluster.users[OWN_TOKEN].accounts.add(ROBOT)
    del rest.cluster.accounts[ROBOT]
    assert is_problem(await rest.post(KEYS, WANTED), 403, "no-service-account")
    assert (await rest.get(KEYS)).json()["api_keys"] == []


async def test_a_key_makes_no_other(rest: Rest) -> None:
    rest.cluster.accounts[ROBOT].accounts.add(ROBOT)
    key = await made(rest)
    assert is_problem(await rest.post(KEYS, WANTED, holder(key)), 403, "api-key-makes-no-key")
    assert (await rest.get(KEYS, holder(key))).status_code == 200


async def test_a_revoked_key_ends_at_once(rest: Rest) -> None:
    key = await made(rest)
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    assert is_problem(await rest.ask("DELETE", f"{KEYS}/{key['id']}", caller=NOBODY), 403, "forbidden")
    assert is_problem(await rest.ask("DELETE", f"{KEYS}/{key['id']}", caller=API_TOKEN), 403, "kubernetes-token-needed")
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    for _ in range(2):
        assert (await rest.ask("DELETE", f"{KEYS}/{key['id']}")).status_code == 204
    response = await rest.get(JOBS, holder(key))
    assert is_problem(response, 401, "unauthorized")
    assert "was revoked" in response.json()["detail"]
    (entry,) = (await rest.get(KEYS)).json()["api_keys"]
    assert entry["revoked_at"]
    assert not entry["active"]


async def test_a_key_expires(rest: Rest) -> None:
    key = await made(rest, expires_in_days=1)
    clock(rest).time += timedelta(days=1)
    response = await rest.get(JOBS, holder(key))
    assert is_problem(response, 401, "unauthorized")
    assert "expired on 2026-11-22" in response.json()["detail"]


async def test_a_key_of_an_account_that_is_not_listed_any_more(rest: Rest) -> None:
    key = await made(rest)
    object.__setattr__(rest.services, "settings", rest.services.settings.model_copy(update={"api_key_accounts": ()}))
    response = await rest.get(JOBS, holder(key))
    assert is_problem(response, 403, "api-keys-not-configured")
    assert is_problem(await rest.post(KEYS, WANTED), 409, "api-keys-not-configured")
    assert is_problem(await rest.get(KEYS), 409, "api-keys-not-configured")
    assert (await rest.ask("DELETE", f"{KEYS}/{key['id']}")).status_code == 204, "ending one needs no setting"


WRONG = {
    "another secret": lambda key: key[:-1] + ("A" if key[-1] != "A" else "B"),
    "another id": lambda key: f"ftk_{'0' * 16}_{key[21:]}",
    "the digest": lambda key: key[:21] + "0" * 43,
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_key_is_nobodys_and_asks_the_api_server_nothing(rest: Rest, case: str) -> None:
    key = await made(rest)
    asked = len(rest.cluster.requests)
    response = await rest.get(JOBS, {"Authorization": f"Bearer {WRONG[case](key['key'])}"})
    assert is_problem(response, 401, "unauthorized")
    assert len(rest.cluster.requests) == asked
    assert rest.cluster.strangers == 0, "a key never leaves the api"


async def test_tokens_are_made_anew_before_they_end(rest: Rest) -> None:
    key = await made(rest)
    for _ in range(3):
        assert (await rest.get(JOBS, holder(key))).status_code == 200
    assert rest.cluster.made_tokens == 1
    clock(rest).time += timedelta(minutes=61)
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    assert rest.cluster.made_tokens == 2


def make_the_account_anew(rest: Rest) -> None:
    """Tokens of the one before are bound to its uid."""
    for token in [token for token, user in rest.cluster.users.items() if user is rest.cluster.accounts[ROBOT]]:
        del rest.cluster.users[token]


async def test_a_key_outlives_the_deletion_of_its_service_account(rest: Rest) -> None:
    key = await made(rest)
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    object.__setattr__(rest.services, "identity", Identity(rest.services.cluster))
    clock(rest).time += RENEWED_AFTER
    make_the_account_anew(rest)
    assert (await rest.get(JOBS, holder(key))).status_code == 200
    assert rest.cluster.made_tokens == 2


async def test_an_api_server_that_knows_none_of_its_own_tokens_is_not_asked_for_one_by_each_request(rest: Rest) -> None:
    key = await made(rest)
    clock(rest).time += RENEWED_AFTER
    for status in (200, 401, 401):
        make_the_account_anew(rest)
        object.__setattr__(rest.services, "identity", Identity(rest.services.cluster))
        assert (await rest.get(JOBS, holder(key))).status_code == status
    assert rest.cluster.made_tokens == 2


async def test_an_api_server_that_is_away_is_a_503(rest: Rest) -> None:
    key = await made(rest)
    rest.services.account_tokens.drop(key["id"])
    rest.cluster.away = True
    assert is_problem(await rest.get(JOBS, holder(key)), 503, "cluster-unavailable")


async def test_keys_are_those_of_accounts_that_one_may_act_as(rest: Rest) -> None:
    await made(rest)
    body = (await rest.get(KEYS)).json()
    assert body["accounts"] == [{"namespace": "finetune", "service_account": "robot"}]
    rest.cluster.users["other"] = User("other", VIEW)
    assert is_problem(await rest.get(KEYS, {"Authorization": "Bearer other"}), 403, "forbidden")
    assert is_problem(await rest.get(KEYS, API_TOKEN), 403, "kubernetes-token-needed")
    assert is_problem(await rest.ask("DELETE", f"{KEYS}/{'0' * 16}"), 404, "unknown-api-key")


async def test_there_are_only_so_many(rest: Rest) -> None:
    for _ in range(MAX_ACTIVE):
        key = await made(rest)
    assert is_problem(await rest.post(KEYS, WANTED), 409, "too-many-api-keys")
    await rest.ask("DELETE", f"{KEYS}/{key['id']}")
    await made(rest)
