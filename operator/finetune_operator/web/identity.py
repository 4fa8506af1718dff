"""Who a Kubernetes token belongs to, and what they may do: the API server says both, in their own name.

SelfSubjectReview and SelfSubjectAccessReview are open to everybody who can log in, so that the api needs no right to
judge others. Only what belongs to no resource of the cluster is judged here, such as votes in the database: requests on
resources go to the API server with the caller's token, and need no second judge.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import SecretStr

from finetune_operator.kube.errors import KubeError, Unavailable
from finetune_operator.kube.reviews import UNAUTHENTICATED, Creator, user_name
from finetune_operator.resources.common import GROUP

FIELD_MANAGER = "finetune-api"
"""As what the API server remembers what callers write through the api: it is their decision."""
CACHE_SECONDS = 10.0
CACHE_MAX_ENTRIES = 4096
MAX_REVIEWS = 32
"""As many questions at once; beyond, callers are asked to come again."""

Answer = TypeVar("Answer")


class Right(NamedTuple):
    """What RBAC can grant, on our kinds if nothing else is said; `resource` is a plural, with a subresource after a
    slash, and `name` one object of it.
    """

    verb: str
    resource: str
    group: str = GROUP
    name: str = ""

    def __str__(self) -> str:
        return f"`{self.verb}` on {self.resource} ({self.name or self.group})"


VOTE = Right("create", "abtests/votes")
"""A subresource that is no part of the CRD: RBAC takes any name, so that voting can be granted by itself."""
ASK = Right("create", "modelversions/completions")
"""As `VOTE`: an answer takes a GPU, which who only reads is not given."""
READ_TESTS = Right("get", "abtests")
READ_JOBS = Right("get", "finetunejobs")
READ_VERSIONS = Right("get", "modelversions")
EXPORT = Right("create", "finetunejobs")
"""Who may train on the ratings of a namespace may read them."""


def make_tokens(service_account: str) -> Right:
    """Who may act as a ServiceAccount anyway, by `kubectl create token`."""
    return Right("create", "serviceaccounts/token", group="", name=service_account)


class Decision(NamedTuple):
    """Whether somebody may; the reason is the API server's own, and may be empty."""

    allowed: bool
    reason: str


class Cluster(Protocol):
    """The part of `KubeClient` that lends a caller's rights."""

    def on_behalf_of(self, token: str, field_manager: str) -> Creator: ...


class Identity:
    """Answers are kept for ten seconds, so long may a revoked right last, and so is that a token is unknown.

    Other failures are asked for anew. Equal questions at the same time are one.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._now = now
        self._kept: OrderedDict[tuple[str, ...], tuple[float, Any]] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """Apart, so that made-up tokens push out nobody who is known."""
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}

    async def name_of(self, token: SecretStr) -> str:
        """Kubernetes' user name, such as `system:serviceaccount:team-a:ada`. Raises `KubeError`, 401 if unknown."""
        return await self._cached((_digest(token),), lambda: user_name(self._caller(token)))

    async def decision(self, token: SecretStr, right: Right, namespace: str | None) -> Decision:
        """Without a namespace: in all of them. Raises `KubeError`."""

        async def ask() -> Decision:
            resource, _, subresource = right.resource.partition("/")
            attributes = {"verb": right.verb, "group": right.group, "resource": resource, "namespace": namespace or ""}
            if subresource:
                attributes["subresource"] = subresource
            if right.name:
                attributes["name"] = right.name
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
            asked = body | {"spec": {"resourceAttributes": attributes}}
            status = (await self._caller(token).create("selfsubjectaccessreviews", None, asked))["status"]
            return Decision(status["allowed"], status.get("reason") or status.get("evaluationError") or "")

        return await self._cached((_digest(token), *right, namespace or ""), ask)

    def _caller(self, token: SecretStr) -> Creator:
        return self._cluster.on_behalf_of(token.get_secret_value(), FIELD_MANAGER)

    async def _cached(self, key: tuple[str, ...], ask: Callable[[], Awaitable[Answer]]) -> Answer:
        until, kept = self._kept.get(key, (0.0, None))
        if self._now() < until:
            answer: Answer = kept
            return answer
        until, message = self._unknown.get(key[0], (0.0, ""))
        if self._now() < until:
            raise KubeError(message, UNAUTHENTICATED)
        running = self._running.get(key)
        if running is None:
            if len(self._running) >= MAX_REVIEWS:
                raise Unavailable("too many tokens are being looked at", retry_after_seconds=1)
            running = self._running[key] = asyncio.create_task(self._asked(key, ask))
            running.add_done_callback(lambda task: self._done(key, task))
        # Whoever leaves must not take the answer from those who wait for the same one.
        shared: Answer = await asyncio.shield(running)
        return shared

    async def _asked(self, key: tuple[str, ...], ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            fresh = await ask()
        except KubeError as error:
            if error.status == UNAUTHENTICATED:
                self._remember(self._unknown, key[0], str(error))
            raise
        self._remember(self._kept, key, fresh)
        return fresh

    def _remember(self, where: OrderedDict[Any, tuple[float, Any]], key: object, value: object) -> None:
        where[key] = (self._now() + CACHE_SECONDS, value)
        where.move_to_end(key)
        while len(where) > CACHE_MAX_ENTRIES:
            where.popitem(last=False)

    def _done(self, key: tuple[str, ...], task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # Looked at, even where nobody waits any more.


def _digest(token: SecretStr) -> str:
    """What is kept must not be the token itself."""
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()
