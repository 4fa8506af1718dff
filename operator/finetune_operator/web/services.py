"""What the routes work with, as interfaces, so that each can be replaced in a test."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from random import SystemRandom
from secrets import token_bytes
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.dataset_worker import Order, Outcome
from finetune_operator.web.account_tokens import AccountTokens
from finetune_operator.web.answering_models import AnsweringModel
from finetune_operator.web.identity import Identity
from finetune_operator.web.lists import Lists
from finetune_operator.web.mirroring import Mirroring
from finetune_operator.web.oidc import OpenIdProvider
from finetune_operator.web.remembered import Remembered
from finetune_operator.web.settings import Settings
from finetune_operator.web.streams import Streams
from finetune_operator.web.turns import Turns
from finetune_operator.web.worker_process import Watch, WorkerProcess

Object = dict[str, Any]


class Resources(Protocol):
    """The part of `KubeClient` that the api needs, with somebody's rights."""

    async def get(self, plural: str, namespace: str, name: str) -> Object: ...

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> tuple[list[Object], str]: ...

    def chunks(self, plural: str, namespace: str | None) -> AsyncGenerator[tuple[Object, ...], None]: ...

    async def version(self, plural: str, namespace: str | None) -> str: ...

    async def create(
        self, plural: str, namespace: str | None, body: Mapping[str, Any], *, strict: bool = False
    ) -> Object: ...

    async def merge_patch(
        self, plural: str, namespace: str, name: str, body: Mapping[str, Any], subresource: str = ""
    ) -> Object: ...

    async def delete(self, plural: str, namespace: str, name: str, uid: str) -> None: ...

    def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = "", *, name: str = ""
    ) -> AsyncGenerator[tuple[str, Object], None]: ...

    def log(
        self, namespace: str, pod: str, container: str, *, follow: bool = False, tail_lines: int | None = None
    ) -> AsyncGenerator[bytes, None]: ...


class Cluster(Resources, Protocol):
    """The API server with the api's own rights, and with those of callers."""

    def on_behalf_of(self, token: str, field_manager: str, person: str | None = None) -> Resources: ...

    async def token_of(self, namespace: str, service_account: str, lifetime_seconds: int) -> Object: ...


class ArmUnavailable(Exception):
    """One arm gave no answer; the text says which and why."""


class Arms(Protocol):
    """What answers a prompt under a served name. Raises `ArmUnavailable`."""

    async def ask(self, served_name: str, prompt: str) -> str: ...


class GatewayAway(Exception):
    """The gateway gave no answer, or not all of it; the text says why."""


@dataclass(frozen=True)
class GatewayAnswer:
    """What has begun to come; `headers` are those that are not of the one connection, `chunks` are as they come."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    chunks: AsyncIterator[bytes]


class Gateway(Protocol):
    """What answers completions, for as long as the block lasts. Raises `GatewayAway`, also from within `chunks`.

    `models` are the names that answer now.
    """

    def asked(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> AbstractAsyncContextManager[GatewayAnswer]: ...

    async def models(self) -> tuple[AnsweringModel, ...]: ...


class Worker(Protocol):
    """What reads the ratings database; `watch` is called while it does, and may end it by raising."""

    async def outcome(self, order: Order, watch: Watch, timeout_seconds: float) -> Outcome: ...


def _now() -> datetime:
    return datetime.now(UTC)


def _coin() -> bool:
    return SystemRandom().random() < 0.5


def _suffix() -> str:
    return f"{SystemRandom().getrandbits(32):08x}"


@dataclass(frozen=True)
class Services:
    """Built once by the process; its clock and its randomness are the only ones of the routes."""

    settings: Settings
    engine: AsyncEngine
    cluster: Cluster
    arms: Arms
    now: Callable[[], datetime] = _now
    coin: Callable[[], bool] = _coin
    suffix: Callable[[], str] = _suffix
    """Eight hexadecimal digits, for the name of what its maker gave none."""
    random_bytes: Callable[[int], bytes] = token_bytes
    """Of secrets."""
    gateway: Gateway | None = None
    """Where completions are passed on to; they are refused where there is none."""
    turns: Turns = field(default_factory=Turns)
    streams: Streams = field(default_factory=Streams)
    version_namespaces: dict[str, str] = field(default_factory=dict)
    """Of versions that were judged, by their uids."""
    lists: Lists = field(default_factory=Lists)
    mirroring: Mirroring | None = None
    """Lists are read from the API server where there is none."""
    remembered: Remembered = field(default_factory=Remembered)
    """What votes say besides their sum, of tests that have many."""
    uploads: Lists = field(default_factory=Lists)
    """How many files may be on their way at once."""
    worker: Worker = field(default_factory=WorkerProcess)
    oidc: OpenIdProvider | None = None
    """Where people can log in, beside with a token that they have."""

    @cached_property
    def identity(self) -> Identity:
        """Who Kubernetes' tokens belong to."""
        return Identity(self.cluster)

    @cached_property
    def account_tokens(self) -> AccountTokens:
        """What API keys stand for."""
        return AccountTokens(self.cluster, self.now)


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesOf = Annotated[Services, Depends(_services)]
