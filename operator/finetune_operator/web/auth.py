"""Who may call: bearer tokens, compared in constant time."""

import hmac
from typing import Annotated, NamedTuple

from fastapi import Depends, Header
from pydantic import SecretStr

from finetune_operator.web.problems import Problem
from finetune_operator.web.services import ServicesOf

Authorization = Annotated[str | None, Header()]


TOKEN_HOLDER = "api-token"  # noqa: S105 - a name, not a secret


class Caller(NamedTuple):
    """Who asks, as far as it is known: all who have the api's one token are the same."""

    name: str


async def require_internal(services: ServicesOf, authorization: Authorization = None) -> None:
    """Trainers, gateway and operator."""
    _require(services.settings.internal_token, authorization, "FINETUNE_INTERNAL_TOKEN")


async def require_public(services: ServicesOf, authorization: Authorization = None) -> None:
    """People and their programs."""
    token = services.settings.api_token
    if token is not None:
        _require(token, authorization, "FINETUNE_API_TOKEN")


async def require_caller(services: ServicesOf, authorization: Authorization = None) -> Caller:
    """People and their programs where ratings are given out, which are personal: never without a token."""
    token = services.settings.api_token
    if token is None:
        raise open_api("ratings")
    _require(token, authorization, "FINETUNE_API_TOKEN")
    return Caller(TOKEN_HOLDER)


def open_api(what: str) -> Problem:
    """The refusal of what nobody may read without a token."""
    detail = f"{what} are personal data, which an api that runs open does not give out; set FINETUNE_API_TOKEN"
    return Problem(403, "open-api", detail)


CallerOf = Annotated[Caller, Depends(require_caller)]


def _require(token: SecretStr, authorization: str | None, variable: str) -> None:
    scheme, _, given = (authorization or "").partition(" ")
    expected = token.get_secret_value().encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected):
        raise Problem(401, "unauthorized", f"send `Authorization: Bearer <token>` with the api's {variable}")
