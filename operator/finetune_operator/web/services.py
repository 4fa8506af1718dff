"""What the routes work with, as interfaces, so that each can be replaced in a test."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import SystemRandom
from typing import Annotated, Any, Protocol, cast

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store.dataset_worker import Order, Outcome
from finetune_operator.web.settings import Settings
from finetune_operator.web.turns import Turns
from finetune_operator.web.worker_process import Watch, WorkerProcess


class Cluster(Protocol):
    """The part of `KubeClient` that the api needs."""

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]: ...


class ArmUnavailable(Exception):
    """One arm gave no answer; the text says which and why."""


class Arms(Protocol):
    """What answers a prompt under a served name. Raises `ArmUnavailable`."""

    async def ask(self, served_name: str, prompt: str) -> str: ...


class Worker(Protocol):
    """What reads the ratings database; `watch` is called while it does, and may end it by raising."""

    async def outcome(self, order: Order, watch: Watch, timeout_seconds: float) -> Outcome: ...


def _now() -> datetime:
    return datetime.now(UTC)


def _coin() -> bool:
    return SystemRandom().random() < 0.5


@dataclass(frozen=True)
class Services:
    """Built once by the process; `now` and `coin` are the only clock and randomness of the routes."""

    settings: Settings
    engine: AsyncEngine
    cluster: Cluster
    arms: Arms
    now: Callable[[], datetime] = _now
    coin: Callable[[], bool] = _coin
    turns: Turns = field(default_factory=Turns)
    worker: Worker = field(default_factory=WorkerProcess)


def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesOf = Annotated[Services, Depends(_services)]
