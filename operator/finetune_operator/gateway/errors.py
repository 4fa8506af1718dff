"""Errors in the shape that OpenAI's clients understand; each says what to change or whether to ask again."""

import json
import math
from collections.abc import Iterable, Mapping

from aiohttp import web

from finetune_operator.core.routing import Route, Unavailable

NAMES_LISTED_MAX = 50
_LOGIN_REMEDY = "`kubectl create token <service account>` prints one"
RETRY_AFTER_SECONDS = 2


class GatewayError(Exception):
    """An answer that comes from the gateway itself and not from an engine."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def to_json(self) -> str:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False)

    def answer(self, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        retry = {"Retry-After": str(self.retry_after_seconds)} if self.retry_after_seconds is not None else {}
        told = {**headers, **retry, "Content-Type": "application/json; charset=utf-8"}
        # JSON may escape half a character, which UTF-8 can't write.
        return self.status, told, self.to_json().encode(errors="backslashreplace")

    def response(self, headers: Mapping[str, str]) -> web.Response:
        status, told, body = self.answer(headers)
        return web.Response(status=status, headers=told, body=body)


def invalid_body(message: str, param: str | None = None) -> GatewayError:
    return GatewayError(400, "invalid_body", message, param=param)


def body_too_large(limit_bytes: int) -> GatewayError:
    return GatewayError(413, "request_too_large", f"the request body has more than {limit_bytes} bytes: shorten it")


def defect() -> GatewayError:
    return GatewayError(500, "internal_error", "the gateway failed; its log tells where")


def invalid_token() -> GatewayError:
    return GatewayError(401, "invalid_api_key", "send `Authorization: Bearer <token>` with a token of this gateway")


def no_kubernetes_token() -> GatewayError:
    message = f"changes need a Kubernetes token of your own as `Authorization: Bearer <token>`: {_LOGIN_REMEDY}"
    return GatewayError(401, "invalid_api_key", message)


def refused_change(status: int | None, message: str, namespace: str, retry_after_seconds: float | None) -> GatewayError:
    """What the API server said to a patch of a ModelVersion; without a status, nobody knows whether it was made."""
    match status:
        case 401:
            remedy = f"the API server does not know this token: {_LOGIN_REMEDY}"
            return GatewayError(401, "invalid_api_key", remedy)
        case 403:
            remedy = f"have `patch` on modelversions.finetune.dev granted in {namespace}, as the role `edit` does"
            return GatewayError(403, "permission_denied", f"{message}; {remedy}")
        case 409:
            return GatewayError(409, "conflict", f"{message}; ask again")
        case (400 | 422) as code:
            return GatewayError(code, "invalid_change", message)
    retry = max(RETRY_AFTER_SECONDS, math.ceil(retry_after_seconds or 0))
    return GatewayError(503, "api_server_unavailable", f"{message}; asking again is safe", retry_after_seconds=retry)


def overloaded(limit: int) -> GatewayError:
    message = f"the gateway already has {limit} requests in flight: try again"
    return GatewayError(503, "overloaded", message, retry_after_seconds=RETRY_AFTER_SECONDS)


def too_many(limit: str, retry_after_seconds: int) -> GatewayError:
    message = f"this key may have {limit}: ask again in {retry_after_seconds} s"
    return GatewayError(429, "rate_limit_exceeded", message, retry_after_seconds=retry_after_seconds)


def no_routes_yet() -> GatewayError:
    message = "the gateway has not read the ModelVersions yet: try again"
    return GatewayError(503, "starting", message, retry_after_seconds=RETRY_AFTER_SECONDS)


def unknown_model(name: str, known: Iterable[str]) -> GatewayError:
    names = sorted(known)
    listed = ", ".join(names[:NAMES_LISTED_MAX]) or "none yet"
    more = f" and {len(names) - NAMES_LISTED_MAX} more" if len(names) > NAMES_LISTED_MAX else ""
    message = f"the model `{name}` does not exist; models: {listed}{more}"
    return GatewayError(404, "model_not_found", message, param="model")


def invalid_arm(message: str) -> GatewayError:
    return GatewayError(400, "invalid_arm", message)


def ambiguous_model(name: str, routes: Iterable[Route]) -> GatewayError:
    meanings = sorted(f"{route.qualified_name} ({route.meaning})" for route in routes)
    if len({meaning.split(" ")[0] for meaning in meanings}) == len(meanings):
        remedy = "ask for one of these"
    else:
        remedy = "rename one of them"
    message = f"the model `{name}` has several meanings: {', '.join(meanings)}; {remedy}"
    return GatewayError(409, "model_ambiguous", message, param="model")


def unavailable_model(unavailable: Unavailable, *, as_arm: bool = False) -> GatewayError:
    """For an arm of an ABTest it is a failure of the service, since the client asked for a name that exists."""
    if not unavailable.temporary and not as_arm:
        return GatewayError(404, "model_not_found", unavailable.message, param="model")
    return GatewayError(
        503, "model_not_ready", unavailable.message, param="model", retry_after_seconds=RETRY_AFTER_SECONDS
    )


def engine_unavailable(served_name: str, cause: str) -> GatewayError:
    message = f"no engine answered for {served_name}: {cause}; try again"
    return GatewayError(503, "engine_unavailable", message, retry_after_seconds=RETRY_AFTER_SECONDS)


def unsupported_path(served_name: str, path: str, said: str) -> GatewayError:
    message = f"the engine of {served_name} has no {path}, which depends on the model: it says {said!r}"
    return GatewayError(404, "unsupported_path", message)


def engine_failed(served_name: str, cause: str) -> GatewayError:
    return GatewayError(502, "engine_failed", f"the engine failed while answering for {served_name}: {cause}")


def engine_silent(served_name: str, seconds: float) -> GatewayError:
    message = f"the engine of {served_name} was silent for {seconds:g} s: ask for fewer tokens, or stream"
    return GatewayError(504, "engine_timeout", message)


def wrong_model(asked: str, answered: object) -> GatewayError:
    message = f"the engine answered as {answered!r} although {asked!r} was asked; the answer was discarded"
    return GatewayError(502, "wrong_model", message)
