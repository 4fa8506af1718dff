"""Who may call: bearer tokens, compared in constant time."""

import hmac
from typing import Annotated

from fastapi import Header
from pydantic import SecretStr

from finetune_operator.web.problems import Problem
from finetune_operator.web.services import ServicesOf

Authorization = Annotated[str | None, Header()]


async def require_internal(services: ServicesOf, authorization: Authorization = None) -> None:
    """Trainers, gateway and operator."""
    _require(services.settings.internal_token, authorization, "FINETUNE_INTERNAL_TOKEN")


async def require_public(services: ServicesOf, authorization: Authorization = None) -> None:
    """People and their programs."""
    token = services.settings.api_token
    if token is not None:
        _require(token, authorization, "FINETUNE_API_TOKEN")


def _require(token: SecretStr, authorization: str | None, variable: str) -> None:
    scheme, _, given = (authorization or "").partition(" ")
    expected = token.get_secret_value().encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected):
        raise Problem(401, "unauthorized", f"send `Authorization: Bearer <token>` with the api's {variable}")
