"""What holds for every page: log-in, policy, origin of changes, errors for people, vendored files."""

import hashlib
import tomllib
from pathlib import Path

import pytest

from finetune_operator.web.dashboard import assets, fine_tuning
from finetune_operator.web.dashboard.policy import is_from_here, is_secure, safe_path
from finetune_operator.web.dashboard.visits import COOKIE
from tests.unit.web.dashboard.conftest import Browser

VENDOR = assets.STATIC / "vendor"
AXE = Path(__file__).parent / "axe"


async def test_who_is_not_logged_in_is_sent_to_the_form_and_back(stranger: Browser) -> None:
    answer = await stranger.get("/fine-tuning?status=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/fine-tuning%3Fstatus%3Dfailed")
    form = await stranger.get(answer.headers["location"])
    assert form.status_code == 200
    assert 'value="/fine-tuning?status=failed"' in form.text


async def test_a_token_that_is_known_is_kept_where_no_script_reads_it(stranger: Browser) -> None:
    answer = await stranger.post("/login", {"token": " editor\n", "next": "/fine-tuning"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/fine-tuning")
    kept = answer.headers["set-cookie"]
    assert kept.startswith(f"{COOKIE}=editor;")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in kept.split(";")}
    assert "Secure" not in kept


async def test_behind_https_the_cookie_is_for_https_only(stranger: Browser) -> None:
    answer = await stranger.post("/login", {"token": "editor"}, X_Forwarded_Proto="https")
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("token", ["unknown", "", "two words", "x" * 4000, "internal-token", "ä"])
async def test_a_token_that_nobody_knows_is_not_kept_and_not_shown(stranger: Browser, token: str) -> None:
    answer = await stranger.post("/login", {"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "kubectl create token" in answer.text
    assert not token or f'"{token}"' not in answer.text


async def test_a_token_that_has_expired_ends_the_session(stranger: Browser) -> None:
    stranger.cookies = {COOKIE: "expired"}
    answer = await stranger.get("/fine-tuning")
    assert answer.headers["location"] == "/login?next=/fine-tuning"
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]
    fragment = await stranger.get("/fine-tuning", HX_Request="true")
    assert (fragment.status_code, fragment.headers["hx-redirect"]) == (401, "/login")


async def test_logging_out_forgets_the_token(editor: Browser) -> None:
    answer = await editor.post("/logout")
    assert answer.headers["location"] == "/login"
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]


async def test_the_cookie_opens_no_rest(editor: Browser) -> None:
    assert (await editor.get("/v1/fine-tuning/jobs")).status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_other_sites_change_nothing(editor: Browser, site: str) -> None:
    answer = await editor.post("/logout", Sec_Fetch_Site=site)
    assert answer.status_code == 403
    assert "did not come from a page of this dashboard" in answer.text


ORIGINS = {
    "the browser says so": ({"sec-fetch-site": "same-origin"}, True),
    "another site": ({"sec-fetch-site": "cross-site", "origin": "http://api", "host": "api"}, False),
    "an older browser, http": ({"origin": "http://api:8080", "host": "api:8080"}, True),
    "the port that is implied": ({"origin": "https://api", "host": "api:443"}, True),
    "IPv6": ({"origin": "http://[::1]:8080", "host": "[::1]:8080"}, True),
    "another port": ({"origin": "http://api:1", "host": "api:8080"}, False),
    "another host": ({"origin": "https://evil.example", "host": "api"}, False),
    "a hidden origin": ({"origin": "null", "host": "api"}, False),
    "no browser": ({"host": "api"}, False),
}


@pytest.mark.parametrize(("headers", "expected"), ORIGINS.values(), ids=ORIGINS)
def test_where_a_form_comes_from(headers: dict[str, str], expected: bool) -> None:
    assert is_from_here(headers) is expected


@pytest.mark.parametrize(
    "path", [None, "", "fine-tuning", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb"]
)
def test_the_log_in_leads_nowhere_else(path: str | None) -> None:
    assert safe_path(path) == "/"


def test_https_is_the_schemes_or_a_proxys_word() -> None:
    assert is_secure("https", {})
    assert is_secure("http", {"x-forwarded-proto": "https, http"})
    assert not is_secure("http", {"x-forwarded-proto": "http"})


async def test_every_answer_has_the_policy(editor: Browser, stranger: Browser) -> None:
    for answer in (await editor.get("/fine-tuning"), await stranger.get("/login"), await editor.post("/login")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_files_are_kept_for_ever_under_a_path_that_names_what_they_contain(stranger: Browser) -> None:
    answer = await stranger.get(assets.asset("app.css"))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert (await stranger.get("/static/0123456789abcdef/app.css")).status_code == 404
    assert (await stranger.get(f"/static/{assets.DIGEST}/%2e%2e/login.py")).status_code == 404


@pytest.mark.parametrize("directory", [VENDOR, AXE], ids=["served", "of tests"])
def test_vendored_files_are_what_was_published_with_their_licences(directory: Path) -> None:
    packages = tomllib.loads((directory / "VENDORED.toml").read_text())["package"]
    listed = {name: digest for package in packages for name, digest in package["files"].items()}
    there = {path.name for path in directory.iterdir()} - {"VENDORED.toml"}
    assert there == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest, name
    for package in packages:
        assert package["license"]
        assert any("LICENSE" in name for name in package["files"]), package["name"]


async def test_an_unexpected_failure_is_a_page_that_tells_nothing_else(
    editor: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(fine_tuning, "jobs_of", broken)
    answer = await editor.get("/fine-tuning")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "an unexpected RuntimeError" in answer.text
    assert "a secret" not in answer.text


@pytest.mark.parametrize(
    ("path", "accept", "answered"),
    [
        ("/fine-tunning", "text/html,application/xhtml+xml", "text/html; charset=utf-8"),
        ("/fine-tunning", "*/*", "application/problem+json"),
        ("/v1/fine-tuning/job", "text/html", "application/problem+json"),
        ("/v1/responses", "text/html", "application/json"),
    ],
)
async def test_who_asks_for_a_page_that_is_not_there_gets_one(
    editor: Browser, path: str, accept: str, answered: str
) -> None:
    answer = await editor.get(path, Accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (404, answered)
    if "html" in answered:
        assert f"there is no page {path}" in answer.text
        assert 'href="/"' in answer.text
