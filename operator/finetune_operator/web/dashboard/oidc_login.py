"""Log in at an issuer of OpenID Connect: there with a state, and back with an id_token for the cookie of the log-in.

The state, the nonce and PKCE's verifier wait in a signed cookie of the browser that began, so that any pod can take the
answer, and nobody can have another one finish their log-in.
"""

import hashlib
import hmac
from typing import Annotated

import jwt
from fastapi import Query, Request
from starlette.responses import RedirectResponse, Response

from finetune_operator.web.dashboard.login import mistake_of, remember
from finetune_operator.web.dashboard.policy import is_secure, safe_path
from finetune_operator.web.dashboard.routing import Page, page_router
from finetune_operator.web.dashboard.visits import SEE_OTHER, rendered
from finetune_operator.web.oidc import Attempt, LoginFailed, OpenIdProvider
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import Services, ServicesOf

PATH = "/login/oidc"
ATTEMPT_COOKIE = "finetune_login"
ATTEMPT_SECONDS = 600
PURPOSE = b"oidc-login"
ALGORITHM = "HS256"
NOT_BEGUN = "this log-in was not begun in this browser, or more than ten minutes ago: begin again"
NOT_TRUSTED = (
    "the log-in succeeded, but the cluster does not know its token: its API server has to trust this issuer and this "
    "client id (--oidc-issuer-url and --oidc-client-id, or an AuthenticationConfiguration)"
)
UNAUTHORIZED = 401

Text = Annotated[str, Query(max_length=4096)]
router = page_router(PATH)


@router.get("")
async def begin(
    request: Request, services: ServicesOf, next_path: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """To the issuer."""
    provider, after = _provider(services), safe_path(next_path)
    attempt = Attempt.new(services.random_bytes)
    try:
        response = RedirectResponse(await provider.login_url(attempt), SEE_OTHER)
    except LoginFailed as error:
        return _failed(request, services, after, str(error))
    claims = {"state": attempt.state, "nonce": attempt.nonce, "verifier": attempt.verifier, "next": after}
    response.set_cookie(
        ATTEMPT_COOKIE,
        jwt.encode(claims | {"iat": int(services.now().timestamp())}, _key(services), ALGORITHM),
        max_age=ATTEMPT_SECONDS,
        path=PATH,
        httponly=True,
        # The issuer's page leads back, which is another site.
        samesite="lax",
        secure=is_secure(request.url.scheme, request.headers),
    )
    return response


@router.get("/callback")
async def finish(
    request: Request, services: ServicesOf, code: Text = "", state: Text = "", error: Text = "", iss: Text = ""
) -> Response:
    """From the issuer, with a code for an id_token, or with the reason why there is none."""
    provider = _provider(services)
    kept = _kept(request, services)
    if kept is None or not hmac.compare_digest(kept[0].state.encode(), state.encode()):
        return _failed(request, services, "/", NOT_BEGUN)
    attempt, after = kept
    if error or not code:
        return _failed(request, services, after, f"{provider.name} did not log you in: {error or 'it sent no code'}")
    if iss and iss != provider.issuer:
        return _failed(request, services, after, f"the answer is not from {provider.name}, but from {iss}")
    try:
        token = await provider.id_token(code, attempt)
    except LoginFailed as failure:
        return _failed(request, services, after, str(failure))
    if mistake := await mistake_of(services, token, unknown=NOT_TRUSTED):
        return _failed(request, services, after, mistake)
    # A page that leads on, since a strict cookie is not sent along a redirect that began at another site.
    response: Response = rendered(request, services, None, "logged_in.html", next_path=after)
    remember(response, request, token)
    return _forget(response)


def _provider(services: Services) -> OpenIdProvider:
    if services.oidc is None:
        detail = "this api has no issuer to log in at: set the chart's values api.oidc (FINETUNE_OIDC_ISSUER)"
        raise Problem(404, "oidc-not-configured", detail)
    return services.oidc


def _kept(request: Request, services: Services) -> tuple[Attempt, str] | None:
    """What this browser has begun, and where it goes afterwards."""
    try:
        claims = jwt.decode(
            request.cookies.get(ATTEMPT_COOKIE, ""),
            _key(services),
            algorithms=[ALGORITHM],
            options={"require": ["iat"], "verify_iat": False},
        )
    except jwt.PyJWTError:
        return None
    if services.now().timestamp() - float(claims["iat"]) > ATTEMPT_SECONDS:
        return None
    return Attempt(claims["state"], claims["nonce"], claims["verifier"]), safe_path(claims["next"])


def _key(services: Services) -> bytes:
    """The same in all pods."""
    return hmac.digest(services.settings.internal_token.get_secret_value().encode(), PURPOSE, hashlib.sha256)


def _failed(request: Request, services: Services, after: str, mistake: str) -> Response:
    page = rendered(request, services, None, "login.html", UNAUTHORIZED, next_path=after, mistake=mistake)
    return _forget(page)


def _forget(response: Response) -> Response:
    """An attempt is good for one answer."""
    response.delete_cookie(ATTEMPT_COOKIE, path=PATH, httponly=True, samesite="lax")
    return response


PAGE = Page(router)
