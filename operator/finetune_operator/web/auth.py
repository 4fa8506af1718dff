"""Who calls: by the api's own token, by a Kubernetes token that the API server knows, or by an API key for one."""

import hmac
import re
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import SecretStr

from finetune_operator.core.api_keys import parsed_key
from finetune_operator.kube.errors import KubeError
from finetune_operator.kube.reviews import UNAUTHENTICATED
from finetune_operator.web.api_key_login import login
from finetune_operator.web.identity import EXPORT, Decision, Right
from finetune_operator.web.problems import Problem
from finetune_operator.web.refusals import forbidden, refused, unauthorized
from finetune_operator.web.required_rights import RequiredRights, require_declared, required_of
from finetune_operator.web.services import Services, ServicesOf

# The document has it as its security scheme: of a parameter of this name, OpenAPI says that it is to be ignored.
Authorization = Annotated[str | None, Header(include_in_schema=False)]

TOKEN_HOLDER = "api-token"  # noqa: S105 - a name, not a secret
ANYBODY = "anybody"
TOKEN_PATTERN = re.compile(r"[-A-Za-z0-9._~+/:]{1,16384}=*")
"""RFC 6750, and the colon of OpenStack's tokens; nothing that could end a header."""


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as it is known: all who have the api's one token are the same, and so are all of an open api."""

    name: str
    token: SecretStr | None = None
    """Of Kubernetes; what is asked of the API server goes in its name."""
    by_api_key: bool = False
    """Whether an API key stands for the token."""
    required: RequiredRights | None = None
    """Of the operation that they ask for; None of a page."""


async def require_internal(services: ServicesOf, authorization: Authorization = None) -> None:
    """Trainers, gateway and operator."""
    if not _is(services.settings.internal_token, _bearer(authorization)):
        raise Problem(401, "unauthorized", "send `Authorization: Bearer <token>` with FINETUNE_INTERNAL_TOKEN")


async def require_caller(services: ServicesOf, request: Request, authorization: Authorization = None) -> Caller:
    """People and their programs, for an operation that has a document. Raises 401."""
    return replace(await caller_of(services, authorization), required=required_of(request))


async def caller_of(services: Services, authorization: str | None) -> Caller:
    """Raises 401 for who shows a token that nobody knows, in an open api, too."""
    shown, own = _bearer(authorization), services.settings.api_token
    if not shown:
        if own is None:
            return Caller(ANYBODY)
        raise unauthorized()
    if own is not None and _is(own, shown):
        return Caller(TOKEN_HOLDER)
    if _is(services.settings.internal_token, shown):
        # Never forwarded: it is a secret between our own processes.
        raise unauthorized()
    if not TOKEN_PATTERN.fullmatch(shown):
        raise unauthorized()
    key = parsed_key(shown)
    token = await login(services, key) if key else SecretStr(shown)
    try:
        try:
            name = await services.identity.name_of(token)
        except KubeError as error:
            if key is None or error.status != UNAUTHENTICATED:
                raise
            # The token of a ServiceAccount that was deleted and made anew is bound to the one before.
            token = await login(services, key, not_this=token)
            name = await services.identity.name_of(token)
    except KubeError as error:
        raise refused(error, None, own_token=True) from error
    return Caller(name, token, by_api_key=key is not None)


CallerOf = Annotated[Caller, Depends(require_caller)]


async def require_trainer(services: ServicesOf, caller: CallerOf) -> Caller:
    """Who may read ratings, which are personal: never without a token, and as somebody who may train on them."""
    if caller.token is None and services.settings.api_token is None:
        raise open_api("ratings")
    await require_everywhere(services, caller, EXPORT)
    return caller


TrainerOf = Annotated[Caller, Depends(require_trainer)]


async def decide(services: Services, caller: Caller, right: Right, namespace: str | None) -> Decision:
    """What RBAC says, of what the operation's document has.

    Who has no Kubernetes token may do what the api's token, or an open api, lets them do.
    """
    require_declared(caller.required, right)
    if caller.token is None:
        return Decision(allowed=True, reason="")
    try:
        return await services.identity.decision(caller.token, right, namespace)
    except KubeError as error:
        raise refused(error, namespace, own_token=True) from error


async def require_right(services: Services, caller: Caller, right: Right, namespace: str | None) -> None:
    """Raises 403 with what is missing."""
    decision = await decide(services, caller, right, namespace)
    if not decision.allowed:
        raise forbidden(right, namespace, decision.reason)


async def require_everywhere(services: Services, caller: Caller, right: Right) -> None:
    """What belongs to no namespace asks for the right in each that is served."""
    for namespace in services.settings.namespaces or (None,):
        await require_right(services, caller, right, namespace)


async def may_train(services: Services, caller: Caller, namespace: str) -> bool:
    """Who may train reads what it is trained on."""
    is_open = caller.token is None and services.settings.api_token is None
    return not is_open and (await decide(services, caller, EXPORT, namespace)).allowed


def open_api(what: str) -> Problem:
    """The refusal of what nobody may read without a token."""
    detail = f"{what} are personal data, which an api that runs open does not give out; set FINETUNE_API_TOKEN"
    return Problem(403, "open-api", detail)


def _bearer(authorization: str | None) -> str:
    """What was shown, empty where nothing was."""
    scheme, _, shown = (authorization or "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


def _is(expected: SecretStr, shown: str) -> bool:
    return hmac.compare_digest(shown.encode(), expected.get_secret_value().encode())
