"""A small issuer of OpenID Connect over HTTP: it checks what a client has to send, and signs with a fresh key."""

import base64
import hashlib
import ssl
import time
from collections.abc import Callable
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.unit.gateway.servers import HOST, Server

CLIENT_ID = "finetune-dashboard"
CLIENT_SECRET = "hunter2"  # noqa: S105 - of this test
REDIRECT_URL = "http://api/login/oidc/callback"
Claims = dict[str, Any]


class Issuer(Server):
    """Everybody is Ada. A test changes the claims before they are signed, or how they are."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._tls = tls
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.key_id = "first"
        self.change: Callable[[Claims], Claims] = lambda claims: claims
        self.sign: Callable[[Claims], str] = self.signed
        self.codes: dict[str, dict[str, str]] = {}
        self.metadata: dict[str, Any] = {}
        self.asked: list[str] = []
        self.is_public = False
        self.answer: Callable[[str], web.Response] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}"

    async def start(self) -> None:
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port, ssl_context=self._tls).start()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._configuration)
        application.router.add_get("/keys", self._keys)
        application.router.add_post("/token", self._token)
        return application

    def signed(self, claims: Claims) -> str:
        return jwt.encode(claims, self.key, "RS256", headers={"kid": self.key_id})

    def authorize(self, query: dict[str, str]) -> str:
        """What happens in the browser: Ada logs in, and is sent back with this code."""
        assert query["response_type"] == "code"
        assert (query["client_id"], query["redirect_uri"]) == (CLIENT_ID, REDIRECT_URL)
        assert "openid" in query["scope"].split()
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return code

    async def _configuration(self, request: web.Request) -> web.Response:
        self.asked.append("configuration")
        told = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return web.json_response(told | self.metadata)

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append("keys")
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return web.json_response({"keys": [public | {"kid": self.key_id, "alg": "RS256", "use": "sig"}]})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        code = str(form["code"])
        self.asked.append(code)
        if self.answer:
            return self.answer(code)
        begun = self.codes.pop(code, None)
        if begun is None:
            return _refused("the code is unknown")
        if not self._is_client(request, dict(form)):
            return _refused("the client is unknown")
        verifier = str(form["code_verifier"]).encode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).decode().rstrip("=")
        if challenge != begun["code_challenge"] or form["redirect_uri"] != REDIRECT_URL:
            return _refused("the verifier is another one")
        now = int(time.time())
        claims = {"iss": self.url, "sub": "ada", "aud": CLIENT_ID, "iat": now, "exp": now + 300}
        claims |= {"nonce": begun["nonce"], "email": "ada@example.com", "email_verified": True}
        return web.json_response({"token_type": "Bearer", "id_token": self.sign(self.change(claims))})

    def _is_client(self, request: web.Request, form: dict[str, Any]) -> bool:
        if self.is_public:
            return form.get("client_id") == CLIENT_ID and "Authorization" not in request.headers
        if "client_secret" in form:
            return (form["client_id"], form["client_secret"]) == (CLIENT_ID, CLIENT_SECRET)
        pair = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {pair}"


def _refused(why: str) -> web.Response:
    return web.json_response({"error": "invalid_grant", "error_description": why}, status=400)
