"""One control plane for the session; each test gets a namespace and an operator of its own."""

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.cluster.control_plane import ControlPlane, running_control_plane
from tests.cluster.world import World, world_in

_numbers = itertools.count(1)

JUDGES_THE_WHOLE_TIER = "tests/cluster/test_permissions.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What all tests of this tier did is judged after the last of them."""
    slots = [index for index, item in enumerate(items) if "tests/cluster/" in item.nodeid]
    ordered = sorted((items[index] for index in slots), key=lambda item: JUDGES_THE_WHOLE_TIER in item.nodeid)
    for index, item in zip(slots, ordered, strict=True):
        items[index] = item


@pytest_asyncio.fixture(scope="session")
async def control_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    async with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest_asyncio.fixture(scope="session")
async def bare_namespace(control_plane: ControlPlane) -> str:
    """A namespace that no operator watches."""
    await control_plane.kubectl("create", "namespace", "bare")
    return "bare"


@pytest_asyncio.fixture
async def resting_world(control_plane: ControlPlane) -> AsyncIterator[World]:
    """A namespace whose operator is not running yet."""
    async with world_in(control_plane, f"world-{next(_numbers)}") as world:
        yield world


@pytest_asyncio.fixture
async def world(resting_world: World) -> World:
    """A namespace with a running operator."""
    await resting_world.operator.start()
    return resting_world


@pytest_asyncio.fixture(scope="module")
async def shared_world(control_plane: ControlPlane) -> AsyncIterator[World]:
    """One for all tests of a file that don't disturb each other."""
    async with world_in(control_plane, f"shared-{next(_numbers)}") as world:
        await world.operator.start()
        yield world
