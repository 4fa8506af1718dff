"""Public: completions at the api's own address, for OpenAI's unmodified clients that have one address and one key.

The gateway answers them. What it says comes through as it is, while it comes; whoever leaves ends the request there.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from finetune_operator.core.vouched_callers import CALLER_HEADER, vouched
from finetune_operator.logs import get_logger
from finetune_operator.web.auth import ANYBODY, Caller, CallerOf, decide, require_caller, require_right
from finetune_operator.web.identity import ASK
from finetune_operator.web.ids import NAMESPACE_PATTERN
from finetune_operator.web.openai_api.errors import documented_errors
from finetune_operator.web.problems import Problem, problem_response
from finetune_operator.web.required_rights import ASK_VERSION
from finetune_operator.web.services import Gateway, GatewayAnswer, GatewayAway, Services, ServicesOf
from finetune_operator.web.streams import EVENT_STREAM

PASSED_HEADERS = frozenset({"accept", "content-type", "x-request-id", "x-finetune-arm", "x-finetune-subject"})
"""Those that the gateway looks at."""
REFUSED_KEY = 401


class Asked(BaseModel):
    """OpenAI's request; the gateway and the engine read what else is in it."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, use_attribute_docstrings=True)

    model: Annotated[str, Field(min_length=1)]
    """A version, a family, or a base model; `<namespace>/<name>` where several namespaces have it."""


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Asked.model_json_schema() | {"additionalProperties": True}}},
    }
}
ASKING = BODY | ASK_VERSION
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "As the gateway answers", "content": {"application/json": {}, EVENT_STREAM: {}}},
    **documented_errors(400, 401, 403, 404, 408, 409, 413, 429, 502, 503, 504),
}

router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[Depends(require_caller)])
logger = get_logger(__name__)


@router.post("/chat/completions", response_class=Response, responses=RESPONSES, openapi_extra=ASKING)
async def create_chat_completion(services: ServicesOf, caller: CallerOf, request: Request) -> Response:
    """An answer to a conversation, whole or streamed. The right is asked for where the model's name says; a name
    without a namespace asks for it in all that are served."""
    return await _passed_on(services, caller, request)


@router.post("/completions", response_class=Response, responses=RESPONSES, openapi_extra=ASKING)
async def create_completion(services: ServicesOf, caller: CallerOf, request: Request) -> Response:
    """What goes on from a prompt, whole or streamed; for whom, as for a chat."""
    return await _passed_on(services, caller, request)


@router.post("/embeddings", response_class=Response, responses=RESPONSES, openapi_extra=ASKING)
async def create_embeddings(services: ServicesOf, caller: CallerOf, request: Request) -> Response:
    """Vectors of texts; for whom, as for a chat."""
    return await _passed_on(services, caller, request)


async def _passed_on(services: Services, caller: Caller, request: Request) -> Response:
    body = await _body(request, services.settings.completion_max_bytes, services.settings.body_timeout_seconds)
    await _require_asking(services, caller, _asked(body).model)
    if services.gateway is None:
        raise Problem(503, "gateway-unavailable", "this api knows no gateway: set FINETUNE_GATEWAY_URL")
    headers = {
        name: _text(value) for raw, value in request.headers.raw if (name := raw.decode("latin-1")) in PASSED_HEADERS
    }
    key = services.settings.internal_token.get_secret_value()
    headers[CALLER_HEADER] = vouched(_payer(caller, request), key)
    return PassedOn(services.gateway, request.url.path, headers, body)


async def _body(request: Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """Read only now that it is known who sends it. Raises 408 and 413."""
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > max_bytes:
                    detail = f"the body is larger than {max_bytes} bytes; send less at a time"
                    raise Problem(413, "large-body", detail)
    except ClientDisconnect:
        raise Problem(400, "client-gone", "the client left before all of its body had come") from None
    except TimeoutError:
        raise Problem(408, "slow-body", f"the body did not arrive within {timeout_seconds:g} seconds") from None
    return bytes(body)


def _asked(body: bytes) -> Asked:
    try:
        return Asked.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        detail = f"{where or 'body'}: {first['msg']}; send JSON with `model`"
        raise Problem(422, "invalid-request", detail, param=where or None) from None


async def _require_asking(services: Services, caller: Caller, model: str) -> None:
    """Raises 403."""
    served = services.settings.namespaces
    namespace, slash, _ = model.partition("/")
    if len(served) == 1:
        await require_right(services, caller, ASK, served[0])
    elif slash and (namespace in served if served else re.fullmatch(NAMESPACE_PATTERN, namespace)):
        await require_right(services, caller, ASK, namespace)
    else:
        await _require_for_any_name(services, caller, model)


async def _require_for_any_name(services: Services, caller: Caller, model: str) -> None:
    """The gateway alone knows in which namespace the name is."""
    for namespace in services.settings.namespaces or (None,):
        if not (await decide(services, caller, ASK, namespace)).allowed:
            where = f"in namespace {namespace}" if namespace else "in all namespaces"
            raise Problem(
                403,
                "forbidden",
                f"{model} may be of any namespace that is served, and this needs {ASK} {where}, too: "
                f"write <namespace>/{model}",
                param="model",
            )


def _text(value: bytes) -> str:
    """As the gateway reads it from who asks there, so that a subject has the same arm by both addresses."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _payer(caller: Caller, request: Request) -> str:
    """Whose limits and arm it is; all of an open api are told apart by their addresses."""
    address = request.client.host if request.client else ""
    return f"{ANYBODY} {address}" if caller.name == ANYBODY and caller.token is None else caller.name


class PassedOn(Response):
    """The gateway's answer while it comes; breaks off where that does, and ends the request when the client leaves."""

    def __init__(self, gateway: Gateway, path: str, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__()
        self._gateway = gateway
        self._path = path
        self._asked = (headers, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        relaying = asyncio.create_task(self._relay(scope, receive, send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((relaying, leaving), return_when=asyncio.FIRST_COMPLETED)
            if relaying.done():
                relaying.result()
        finally:
            for task in (relaying, leaving):
                task.cancel()
            await asyncio.gather(relaying, leaving, return_exceptions=True)

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        try:
            async with self._gateway.asked(self._path, *self._asked) as answer:
                if answer.status == REFUSED_KEY:
                    detail = (
                        "the gateway does not take the api's key: FINETUNE_GATEWAY_API_KEY must be one of its tokens"
                    )
                    await problem_response(self._path, 502, "gateway-refuses-api", detail)(scope, receive, send)
                    return
                has_begun = True
                await _written(answer, send)
        except GatewayAway as error:
            logger.warning("the gateway broke off" if has_begun else "the gateway is away", error=str(error))
            if not has_begun:
                detail = f"the gateway, which answers completions, is away ({error}); try again"
                await problem_response(self._path, 503, "gateway-unavailable", detail)(scope, receive, send)
            # What has begun gets no end, which is what makes the server close the connection.


async def _written(answer: GatewayAnswer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
    async for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
