"""Logging in at an issuer: a whole log-in, and every way in which one must fail."""

import base64
import hashlib
import html
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx2
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from finetune_operator.web.dashboard.oidc_login import ATTEMPT_COOKIE, ATTEMPT_SECONDS
from finetune_operator.web.dashboard.visits import COOKIE
from finetune_operator.web.oidc import OpenIdProvider
from finetune_operator.web.settings import InvalidSettings, Settings
from tests.unit.web.conftest import ENVIRONMENT, Clock
from tests.unit.web.dashboard.conftest import Browser
from tests.unit.web.dashboard.oidc_issuer import CLIENT_ID, CLIENT_SECRET, REDIRECT_URL, Claims, Issuer
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.played_api_server import EDIT, User

BEGIN, CALLBACK = "/login/oidc", "/login/oidc/callback"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    server = Issuer()
    async with server.running():
        yield server


def settings_of(issuer: Issuer, **changes: str) -> Settings:
    told = {
        "FINETUNE_OIDC_ISSUER": issuer.url,
        "FINETUNE_OIDC_CLIENT_ID": CLIENT_ID,
        "FINETUNE_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "FINETUNE_OIDC_REDIRECT_URL": REDIRECT_URL,
        "FINETUNE_OIDC_NAME": "Plato & Sons",
    }
    return Settings.from_environment(ENVIRONMENT | told | changes)


@pytest.fixture
async def ada(rest: Rest, issuer: Issuer) -> AsyncIterator[Browser]:
    """Whose tokens the API server knows, since it trusts the issuer."""

    def signed(claims: Claims) -> str:
        token = issuer.signed(claims)
        rest.cluster.users[token] = User("oidc:ada", EDIT)
        return token

    issuer.sign = signed
    oidc = settings_of(issuer).oidc
    assert oidc
    async with aiohttp.ClientSession() as session:
        object.__setattr__(rest.services, "oidc", OpenIdProvider(session, oidc))
        yield Browser(rest, None)


async def begun(browser: Browser, path: str = BEGIN) -> dict[str, str]:
    """What the issuer is asked; the browser keeps the attempt."""
    answer = await browser.get(path)
    assert answer.status_code == 303, answer.text
    kept = answer.cookies[ATTEMPT_COOKIE]
    browser.cookies[ATTEMPT_COOKIE] = kept
    browser.rest.client.cookies.clear()
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


async def finished(browser: Browser, issuer: Issuer, **changes: str) -> httpx2.Response:
    query = await begun(browser)
    back = {"state": query["state"], "code": issuer.authorize(query)} | changes
    return await browser.get(f"{CALLBACK}?{httpx2.QueryParams(back)}")


def is_refused(answer: httpx2.Response, words: str) -> bool:
    assert answer.status_code == 401
    assert words in html.unescape(answer.text), answer.text
    kept = answer.headers.get_list("set-cookie")
    assert not [each for each in kept if each.startswith(COOKIE)]
    assert [each for each in kept if each.startswith(f'{ATTEMPT_COOKIE}=""')], "an attempt is good for one answer"
    return True


async def test_a_whole_log_in(ada: Browser, issuer: Issuer) -> None:
    form = await ada.get("/login?next=/fine-tuning")
    assert "Sign in with Plato &amp; Sons" in form.text
    assert 'href="/login/oidc?next=/fine-tuning"' in form.text
    query = await begun(ada, "/login/oidc?next=/fine-tuning")
    answer = await ada.get(f"{CALLBACK}?state={query['state']}&code={issuer.authorize(query)}")
    assert answer.status_code == 200, answer.text
    assert 'content="0;url=/fine-tuning"' in answer.text, "from our own page, so that the strict cookie is sent"
    (kept,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(f"{COOKIE}=")]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in kept.split(";")}
    ada.cookies = {COOKIE: answer.cookies[COOKIE]}
    page = await ada.get("/fine-tuning")
    assert page.status_code == 200
    assert 'title="oidc:ada"' in page.text


async def test_the_attempt_is_kept_for_the_way_back_alone(ada: Browser) -> None:
    answer = await ada.get(BEGIN, X_Forwarded_Proto="https")
    (kept,) = answer.headers.get_list("set-cookie")
    parts = {part.strip() for part in kept.split(";")}
    assert {"HttpOnly", "SameSite=lax", "Path=/login/oidc", f"Max-Age={ATTEMPT_SECONDS}", "Secure"} <= parts
    query = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    claims = jwt.decode(answer.cookies[ATTEMPT_COOKIE], options={"verify_signature": False})
    assert claims["verifier"] not in answer.headers["location"]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(claims["verifier"].encode()).digest()).decode().rstrip("=")
    assert query["code_challenge"] == challenge
    assert len({query["state"], query["nonce"], claims["verifier"]}) == 3


