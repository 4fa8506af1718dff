"""The gateway as completions are passed on to it: nothing is read, changed or held back on the way."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_operator.core.routing import Meaning
from finetune_operator.web.answering_models import AnsweringModel
from finetune_operator.web.services import GatewayAnswer, GatewayAway
from finetune_operator.web.settings import Settings

CONNECT_SECONDS = 5.0
LIST_SECONDS = 10.0
OF_THE_CONNECTION = frozenset(
    {
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-connection",
        b"server",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Standing(_Part):
    namespace: str
    meaning: Meaning


class _Model(_Part):
    id: str
    created: int
    finetune: _Standing


class _Models(_Part):
    """The part of the gateway's list that matters here."""

    data: tuple[_Model, ...]


class GatewayClient:
    """Asks by the api's own key."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._url = settings.gateway_url.rstrip("/")
        key = settings.gateway_api_key
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}

    @asynccontextmanager
    async def asked(self, path: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[GatewayAnswer]:
        """Leaving the block before the answer's end breaks the request off. Raises `GatewayAway`."""
        try:
            async with self._session.post(
                self._url + path,
                data=body,
                headers={**headers, **self._headers},
                skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
                # The gateway bounds an engine's silence, and a client its own patience.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
            ) as response:
                kept = tuple(pair for pair in response.raw_headers if pair[0].lower() not in OF_THE_CONNECTION)
                yield GatewayAnswer(response.status, kept, response.content.iter_any())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GatewayAway(f"{type(error).__name__} {error}".rstrip()) from error

    async def models(self) -> tuple[AnsweringModel, ...]:
        """Raises `GatewayAway`, also where it answers with something else."""
        try:
            async with self._session.get(
                f"{self._url}/v1/models",
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=LIST_SECONDS),
                allow_redirects=False,
            ) as response:
                response.raise_for_status()
                told = _Models.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            raise GatewayAway(f"{type(error).__name__} {error}".rstrip()) from error
        return tuple(
            AnsweringModel(each.id, each.finetune.namespace, each.finetune.meaning, each.created) for each in told.data
        )


@asynccontextmanager
async def gateway_client(settings: Settings) -> AsyncIterator[GatewayClient]:
    """One with connections of its own.

    Each request has a new one, so that the gateway's Service spreads them over its pods, and none meets a connection
    that the gateway is just closing: a request that may have begun is not sent twice.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield GatewayClient(session, settings)
