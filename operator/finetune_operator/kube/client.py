"""One connection pool to the API server, for the operator, the gateway and the api."""

import asyncio
import copy
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import kopf

from finetune_operator.kube.errors import KubeError, Rejected, Unavailable, error_for
from finetune_operator.kube.paths import path_of
from finetune_operator.kube.port_forward import PROTOCOL, PodConnection
from finetune_operator.logs import cause

CREDENTIALS_MAX_AGE_SECONDS = 60.0
REQUEST_TIMEOUT_SECONDS = 20.0
PORT_CLOSE_SECONDS = 1.0
# A pod that reads slowly holds up the answer to a ping, too, for half of this at the most.
PORT_HEARTBEAT_SECONDS = 120.0
WATCH_TIMEOUT_SECONDS = 300
WATCH_SILENCE_SECONDS = 90.0
CHUNK_OBJECTS = 500
EVENT_MAX_BYTES = 16 * 1024 * 1024
"""Far beyond what etcd takes as one object, and more than aiohttp's own bound on a line."""
FIELD_MANAGER = "finetune-operator"
FIELD_MANAGER_MAX_BYTES = 128
"""The API server refuses longer ones, and characters that can't be printed."""
"""As what the API server remembers our writes: by default it takes what the user agent begins with."""
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

Object = dict[str, Any]
logger = logging.getLogger(__name__)


def credentials_from_environment() -> kopf.ConnectionInfo:
    """The pod's service account, else the kubeconfig."""
    settings = kopf.OperatorSettings()
    found = kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise Rejected("no credentials: run in a pod with a service account, or set KUBECONFIG")
    return found