async def test_each_log_in_has_its_own_secrets(ada: Browser) -> None:
    first, second = await begun(ada), await begun(ada)
    assert not {first[name] for name in ("state", "nonce", "code_challenge")} & set(second.values())


async def test_a_client_without_a_secret(rest: Rest, ada: Browser, issuer: Issuer) -> None:
    issuer.is_public = True
    assert is_refused(await finished(ada, issuer), "the client is unknown")
    oidc = settings_of(issuer, FINETUNE_OIDC_CLIENT_SECRET="").oidc
    assert oidc
    assert rest.services.oidc
    rest.services.oidc._settings = oidc
    assert (await finished(ada, issuer)).status_code == 200


async def test_an_issuer_that_takes_the_secret_in_the_form(ada: Browser, issuer: Issuer) -> None:
    issuer.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert (await finished(ada, issuer)).status_code == 200


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS: dict[str, tuple[Callable[[Claims], Claims], str]] = {
    "wrong nonce": (lambda claims: claims | {"nonce": "another"}, "not of this log-in (nonce)"),
    "no nonce": (lambda claims: {k: v for k, v in claims.items() if k != "nonce"}, "not of this log-in (nonce)"),
    "wrong audience": (lambda claims: claims | {"aud": "another-client"}, "Audience doesn't match"),
    "made for another of two": (lambda claims: claims | {"aud": [CLIENT_ID, "b"], "azp": "b"}, "another client (azp)"),
    "wrong issuer": (lambda claims: claims | {"iss": "https://evil.example"}, "Invalid issuer"),
    "expired": (lambda claims: claims | {"exp": int(time.time()) - 60}, "Signature has expired"),
    "without an end": (lambda claims: {k: v for k, v in claims.items() if k != "exp"}, 'missing the "exp" claim'),
    "of the future": (lambda claims: claims | {"iat": int(time.time()) + 600}, "not yet valid"),
}


@pytest.mark.parametrize("case", CLAIMS)
async def test_wrong_claims(ada: Browser, issuer: Issuer, case: str) -> None:
    issuer.change, words = CLAIMS[case]
    assert is_refused(await finished(ada, issuer), words)


def unsigned(claims: Claims) -> str:
    parts = ({"alg": "none", "typ": "JWT", "kid": "first"}, claims)
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{text}."


SIGNATURES: dict[str, tuple[Callable[[Issuer, Claims], str], str]] = {
    "alg none": (lambda issuer, claims: unsigned(claims), "not signed by a key of the issuer (alg none)"),
    "a shared secret": (
        lambda issuer, claims: jwt.encode(claims, CLIENT_SECRET * 8, "HS256", headers={"kid": "first"}),
        "not signed by a key of the issuer (alg HS256)",
    ),
    "another's key": (
        lambda issuer, claims: jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "first"}),
        "Signature verification failed",
    ),
    "an unknown key": (
        lambda issuer, claims: jwt.encode(claims, OTHER_KEY, "RS256", headers={"kid": "second"}),
        "the issuer has no such key",
    ),
    "changed afterwards": (
        lambda issuer, claims: ".".join(
            (issuer.signed(claims).split(".")[0], unsigned(claims | {"sub": "eve"}).split(".")[1],
             issuer.signed(claims).split(".")[2])
        ),
        "Signature verification failed",
    ),
    "no token at all": (lambda issuer, claims: "nonsense", "the id_token is not valid"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNATURES)
async def test_wrong_signatures(ada: Browser, issuer: Issuer, case: str) -> None:
    sign, words = SIGNATURES[case]
    issuer.sign = lambda claims: sign(issuer, claims)
    assert is_refused(await finished(ada, issuer), words)


async def test_a_wrong_state(ada: Browser, issuer: Issuer) -> None:
    assert is_refused(await finished(ada, issuer, state="another"), "not begun in this browser")
    assert is_refused(await finished(ada, issuer, state=""), "not begun in this browser")
    assert issuer.asked == ["configuration"], "no code is spent"


async def test_the_answer_to_another_browsers_attempt(ada: Browser, issuer: Issuer) -> None:
    query = await begun(ada)
    back = f"{CALLBACK}?state={query['state']}&code={issuer.authorize(query)}"
    ada.cookies.pop(ATTEMPT_COOKIE)
    assert is_refused(await ada.get(back), "not begun in this browser")
    forged = jwt.encode({"state": query["state"], "nonce": "n", "verifier": "v", "next": "/"}, "k" * 32, "HS256")
    ada.cookies[ATTEMPT_COOKIE] = forged
    assert is_refused(await ada.get(back), "not begun in this browser")


async def test_an_attempt_is_forgotten_after_ten_minutes(rest: Rest, ada: Browser, issuer: Issuer) -> None:
    query = await begun(ada)
    assert isinstance(rest.services.now, Clock)
    rest.services.now.time += timedelta(seconds=ATTEMPT_SECONDS)
    back = f"{CALLBACK}?state={query['state']}&code={issuer.authorize(query)}"
    assert is_refused(await ada.get(back), "more than ten minutes ago")


