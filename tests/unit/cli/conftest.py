"""`ftctl` as a user runs it, against a played API server; users are told apart by their tokens."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_operator.cli.main import app
from tests.unit.cli.played_cluster import PlayedCluster, populate
from tests.unit.kubeconfig import kubeconfig


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Ftctl = Callable[..., Coroutine[Any, Any, Ended]]


@pytest.fixture
async def empty_cluster() -> AsyncIterator[PlayedCluster]:
    async with PlayedCluster().running() as cluster:
        yield cluster


@pytest.fixture
def cluster(empty_cluster: PlayedCluster) -> PlayedCluster:
    """With a family of everything."""
    populate(empty_cluster)
    return empty_cluster


@pytest.fixture
def ftctl(empty_cluster: PlayedCluster, tmp_path: Path) -> Ftctl:
    """Runs a command and returns how it ended; unexpected exceptions are the test's."""

    async def run(*arguments: str, user: str = "editor", stdin: str = "", **variables: str) -> Ended:
        file = tmp_path / f"{user}.kubeconfig"
        file.write_text(
            kubeconfig(empty_cluster.url)
            .replace("token: test", f"token: {user}")
            .replace("user: test", "user: test, namespace: finetune")
        )
        environment = {
            "KUBECONFIG": str(file),
            "FTCTL_SERVER": "",
            "FTCTL_TOKEN": "",
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        }
        return await asyncio.to_thread(invoked, *arguments, stdin=stdin, environment=environment | variables)

    return run


def invoked(*arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> Ended:
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment, catch_exceptions=False)
    return Ended(result.exit_code, result.stdout, result.stderr)
