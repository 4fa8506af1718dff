"""A log-in whose id_token the real API server knows, since it trusts the same issuer: RBAC decides by its claims."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from finetune_operator.web.dashboard.oidc_login import ATTEMPT_COOKIE
from finetune_operator.web.dashboard.visits import COOKIE
from finetune_operator.web.oidc import OpenIdProvider
from finetune_operator.web.settings import Settings
from tests.cluster.rest_api import ENVIRONMENT, RBAC, RestApi, rest_api
from tests.cluster.world import World
from tests.unit.gateway.servers import HOST
from tests.unit.web.dashboard.oidc_issuer import CLIENT_ID, CLIENT_SECRET, REDIRECT_URL, Issuer
from tests.waiting import eventually

ADA = "oidc:ada@example.com"
JOBS = "/v1/fine-tuning/jobs"
RELOADED_SECONDS = 120
"""The API server looks at its file once a minute, if nothing tells it before."""


def certificate(directory: Path) -> tuple[ssl.SSLContext, str]:
    """Of a server on the loopback interface: its context, and the certificate to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "issuer.pem").write_bytes(text + private)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "issuer.pem")
    return context, text.decode()


async def logged_in(api: RestApi, issuer: Issuer) -> str | None:
    """The token in the cookie of who has logged in; None where the API server does not know it (yet)."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser:
        async with browser.get(f"{api.url}/login/oidc", allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
            attempt = answer.cookies[ATTEMPT_COOKIE].value
            query = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
        back = {"state": query["state"], "code": issuer.authorize(query)}
        kept = {"Cookie": f"{ATTEMPT_COOKIE}={attempt}"}
        async with browser.get(f"{api.url}/login/oidc/callback", params=back, headers=kept) as answer:
            text = await answer.text()
            if answer.status == 401:
                assert "its API server has to trust this issuer" in text
                return None
            assert answer.status == 200, text
            return answer.cookies[COOKIE].value


async def test_who_logs_in_may_do_what_rbac_says(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    tls, authority = certificate(tmp_path)
    issuer = Issuer(tls)
    told = {
        "FINETUNE_OIDC_ISSUER": issuer.url,
        "FINETUNE_OIDC_CLIENT_ID": CLIENT_ID,
        "FINETUNE_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "FINETUNE_OIDC_REDIRECT_URL": REDIRECT_URL,
    }
    oidc = Settings.from_environment(ENVIRONMENT | told).oidc
    assert oidc
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "ada", "namespace": world.namespace},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": ADA}],
    }
    await world.plane.apply(binding)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority))
    async with (
        issuer.running(),
        rest_api(world, tmp_path) as api,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        object.__setattr__(api.services, "oidc", OpenIdProvider(session, oidc))
        assert await logged_in(api, issuer) is None, "the API server does not trust the issuer yet"
        world.plane.trust_issuer(issuer.url, authority, CLIENT_ID, "oidc:")
        try:
            tokens: list[str] = []

            async def known() -> bool:
                token = await logged_in(api, issuer)
                tokens.extend([token] if token else [])
                return bool(tokens)

            await eventually(known, RELOADED_SECONDS)
            token = tokens[-1]
            async with api.session.get(f"{api.url}/fine-tuning", headers={"Cookie": f"{COOKIE}={token}"}) as page:
                assert page.status == 200
                assert f'title="{ADA}"' in await page.text()
            status, body = await api.ask("GET", JOBS, token)
            assert status == 200, body
            status, body = await api.ask("POST", JOBS, token, {"base_model": "volume://models/tiny-llama"})
            assert status == 403, "Ada may read alone"
            assert ADA in body["detail"]
        finally:
            world.plane.trust_issuer("", "", "", "")
