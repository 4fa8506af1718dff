"""The API server in the caller's name, and its errors as words."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from finetune_operator.cli.failures import ExitCode, Failed, refused, unavailable, usage
from finetune_operator.cli.options import Cluster
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import Conflict, KubeError, NotFound, Unavailable
from finetune_operator.kube.kubeconfig import Access, Login, Unusable, kubeconfig_paths, read_access
from finetune_operator.kube.reviews import user_name

FIELD_MANAGER = "ftctl"
"""Who changed something, as `managedFields` and a version's history tell it."""
UNAUTHENTICATED, FORBIDDEN, NOT_FOUND = 401, 403, 404
OUR_KINDS = {"finetunejobs": "job", "modelversions": "version", "abtests": "test", "batchinferences": "batch"}
"""As people call one of them."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Connection:
    """Where commands work."""

    client: KubeClient
    access: Access
    login: Login
    namespace: str
    kubeconfig: Path | None
    signing: list[KubeClient] = field(default_factory=list)
    """The client for writes, once one was needed."""

    async def get(self, plural: str, name: str) -> Object:
        with self.explained(plural, name):
            return await self.client.get(plural, self.namespace, name)

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> list[Object]:
        with self.explained(plural):
            return (await self.client.list(plural, namespace, selector))[0]

    async def change(self, plural: str, body: Object, spec: Object) -> Object:
        """Set fields of exactly this object's spec."""
        metadata = body["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "spec": spec}
        with self.explained(plural, metadata["name"]):
            client = await self._signing()
            return await client.merge_patch(plural, metadata["namespace"], metadata["name"], patch)

    async def create(self, plural: str, body: Object, *, dry_run: bool = False) -> Object:
        namespace = body["metadata"].get("namespace") or self.namespace
        with self.explained(plural, body["metadata"].get("name", "")):
            if dry_run:
                return await self.client.judge(plural, namespace, body)
            client = await self._signing()
            return await client.create(plural, namespace, body, strict=True)

    async def _signing(self) -> KubeClient:
        """Writes under the caller's own name, which a version's history tells; without it where the API server does not
        say it: to nobody before Kubernetes 1.28, nor to those who may not ask.
        """
        if not self.signing:
            try:
                self.signing.append(self.client.signing(await user_name(self.client)))
            except KubeError as error:
                if error.status not in (UNAUTHENTICATED, FORBIDDEN, NOT_FOUND):
                    raise
                self.signing.append(self.client)
        return self.signing[0]

    @contextmanager
    def explained(self, plural: str, name: str = "") -> Iterator[None]:
        """Every error of a request as a `Failed`."""
        try:
            yield
        except KubeError as error:
            raise self._failed(error, plural, name) from None
        except Unusable as error:
            raise refused(str(error)) from None
        except ValueError as error:
            # Of what can be no name: it is refused before it becomes a part of a path.
            raise usage(str(error)) from None

    def _failed(self, error: KubeError, plural: str, name: str) -> Failed:
        context = self.access.context
        if error.status == UNAUTHENTICATED:
            return refused(
                f"the API server of context {context} does not know you: log in again, or use another context"
            )
        if error.status == FORBIDDEN:
            return refused(f"{error}. Ask an administrator for the right, such as ClusterRole view or edit.")
        match error:
            case NotFound() if plural in OUR_KINDS and "could not find the requested resource" in str(error):
                return refused(f"the cluster of context {context} does not know {plural}: install the Helm chart first")
            case NotFound():
                what = f"{OUR_KINDS.get(plural, plural)} {name}" if name else plural
                return refused(f"there is no {what} in namespace {self.namespace} of context {context}")
            case Conflict():
                return Failed(f"{error}; look at it again (`ftctl get {plural} {name}`)")
            case Unavailable():
                return unavailable(
                    f"the API server of context {context} ({self.access.server}) does not answer: {error}"
                )
        return Failed(str(error), ExitCode.USAGE if error.status else ExitCode.UNAVAILABLE)


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[Connection]:
    """To the context's API server. Raises `Failed`."""
    try:
        access = read_access(kubeconfig_paths(cluster.kubeconfig, os.environ), cluster.context)
        login = Login(access, interactive=sys.stdin.isatty())
        credentials = login.credentials()
        trust = credentials.as_ssl_context()
    except Unusable as error:
        raise usage(str(error)) from None
    except (OSError, ValueError) as error:
        raise usage(f"the certificates of the kubeconfig can't be read: {error}") from None
    connector = aiohttp.TCPConnector(ssl=trust, limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), proxy=access.proxy
    ) as session:
        client = KubeClient(session, credentials, renewed=login.credentials, field_manager=FIELD_MANAGER)
        yield Connection(client, access, login, cluster.namespace or access.namespace, cluster.kubeconfig)
