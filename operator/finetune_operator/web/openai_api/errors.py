"""Problems in the shape that OpenAI's clients understand. Pure."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

PATHS = ("/v1/fine_tuning/", "/v1/models", "/v1/files")
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
    """Whether a path is one of OpenAI's."""
    return path.startswith(PATHS)


def remedy(method: str, path: str) -> str:
    """What to do instead of what OpenAI offers and we don't."""
    if method == "DELETE" and path.startswith("/v1/models/"):
        return "a version is deleted by `kubectl delete modelversion <name> -n <namespace>`"
    return ""


def status_of(status: int, kind: str) -> int:
    return 400 if kind in FINAL_KINDS else STATUSES.get(status, status)


def error_body(status: int, kind: str, detail: str) -> dict[str, Any]:
    """OpenAI's error object; `code` is our word for programs."""
    error_type = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": detail, "type": error_type, "param": None, "code": kind.replace("-", "_")}}
