"""The demo's own story, told once a session on a real node; the tests assert on what it saw and go on from there."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx2
import pytest

from demo import install, target
from demo.console import Narrator
from demo.kubectl import Kubectl
from demo.story import Story, Teller


@dataclass(frozen=True)
class World:
    """The cluster after the story."""

    target: target.Target
    story: Story
    gateway_url: str
    api_url: str

    @property
    def kubectl(self) -> Kubectl:
        return self.target.kubectl


@pytest.fixture(scope="session")
def cluster() -> target.Target:
    """A node with the product in it; built from source where no other is asked for."""
    narrator = Narrator()
    chosen = target.bring_up(target.choose(), narrator)
    install.install_chart(chosen, narrator)
    return chosen


@pytest.fixture(scope="session")
def world(cluster: target.Target) -> Iterator[World]:
    narrator = Narrator()
    with ExitStack() as stack:
        install.start_afresh(cluster)
        conversations = install.fill_ratings(cluster, narrator)
        install.train_base_model(cluster, narrator, conversations)
        gateway_url = stack.enter_context(cluster.kubectl.port_forward(f"{install.RELEASE}-gateway"))
        api_url = stack.enter_context(cluster.kubectl.port_forward(f"{install.RELEASE}-api"))
        story = Teller(cluster, narrator, conversations, gateway_url, api_url).tell()
        yield World(cluster, story, gateway_url, api_url)


def editor_token(world: World, account: str) -> str:
    """Of a new ServiceAccount that may do what ClusterRole `edit` allows in the product's namespace alone."""
    install.make_person(world.kubectl, account)
    return world.kubectl.run("create", "token", account, "--duration", "2h").strip()


@contextmanager
def editors_api(world: World) -> Iterator[httpx2.Client]:
    """REST for somebody who may edit; a way there of its own, since the session's ends with a pod that tests kill."""
    headers = {"Authorization": f"Bearer {editor_token(world, 'editor')}"}
    with (
        world.kubectl.port_forward(f"{install.RELEASE}-api") as url,
        httpx2.Client(base_url=url, headers=headers, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def api(world: World) -> Iterator[httpx2.Client]:
    with editors_api(world) as client:
        yield client
