"""One control plane for the session; each test gets a namespace of its own."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.control_plane import ControlPlane, running_control_plane

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="session")
async def control_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    async with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest_asyncio.fixture(scope="session")
async def bare_namespace(control_plane: ControlPlane) -> str:
    """A namespace that no operator watches."""
    name = f"bare-{next(_numbers)}"
    await control_plane.kubectl("create", "namespace", name)
    return name