async def test_a_code_is_spent_once(ada: Browser, issuer: Issuer) -> None:
    query = await begun(ada)
    back = f"{CALLBACK}?state={query['state']}&code={issuer.authorize(query)}"
    assert (await ada.get(back)).status_code == 200
    assert is_refused(await ada.get(back), "the code is unknown")


async def test_what_the_issuer_says_is_shown_as_text(ada: Browser, issuer: Issuer) -> None:
    answer = await finished(ada, issuer, error="<script>alert(1)</script>", code="")
    assert is_refused(answer, "did not log you in")
    assert "<script>alert" not in answer.text


async def test_an_answer_of_another_issuer(ada: Browser, issuer: Issuer) -> None:
    assert is_refused(await finished(ada, issuer, iss="https://evil.example"), "not from Plato & Sons")
    assert (await finished(ada, issuer, iss=issuer.url)).status_code == 200


async def test_an_issuer_that_the_cluster_does_not_trust(ada: Browser, issuer: Issuer) -> None:
    issuer.sign = issuer.signed
    assert is_refused(await finished(ada, issuer), "its API server has to trust this issuer")


async def test_a_token_that_no_browser_keeps(ada: Browser, issuer: Issuer) -> None:
    issuer.change = lambda claims: claims | {"groups": ["x" * 60] * 80}
    assert is_refused(await finished(ada, issuer), "which no browser keeps")


async def test_keys_that_were_changed_are_read_again(rest: Rest, ada: Browser, issuer: Issuer) -> None:
    assert (await finished(ada, issuer)).status_code == 200
    issuer.key, issuer.key_id = OTHER_KEY, "second"
    assert is_refused(await finished(ada, issuer), "the issuer has no such key")
    assert rest.services.oidc
    rest.services.oidc._now = lambda: time.monotonic() + 60
    assert (await finished(ada, issuer)).status_code == 200
    assert issuer.asked.count("keys") == 2


BROKEN: dict[str, tuple[Callable[[str], web.Response], str]] = {
    "no JSON": (lambda _: web.Response(text="<html>"), "answered with 200"),
    "an error": (lambda _: web.json_response({"error": "invalid_client"}, status=401), "401 invalid_client"),
    "no id_token": (lambda _: web.json_response({"access_token": "a"}), "no id_token"),
    "elsewhere": (lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "with 302"),
    "too much": (lambda _: web.Response(text=" " * 300_000), "more than 262144 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_answers(ada: Browser, issuer: Issuer, case: str) -> None:
    issuer.answer, words = BROKEN[case]
    assert is_refused(await finished(ada, issuer), words)


async def test_an_issuer_that_is_away_or_another_one(ada: Browser, issuer: Issuer) -> None:
    issuer.metadata = {"issuer": "https://other.example"}
    answer = await ada.get(BEGIN)
    assert answer.status_code == 401
    assert "set FINETUNE_OIDC_ISSUER to exactly that" in answer.text
    await issuer.stop()
    assert "did not answer" in (await ada.get(BEGIN)).text


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_it_leads_nowhere_else(ada: Browser, issuer: Issuer, path: str) -> None:
    query = await begun(ada, f"{BEGIN}?{httpx2.QueryParams({'next': path})}")
    answer = await ada.get(f"{CALLBACK}?state={query['state']}&code={issuer.authorize(query)}")
    assert 'content="0;url=/"' in answer.text


async def test_without_an_issuer_there_is_neither_button_nor_log_in(stranger: Browser) -> None:
    assert "Sign in with" not in (await stranger.get("/login")).text
    for path in (BEGIN, CALLBACK):
        answer = await stranger.get(path)
        assert answer.status_code == 404
        assert "FINETUNE_OIDC_ISSUER" in answer.text


SETTINGS = {
    "no client": ({"FINETUNE_OIDC_CLIENT_ID": ""}, "needs FINETUNE_OIDC_CLIENT_ID"),
    "no way back": ({"FINETUNE_OIDC_REDIRECT_URL": ""}, "and FINETUNE_OIDC_REDIRECT_URL"),
    "another way back": ({"FINETUNE_OIDC_REDIRECT_URL": "https://x/other"}, "FINETUNE_OIDC_REDIRECT_URL"),
    "without TLS": ({"FINETUNE_OIDC_ISSUER": "http://issuer.example"}, "FINETUNE_OIDC_ISSUER"),
    "without openid": ({"FINETUNE_OIDC_SCOPES": "email"}, "FINETUNE_OIDC_SCOPES"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_wrong_settings(case: str) -> None:
    changes, words = SETTINGS[case]
    with pytest.raises(InvalidSettings, match=words):
        settings_of(Issuer(), **changes)


def test_the_secret_is_never_shown() -> None:
    settings = settings_of(Issuer())
    assert CLIENT_SECRET not in repr(settings) + repr(settings.oidc)