class KubeClient:
    """Requests on JSON objects; every failure is a `KubeError`, every request has a time limit."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: kopf.ConnectionInfo,
        *,
        trust: ssl.SSLContext | None = None,
        renewed: Callable[[], kopf.ConnectionInfo] = credentials_from_environment,
        field_manager: str = FIELD_MANAGER,
        person: str | None = None,
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._trust = trust or True
        self._renewed = renewed
        self._field_manager = field_manager
        self._person = person
        self._read_at = time.monotonic()
        self._callers_trust: ssl.SSLContext | None = None

    @classmethod
    @asynccontextmanager
    async def from_environment(cls) -> AsyncIterator["KubeClient"]:
        """A client for the life of the `async with` block."""
        credentials = credentials_from_environment()
        # Watches hold a connection each, so a limit would let many namespaces starve all other requests. Callers share
        # the session, and must share no cookies.
        connector = aiohttp.TCPConnector(ssl=credentials.as_ssl_context(), limit=0)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield cls(session, credentials)

    def on_behalf_of(self, token: str, field_manager: str, person: str | None = None) -> "KubeClient":
        """The same API server with a caller's rights alone; `field_manager` says through which process they write.

        Where it is known who they are, the objects remember it: a process writes for many.

        A certificate of ours would win over the caller's token, and our token must never take its place. All callers
        share one trust and hence connections: a token goes with each request, and none belongs to a connection.
        """
        known = self._credentials
        theirs = kopf.ConnectionInfo(
            server=known.server, ca_path=known.ca_path, ca_data=known.ca_data, insecure=known.insecure, token=token
        )
        self._callers_trust = self._callers_trust or theirs.as_ssl_context()
        return KubeClient(
            self._session,
            theirs,
            trust=self._callers_trust,
            renewed=lambda: theirs,
            field_manager=field_manager,
            person=person,
        )

    def signing(self, person: str) -> "KubeClient":
        """The same client, whose writes the objects remember as this person's."""
        found = copy.copy(self)
        found._person = person
        return found

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> tuple[list[Object], str]:
        """All objects, and the resource version to watch from."""
        answer = await self._request("GET", path_of(plural, namespace), params={"labelSelector": selector})
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def chunks(self, plural: str, namespace: str | None) -> AsyncGenerator[tuple[Object, ...], None]:
        """All objects as of one moment, some at a time; `Gone` where the API server has forgotten that moment."""
        async with aclosing(self.versioned_chunks(plural, namespace)) as chunks:
            async for items, _ in chunks:
                yield items

    async def versioned_chunks(
        self, plural: str, namespace: str | None
    ) -> AsyncGenerator[tuple[tuple[Object, ...], str], None]:
        """As `chunks`, each with the resource version to watch from once all are read."""
        params = {"limit": str(CHUNK_OBJECTS)}
        while True:
            answer = await self._request("GET", path_of(plural, namespace), params=params)
            yield tuple(answer["items"]), answer["metadata"]["resourceVersion"]
            if not (more := answer["metadata"].get("continue")):
                return
            params["continue"] = more

    async def version(self, plural: str, namespace: str | None) -> str:
        """The resource version of now, to watch from."""
        answer = await self._request("GET", path_of(plural, namespace), params={"limit": "1"})
        found: str = answer["metadata"]["resourceVersion"]
        return found

    async def discovered(self, api_version: str) -> frozenset[str]:
        """The plurals that discovery tells of a group's version, given as `group/version`; none where it has neither.

        It follows the objects: what can be listed already may not be told yet.
        """
        group = api_version.partition("/")[0]
        groups = await self._request("GET", "/apis")
        if all(each["name"] != group for each in groups["groups"]):
            return frozenset()
        answer = await self._request("GET", f"/apis/{api_version}")
        return frozenset(each["name"] for each in answer["resources"])

    async def get(self, plural: str, namespace: str, name: str) -> Object:
        return await self._request("GET", path_of(plural, namespace, name))

    async def create(
        self, plural: str, namespace: str | None, body: Mapping[str, Any], *, strict: bool = False
    ) -> Object:
        """`strict` refuses fields that the kind does not have, instead of leaving them out."""
        params = {"fieldValidation": "Strict"} if strict else None
        return await self._request("POST", path_of(plural, namespace), body=body, params=params)

    async def token_of(self, namespace: str, service_account: str, lifetime_seconds: int) -> Object:
        """The status of a TokenRequest: `token` and `expirationTimestamp`. The API server bounds the lifetime."""
        path = path_of("serviceaccounts", namespace, service_account, "token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = await self._request("POST", path, body=body | {"spec": {"expirationSeconds": lifetime_seconds}})
        status: Object = answer["status"]
        return status

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object; a later one of the same name is a `Conflict`."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        await self._request("DELETE", path_of(plural, namespace, name), body=options)

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object:
        """With `metadata.resourceVersion` in the body, somebody else's write in between is a `Conflict`."""
        path = path_of(plural, namespace, name, subresource)
        return await self._request("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def apply(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], field_manager: str
    ) -> Object:
        """Server-side apply; takes over fields that another manager set on our own children."""
        params = {"fieldManager": field_manager, "force": "true"}
        return await self._request(
            "PATCH", path_of(plural, namespace, name), body=body, content_type=APPLY_PATCH, params=params
        )

    async def judge(self, plural: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """What a strict `create` would make, defaults included; nothing is kept (`dryRun`)."""
        params = {"fieldValidation": "Strict", "dryRun": "All"}
        return await self._request("POST", path_of(plural, namespace), body=body, params=params)

    async def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = "", *, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Events after a resource version until the server ends the stream; a silent stream is `Unavailable`.

        With a `name`, of this one object.
        """
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_TIMEOUT_SECONDS),
            "labelSelector": selector,
            "fieldSelector": f"metadata.name={name}" if name else "",
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SILENCE_SECONDS)
        try:
            async with self._session.get(
                self._url(path_of(plural, namespace)),
                params=params,
                headers=self._headers(),
                timeout=timeout,
                ssl=self._trust,
            ) as response:
                await _raise_for_status(response)
                while line := await response.content.readline(max_line_length=EVENT_MAX_BYTES):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise error_for(event["object"].get("code", 500), event["object"].get("message", ""))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(f"watch of {plural} broke: {cause(error)}") from error

    async def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A container's log, some bytes at a time; with `follow` until it ends, however long it is silent."""
        params = {"container": container, "follow": str(follow).lower()}
        if tail_lines is not None:
            params["tailLines"] = str(tail_lines)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=None if follow else 60)
        try:
            async with self._session.get(
                self._url(path_of("pods", namespace, pod, "log")),
                params=params,
                headers=self._headers(),
                timeout=timeout,
                ssl=self._trust,
            ) as response:
                await _raise_for_status(response)
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"log of {pod} broke: {cause(error)}") from error

    @asynccontextmanager
    async def port_forward(self, namespace: str, pod: str, port: int) -> AsyncIterator[PodConnection]:
        """A connection to a port of a pod; takes `get` and, from Kubernetes 1.35 on, `create` on `pods/portforward`."""
        path = path_of("pods", namespace, pod, "portforward")
        params = {"ports": str(port)}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                websocket = await self._session.ws_connect(
                    self._url(path),
                    params=params,
                    headers=self._headers(),
                    protocols=(PROTOCOL,),
                    ssl=self._trust,
                    max_msg_size=0,
                    heartbeat=PORT_HEARTBEAT_SECONDS,
                    timeout=aiohttp.ClientWSTimeout(ws_close=PORT_CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            # Of a refused handshake no words are left; mostly the same is told without one.
            if error.status in (401, 403, 404):
                await self._same_refusal(error.status, path, params)
            words = f"port {port} of pod {pod} can't be forwarded: HTTP {error.status}"
            raise error_for(error.status, words) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"port {port} of pod {pod} can't be forwarded: {cause(error)}") from error
        try:
            yield PodConnection(websocket)
        finally:
            await websocket.close()

    async def _same_refusal(self, status: int, path: str, params: Mapping[str, str]) -> None:
        """Raise what a plain request is told, if it is refused in the same way."""
        try:
            await self._request("GET", path, params=params)
        except KubeError as error:
            if error.status == status:
                raise

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> Object:
        headers = self._headers() | ({"Content-Type": content_type} if body is not None else {})
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS)
        data = json.dumps(body).encode() if body is not None else None
        if self._person and method in ("POST", "PATCH"):
            params = {"fieldManager": manager_for(self._person, self._field_manager)} | dict(params or {})
        try:
            async with self._session.request(
                method,
                self._url(path),
                data=data,
                headers=headers,
                params=params,
                timeout=timeout,
                ssl=self._trust,
            ) as response:
                await _raise_for_status(response)
                answer: Object = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{method} {path}: {cause(error)}") from error

    def _url(self, path: str) -> str:
        return self._credentials.server.rstrip("/") + path

    def _headers(self) -> dict[str, str]:
        """Service account tokens are rotated on disk, hence read anew now and then."""
        if self._credentials.token and time.monotonic() - self._read_at > CREDENTIALS_MAX_AGE_SECONDS:
            self._credentials = self._renewed()
            self._read_at = time.monotonic()
        return {"User-Agent": self._field_manager, **self._credentials.as_http_headers()}


def manager_for(person: str, program: str) -> str:
    """As `managedFields` remembers it: `ada (finetune-api)`. Only so much of a name as a field manager may have."""
    written_by = f" ({program})".encode()
    shown = "".join(each if each.isprintable() else "?" for each in person).encode()
    return (shown[: FIELD_MANAGER_MAX_BYTES - len(written_by)] + written_by).decode(errors="ignore")


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    text = await response.text()
    reason = ""
    try:
        told = json.loads(text)
        message, reason = told["message"], str(told.get("reason") or "")
    except (ValueError, KeyError, TypeError):
        message = text[:500]
    retry_after = response.headers.get("Retry-After", "")
    raise error_for(response.status, message, float(retry_after) if retry_after.isdigit() else None, reason)


__all__ = ["KubeClient", "KubeError", "Object"]
