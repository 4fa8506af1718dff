"""Problems in the shape that OpenAI's clients understand. Pure."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

OURS = ("/v1/fine-tuning", "/v1/api-keys")
"""All else below `/v1` is OpenAI's, if only to be told that it is not here."""
COMPLETION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""Those that the gateway answers."""
STATUSES = {422: 400}
"""OpenAI has one status for all that is wrong with a request."""
FINAL_KINDS = frozenset(
    {
        "finished", "cancelled", "already-exists", "idempotency-key-reused", "file-in-use", "datasets-not-configured",
        "ambiguous-model",
    }
)  # fmt: skip
"""Conflicts that another try won't solve: OpenAI's clients send a 409 again by themselves."""


class ErrorObject(BaseModel):
    """What is wrong, and what to change."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """OpenAI's error."""

    error: ErrorObject


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` says of its errors."""
    return {status: {"description": HTTPStatus(status).phrase, "model": ErrorBody} for status in statuses}


def is_spoken(path: str) -> bool:
    """Whether a path is one of OpenAI's, or below one."""
    return path.startswith("/v1/") and not any(path == each or path.startswith(f"{each}/") for each in OURS)


def remedy(method: str, path: str) -> str:
    """What to do instead of what OpenAI offers and we don't."""
    if method == "DELETE" and path.startswith("/v1/models/"):
        return "a version is deleted by `kubectl delete modelversion <name> -n <namespace>`"
    return ""


def status_of(status: int, kind: str) -> int:
    return 400 if kind in FINAL_KINDS else STATUSES.get(status, status)


def member_at(place: tuple[int | str, ...], body: object) -> str | None:
    """The member of a body, or the parameter, that a place leads to: without the forms that its value was tried as."""
    found: list[str] = []
    for part in place:
        if found and not isinstance(body, dict | list):
            break
        found.append(str(part))
        if isinstance(body, dict):
            body = body.get(part)
        else:
            body = body[part] if isinstance(body, list) and isinstance(part, int) and part < len(body) else None
    return ".".join(found) or None


def error_body(status: int, kind: str, detail: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object; `code` is our word for programs, `param` the member that is wrong."""
    error_type = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": detail, "type": error_type, "param": param, "code": kind.replace("-", "_")}}
