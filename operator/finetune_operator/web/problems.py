"""Errors as application/problem+json (RFC 9457): each says what happened and what to change."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnection
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from finetune_operator.kube.errors import KubeError
from finetune_operator.logs import get_logger
from finetune_operator.web.openai_api import errors as openai

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:finetune-operator:problem:"
FORBIDDEN, NOT_FOUND = 403, 404
RETRY_AFTER_SECONDS = 5
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
UNROUTED = HTTPStatus.NOT_FOUND.phrase
"""What Starlette says of a path that no route has."""
NO_PATH = "there is no path"
RETRIED = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})

logger = get_logger(__name__)


class ProblemBody(BaseModel):
    """An error, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` says of the problems that it answers with."""
    content = {MEDIA_TYPE: {"schema": ProblemBody.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class Problem(Exception):
    """An answer that is an error; `kind` is one word for programs, `detail` is for people.

    `param` is the member that is wrong, which OpenAI's clients are told by itself.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        retry_after_seconds: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.param = param


def problem_body(status: int, kind: str, detail: str) -> dict[str, Any]:
    """The members of RFC 9457 that are used here."""
    return {"type": f"{TYPE_PREFIX}{kind}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def problem_response(
    path: str,
    status: int,
    kind: str,
    detail: str,
    retry_after_seconds: int | None = None,
    param: str | None = None,
) -> Response:
    """ASCII only, since a detail may repeat half a surrogate pair of a client; `path` says what a client speaks."""
    if openai.is_spoken(path):
        status = openai.status_of(status, kind)
        body, headers = openai.error_body(status, kind, detail, param), {"Content-Type": "application/json"}
    else:
        body, headers = problem_body(status, kind, detail), {"Content-Type": MEDIA_TYPE}
    if status in RETRIED:
        headers["Retry-After"] = str(retry_after_seconds or RETRY_AFTER_SECONDS)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(body), status, headers)


def install(app: FastAPI) -> None:
    """Map every error that a request can meet, once."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, http_problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(KubeError, _kube)
    app.add_exception_handler(DataError, _data)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(NoConnection, _no_connection)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(request: Request, error: Any) -> Response:
    path, retry_after_seconds = request.url.path, error.retry_after_seconds
    return problem_response(path, error.status, error.kind, error.detail, retry_after_seconds, error.param)


async def http_problem(request: Request, error: Any) -> Response:
    """What the framework itself refuses."""
    path, status = request.url.path, error.status_code
    if status == HTTPStatus.BAD_REQUEST:
        # FastAPI's for bytes that no JSON parser takes; what a parser refuses comes as a 422.
        return problem_response(path, 422, "invalid-request", "body: send JSON in UTF-8")
    headers, detail = dict(error.headers or {}), str(error.detail)
    remedy = openai.remedy(request.method, path)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
        told = f"there is no {request.method} of this path, only {headers['Allow']}"
        detail = "; ".join(filter(None, (told, remedy)))
    if status == HTTPStatus.NOT_FOUND and detail == UNROUTED:
        detail = f"{NO_PATH} {path}; {remedy or '/openapi.json has the paths that there are'}"
    response = problem_response(path, status, "http", detail)
    response.headers.update(headers)
    return response


def _allowed(request: Request) -> list[str]:
    """By all routes of a path: the one that refused knows its own methods only, and a router none of its routes'."""
    routes, scope = request.app.router.routes, dict(request.scope)
    found = [
        method
        for method in METHODS
        if any(route.matches(scope | {"method": method})[0] is Match.FULL for route in routes)
    ]
    return sorted([*found, "HEAD"]) if "GET" in found else found


async def _validation(request: Request, error: Any) -> Response:
    found = error.errors()
    mistakes = (f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in found)
    param = None if found[0]["type"] == "json_invalid" else openai.member_at(found[0]["loc"][1:], error.body)
    return problem_response(request.url.path, 422, "invalid-request", "; ".join(mistakes), param=param)


async def _kube(request: Request, error: Any) -> Response:
    logger.warning("the Kubernetes API did not answer", error=str(error))
    return problem_response(
        request.url.path, 503, "cluster-unavailable", "the Kubernetes API did not answer; try again"
    )


async def _data(request: Request, error: Any) -> Response:
    logger.warning("the database refused a value", error=str(error.orig))
    return problem_response(request.url.path, 422, "invalid-request", "the database can't hold a value of this request")


async def _database(request: Request, error: Any) -> Response:
    logger.error("the database failed", error=str(error.orig))
    return problem_response(request.url.path, 503, "database-unavailable", "the database did not answer; try again")


async def _no_connection(request: Request, error: Any) -> Response:
    """All connections are in use, which is how a database that hangs, or a burst of requests, shows."""
    logger.error("no connection to the database became free", error=str(error))
    return problem_response(request.url.path, 503, "database-unavailable", "the database is busy; try again")


async def _unexpected(request: Request, error: Exception) -> Response:
    return problem_response(
        request.url.path, 500, "internal", f"an unexpected {type(error).__name__}; see the api's log"
    )
