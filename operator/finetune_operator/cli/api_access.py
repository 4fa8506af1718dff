"""The api in the caller's own name: at an address, or by a port that is forwarded to its Service.

Not by the API server's service proxy: it takes the Authorization header for itself, so that the api would not know who
asks. A forwarded port leaves the request as it is.
"""

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import ExitCode, Failed, refused, unavailable, usage
from finetune_operator.cli.forwarding import forwarded
from finetune_operator.cli.options import Api, Cluster

SERVICE_SELECTOR = "app.kubernetes.io/name=finetune-operator,app.kubernetes.io/component=api"
REQUEST_TIMEOUT_SECONDS = 180
"""An export of many ratings, or two answers of a slow engine."""
TOKEN_SECONDS = 3600
CHUNK_BYTES = 1 << 16
CODES = {
    401: ExitCode.REFUSED,
    403: ExitCode.REFUSED,
    404: ExitCode.REFUSED,
    422: ExitCode.USAGE,
    429: ExitCode.UNAVAILABLE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}

Answer = dict[str, Any]


@dataclass(frozen=True)
class ApiClient:
    """Asks the api with one token."""

    session: aiohttp.ClientSession
    url: str
    token: str | None

    async def ask(self, method: str, path: str, body: object = None, params: Mapping[str, str] | None = None) -> Answer:
        """The parsed answer. Raises `Failed` with what its problem says."""
        async with self._asked(method, path, body, params) as response:
            content = await response.read()
        if not content:
            return {}
        try:
            answer = json.loads(content)
        except ValueError:
            raise unavailable(f"{self.url} is no api of the product: it answers {path} with no JSON") from None
        return answer if isinstance(answer, dict) else {"items": answer}

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """Some bytes at a time. Raises `Failed`."""
        async with self._asked("GET", path, None, None) as response:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                yield chunk

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: object, params: Mapping[str, str] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        try:
            async with self.session.request(
                method,
                self.url + path,
                json=body,
                params=params,
                headers=headers,
                timeout=timeout,
                # A redirect could lead the token elsewhere.
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    raise _failed(response.status, await response.text(), self)
                yield response
        except aiohttp.InvalidURL:
            raise usage(f"--server {self.url}: write http://<host>[:<port>] or https://...") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            told = str(error) or type(error).__name__
            raise unavailable(f"the api at {self.url} does not answer: {told}") from None


def _failed(status: int, text: str, client: ApiClient) -> Failed:
    try:
        problem = json.loads(text)
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"{client.url} answered {status}; is it the api of the product?"
    if status == 401 and client.token is None:
        detail = f"{detail}. Set FTCTL_TOKEN, such as to `kubectl create token <service account>`"
    return Failed(f"{detail}", CODES.get(status, ExitCode.FAILED))


@dataclass(frozen=True)
class Reached:
    """The api, and the namespace that commands speak of; None leaves it to an api that serves one."""

    client: ApiClient
    namespace: str | None

    def id_of(self, name: str) -> str:
        return segment(f"{self.namespace}.{name}" if self.namespace else name)


@asynccontextmanager
async def api_at(cluster: Cluster, api: Api) -> AsyncIterator[Reached]:
    """Raises `Failed`. To an address the kubeconfig's own token is not sent: it is for the API server alone."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        if api.server and not api.service_account:
            yield Reached(ApiClient(session, _address(api.server, api.token), api.token), cluster.namespace)
            return
        address = _address(api.server, api.token or api.service_account) if api.server else None
        connection = await stack.enter_async_context(connected(cluster))
        token = api.token or await token_of(connection, api)
        if address:
            yield Reached(ApiClient(session, address, token), connection.namespace)
            return
        url = await stack.enter_async_context(forwarded(connection, await service_of(connection, api)))
        yield Reached(ApiClient(session, url, token), connection.namespace)


def _address(server: str, secret: str | None) -> str:
    """Raises `Failed`, also where something secret would go unencrypted to another machine."""
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", server):
        raise usage(f"--server {server}: write http://<host>[:<port>] or https://...")
    if secret and server.startswith("http://") and not _is_loopback(urlsplit(server).hostname or ""):
        raise usage(
            f"--server {server}: a token would be sent unencrypted; write https://..., or forward a port to the api "
            "and write http://localhost:<port>"
        )
    return server.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def token_of(connection: Connection, api: Api) -> str:
    """What the api can find out the caller's name by. Raises `Failed` where the kubeconfig has no such thing."""
    if api.service_account:
        with connection.explained("serviceaccounts", api.service_account):
            made = await connection.client.token_of(connection.namespace, api.service_account, TOKEN_SECONDS)
            return str(made["token"])
    with connection.explained("tokens"):
        credentials = connection.login.credentials()
    if credentials.token:
        return str(credentials.token)
    raise refused(
        f"context {connection.access.context} logs in by a certificate, which the api can't see: pass "
        "--service-account NAME (a token of it is made for an hour), or set FTCTL_TOKEN"
    )


async def service_of(connection: Connection, api: Api) -> tuple[str, str]:
    """Namespace and name of the api's Service. Raises `Failed`."""
    if api.service:
        namespace, slash, name = api.service.partition("/")
        return (namespace, name) if slash else (connection.namespace, namespace)
    for here in (connection.namespace, None):
        try:
            found = await connection.list("services", here, SERVICE_SELECTOR)
        except Failed as failed:
            if failed.code is not ExitCode.REFUSED:
                raise
            continue
        places = [(body["metadata"]["namespace"], body["metadata"]["name"]) for body in found]
        if len(places) > 1:
            told = ", ".join("/".join(place) for place in places)
            raise usage(f"there are several apis ({told}): say which one with --api NAMESPACE/SERVICE")
        if places:
            return places[0]
    raise refused(
        f"no api is found in namespace {connection.namespace}, nor in those that you may look at: "
        "say where it is with --api NAMESPACE/SERVICE, or --server URL"
    )


def segment(text: str) -> str:
    """As a part of a path."""
    return quote(text, safe="")
