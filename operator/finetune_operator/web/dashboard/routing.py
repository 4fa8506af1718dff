"""Routers of pages: problems become pages or fragments, and only our own pages may change something."""

import json
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from finetune_operator.kube.errors import KubeError
from finetune_operator.logs import get_logger
from finetune_operator.web.dashboard.policy import SAFE_METHODS, is_from_here
from finetune_operator.web.dashboard.visits import COOKIE, SEE_OTHER, NavEntry, is_fragment, rendered, shown_token
from finetune_operator.web.problems import Problem, http_problem
from finetune_operator.web.refusals import to_people

LOGIN_PATH = "/login"
REST_PREFIXES = ("/v1/", "/api/", "/internal/")
FOREIGN = (
    "this request did not come from a page of this dashboard: open the page and send its form again; programs "
    "use the REST interface below /v1"
)
EXPECTED = (Problem, RequestValidationError, HTTPException, KubeError, DBAPIError, NoConnection)
logger = get_logger(__name__)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Page(NamedTuple):
    """What a module adds to the site; `navigation` is None for what no link at the top leads to."""

    router: APIRouter
    navigation: NavEntry | None = None


class PageRoute(APIRoute):
    """Maps errors as REST does, to HTML."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                if request.method not in SAFE_METHODS and not is_from_here(request.headers):
                    raise Problem(HTTPStatus.FORBIDDEN, "foreign-request", FOREIGN)
                return await handle(request)
            except EXPECTED as error:
                return await _refused(request, error)
            except Exception as error:
                logger.exception("a page failed", path=request.url.path)
                return await _refused(request, error)

        return answer


def page_router(prefix: str = "") -> APIRouter:
    return APIRouter(prefix=prefix, route_class=PageRoute, include_in_schema=False)


async def unrouted(request: Request, error: Exception) -> Response:
    """A path that nothing has: a page for a browser, which asks for HTML, unless it is one of REST's."""
    path = request.url.path
    if "text/html" in request.headers.get("accept", "") and not path.startswith(REST_PREFIXES):
        return await _refused(request, Problem(HTTPStatus.NOT_FOUND, "not-found", f"there is no page {path}"))
    return await http_problem(request, error)


async def _refused(request: Request, error: Exception) -> Response:
    """The answer that REST would give, shown to a person."""
    response = await _of_rest(request, error)
    told = json.loads(bytes(response.body))
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        return _to_login(request)
    template = "problem_fragment.html" if is_fragment(request) else "problem.html"
    services = request.app.state.services
    is_visitor = shown_token(request) is None
    context = {
        "title": told["title"],
        "detail": to_people(told["detail"]),
        "login_path": _login_path(request) if is_visitor and response.status_code == HTTPStatus.FORBIDDEN else None,
    }
    page = rendered(request, services, None, template, response.status_code, **context)
    if retry_after := response.headers.get("retry-after"):
        page.headers["Retry-After"] = retry_after
    if is_fragment(request):
        page.headers["HX-Retarget"] = "#notices"
        page.headers["HX-Reswap"] = "innerHTML"
    return page


async def _of_rest(request: Request, error: Exception) -> Response:
    handlers = request.app.exception_handlers
    handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
    response: Response = await handler(request, error)
    return response


def _to_login(request: Request) -> Response:
    """Nobody is logged in, or the token has expired: the cookie is of no use any more."""
    response: Response
    if is_fragment(request):
        # Back to the page, not to the fragment.
        response = Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": LOGIN_PATH})
    elif "text/event-stream" in request.headers.get("accept", ""):
        response = Response(status_code=HTTPStatus.UNAUTHORIZED)
    else:
        response = RedirectResponse(_login_path(request), SEE_OTHER)
    if COOKIE in request.cookies:
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _login_path(request: Request) -> str:
    """And back to the page, once somebody is logged in."""
    query = f"?{request.url.query}" if request.url.query else ""
    here = request.url.path + query if request.method in SAFE_METHODS else "/"
    return f"{LOGIN_PATH}?next={quote(here, safe='/')}"
