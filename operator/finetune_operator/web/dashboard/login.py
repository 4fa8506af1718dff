"""Log in with a token, which is kept in a cookie that no script can read, and log out."""

from typing import Annotated

from fastapi import Form, Query, Request
from starlette.responses import RedirectResponse, Response

from finetune_operator.logs import get_logger
from finetune_operator.web.auth import TOKEN_PATTERN, caller_of
from finetune_operator.web.dashboard.policy import is_secure, safe_path
from finetune_operator.web.dashboard.routing import LOGIN_PATH, Page, page_router
from finetune_operator.web.dashboard.visits import COOKIE, SEE_OTHER, rendered
from finetune_operator.web.problems import Problem
from finetune_operator.web.services import ServicesOf

COOKIE_MAX_CHARACTERS = 3800
"""Browsers drop cookies of more than 4096 bytes with name and attributes."""
TOO_LONG = (
    f"this token has more than {COOKIE_MAX_CHARACTERS} characters, which no browser keeps: use one of "
    "`kubectl create token`, or REST"
)
NOBODYS = (
    "nobody knows this token, or it has expired: `kubectl create token <serviceaccount> -n <namespace>` prints a new "
    "one"
)
UNAUTHORIZED = 401

logger = get_logger(__name__)
router = page_router()


@router.get(LOGIN_PATH)
async def login_page(
    request: Request, services: ServicesOf, next_path: Annotated[str | None, Query(alias="next")] = None
) -> Response:
    """The form."""
    return rendered(request, services, None, "login.html", next_path=safe_path(next_path), mistake=None)


@router.post(LOGIN_PATH)
async def log_in(
    request: Request,
    services: ServicesOf,
    token: Annotated[str, Form()] = "",
    next_path: Annotated[str | None, Form(alias="next")] = None,
) -> Response:
    """Keeps the token, once somebody knows it."""
    shown, after = token.strip(), safe_path(next_path)
    mistake = await mistake_of(services, shown)
    if mistake is not None:
        return rendered(request, services, None, "login.html", UNAUTHORIZED, next_path=after, mistake=mistake)
    response = RedirectResponse(after, SEE_OTHER)
    remember(response, request, shown)
    return response


@router.post("/logout")
async def log_out() -> Response:
    response = RedirectResponse(LOGIN_PATH, SEE_OTHER)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def remember(response: Response, request: Request, token: str) -> None:
    """Keep the token in the browser, where no script reads it."""
    secure = is_secure(request.url.scheme, request.headers)
    response.set_cookie(COOKIE, token, path="/", httponly=True, samesite="strict", secure=secure)


async def mistake_of(services: ServicesOf, shown: str, unknown: str = NOBODYS) -> str | None:
    """What is wrong with a token, None for one that is known."""
    if len(shown) > COOKIE_MAX_CHARACTERS:
        return TOO_LONG
    if not TOKEN_PATTERN.fullmatch(shown):
        return NOBODYS if shown else "paste a token"
    try:
        caller = await caller_of(services, f"Bearer {shown}")
    except Problem as problem:
        if problem.status != UNAUTHORIZED:
            raise
        return unknown
    logger.info("logged in", user=caller.name)
    return None


PAGE = Page(router)
