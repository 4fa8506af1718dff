"""OpenID Connect, as far as a log-in needs it: authorization code with PKCE, and an id_token that is verified.

The issuer is one that the API server trusts, so that the id_token is itself a Kubernetes token: RBAC stays the one
truth, and the api needs no right to impersonate anybody. Neither access nor refresh tokens are kept.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

import aiohttp
import jwt

from finetune_operator.logs import cause, get_logger
from finetune_operator.web.settings import OidcSettings

TIMEOUT_SECONDS = 10
ANSWER_MAX_BYTES = 262_144
READ_BYTES = 65_536
METADATA_SECONDS = 3600.0
KEYS_ANEW_SECONDS = 30.0
"""So long after they were read, keys are read again for one that is not among them: issuers change theirs."""
LEEWAY_SECONDS = 30
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key alone: with `none` or a shared secret anybody could make tokens."""
MESSAGE_MAX_CHARACTERS = 300

logger = get_logger(__name__)


class LoginFailed(Exception):
    """The text says what went wrong, to who tried to log in."""


@dataclass(frozen=True)
class Attempt:
    """What binds the answer of the issuer to the browser that asked; the verifier never leaves us but to the issuer."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls, random_bytes: Callable[[int], bytes]) -> "Attempt":
        state, nonce, verifier = (_base64(random_bytes(32)) for _ in range(3))
        return cls(state, nonce, verifier)

    @property
    def challenge(self) -> str:
        """Of PKCE, by S256."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())


@dataclass(frozen=True)
class _Metadata:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    takes_basic: bool


class OpenIdProvider:
    """The issuer of the settings, asked by HTTP; its metadata and keys are kept for a while."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: OidcSettings, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._settings = settings
        self._now = now
        self._metadata: tuple[float, _Metadata] | None = None
        self._keys: tuple[float, tuple[jwt.PyJWK, ...]] | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        return self._settings.name

    @property
    def issuer(self) -> str:
        return self._settings.issuer

    async def login_url(self, attempt: Attempt) -> str:
        """Where the browser goes. Raises `LoginFailed`."""
        metadata = await self._known_metadata()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect_url,
            "scope": self._settings.scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{joint}{urlencode(query)}"

    async def id_token(self, code: str, attempt: Attempt) -> str:
        """The verified id_token of who logged in at the issuer. Raises `LoginFailed`."""
        metadata = await self._known_metadata()
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.redirect_url,
            "code_verifier": attempt.verifier,
        }
        headers = {"Accept": "application/json"}
        secret = settings.client_secret.get_secret_value() if settings.client_secret else None
        if secret is not None and metadata.takes_basic:
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": settings.client_id} | ({"client_secret": secret} if secret is not None else {})
        answer = await self._asked("POST", metadata.token_endpoint, data=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginFailed("the issuer gave no id_token: the scope openid must be among FINETUNE_OIDC_SCOPES")
        await self._verify(token, attempt)
        return token

    async def _verify(self, token: str, attempt: Attempt) -> None:
        """Signature, issuer, audience, time and nonce. Raises `LoginFailed`."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise LoginFailed(f"the id_token is not signed by a key of the issuer (alg {header.get('alg')})")
            claims = jwt.decode(
                token,
                await self._key(header.get("kid")),
                algorithms=list(ALGORITHMS),
                audience=self._settings.client_id,
                issuer=self._settings.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise LoginFailed(f"the id_token is not valid: {error}") from None
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self._settings.client_id:
            raise LoginFailed("the id_token is not valid: it was made for another client (azp)")
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), attempt.nonce.encode()):
            raise LoginFailed("the id_token is not valid: it is not of this log-in (nonce)")

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        """The issuer's key of this id, or its only one."""
        for anew in (False, True):
            keys = await self._known_keys(anew=anew)
            found = [key for key in keys if key.key_id == key_id or (key_id is None and len(keys) == 1)]
            if found:
                return found[0]
        raise LoginFailed("the id_token is not valid: the issuer has no such key")

    async def _known_keys(self, *, anew: bool) -> tuple[jwt.PyJWK, ...]:
        if self._keys is not None:
            age = self._now() - self._keys[0]
            if age < (KEYS_ANEW_SECONDS if anew else METADATA_SECONDS):
                return self._keys[1]
        answer = await self._asked("GET", (await self._known_metadata()).jwks_uri)
        try:
            found = tuple(key for key in jwt.PyJWKSet.from_dict(answer).keys if key.public_key_use in (None, "sig"))
        except jwt.PyJWTError as error:
            raise LoginFailed(f"the issuer's keys can't be read: {error}") from None
        self._keys = (self._now(), found)
        return found

    async def _known_metadata(self) -> _Metadata:
        if self._metadata is not None and self._now() - self._metadata[0] < METADATA_SECONDS:
            return self._metadata[1]
        issuer = self._settings.issuer
        told = await self._asked("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if told.get("issuer") != issuer:
            raise LoginFailed(f"the issuer calls itself {told.get('issuer')}: set FINETUNE_OIDC_ISSUER to exactly that")
        ways = told.get("token_endpoint_auth_methods_supported")
        try:
            found = _Metadata(
                authorization_endpoint=str(told["authorization_endpoint"]),
                token_endpoint=str(told["token_endpoint"]),
                jwks_uri=str(told["jwks_uri"]),
                takes_basic=not isinstance(ways, list) or "client_secret_basic" in ways,
            )
        except KeyError as error:
            raise LoginFailed(f"the issuer's configuration has no {error.args[0]}") from None
        self._metadata = (self._now(), found)
        return found

    async def _asked(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """A JSON object. Raises `LoginFailed`."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with self._session.request(
                method, url, timeout=timeout, allow_redirects=False, **options
            ) as response:
                status, text = response.status, b""
                async for block in response.content.iter_chunked(READ_BYTES):
                    text += block
                    if len(text) > ANSWER_MAX_BYTES:
                        raise LoginFailed(f"{url} answered with more than {ANSWER_MAX_BYTES} bytes")
        except (aiohttp.ClientError, TimeoutError) as error:
            logger.warning("the issuer did not answer", url=url, error=cause(error))
            raise LoginFailed(f"{url} did not answer; try again") from None
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if status >= 300 or not isinstance(told, dict):
            words = str(told.get("error_description") or told.get("error") or "") if isinstance(told, dict) else ""
            logger.warning("the issuer refused", url=url, status=status, error=words[:MESSAGE_MAX_CHARACTERS])
            raise LoginFailed(f"{url} answered with {status} {words[:MESSAGE_MAX_CHARACTERS]}".strip())
        return told


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
