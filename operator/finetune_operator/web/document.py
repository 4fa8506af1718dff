"""What the OpenAPI document says of all operations alike: how to log in, and what no route looks at."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from finetune_operator.web.openai_api.errors import documented_errors, is_spoken
from finetune_operator.web.problems import documented
from finetune_operator.web.required_rights import EXTENSION, RequiredRights, in_words

HEAD_STATUS = 431
"""Too long a path, query and headers."""
BODY_STATUSES = (408, 413)
"""Too slow, and too large."""
BEARER = "bearer"
SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A Kubernetes token (`kubectl create token`), or the api's FINETUNE_API_TOKEN",
}


def install(app: FastAPI) -> None:
    """Have the application tell it as its document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(get_openapi(title=app.title, version=app.version, routes=app.routes))
        return app.openapi_schema

    # FastAPI's own way to extend it.
    app.openapi = openapi  # type: ignore[method-assign]


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    found["components"]["securitySchemes"] = {BEARER: SCHEME}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            operation["security"] = [{BEARER: []}]
            if EXTENSION in operation:
                required = RequiredRights.model_validate(operation[EXTENSION])
                operation["description"] = f"{operation.get('description', '')}\n\n{in_words(required)}".strip()
            if is_spoken(path):
                # FastAPI's own word for a wrong request, which is a 400 here.
                operation["responses"].pop("422", None)
            statuses = (HEAD_STATUS, *(BODY_STATUSES if "requestBody" in operation else ()))
            operation["responses"] |= {str(status): answer for status, answer in _refusals(path, statuses).items()}
    return found


def _refusals(path: str, statuses: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    if not is_spoken(path):
        return documented(*statuses)
    # FastAPI makes a reference of a model where a route names it, and nothing here.
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    return {
        status: {"description": answer["description"], "content": content}
        for status, answer in documented_errors(*statuses).items()
    }
