"""Everything on the machine dies at once, as when its power fails; last, since it ends every other test's node."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAIError

from demo import target
from demo.chat import Answer, ask, client
from demo.console import Narrator
from demo.install import RELEASE
from demo.kubectl import DemoError
from demo.story import ALIAS, FIRST, QUESTIONS
from local_cluster.cluster import Cluster
from tests.e2e.conftest import World

COMES_BACK_SECONDS = 300
DIES_SECONDS = 30


def test_the_node_comes_up_again_and_answers_from_the_same_version(world: World) -> None:
    if world.target.name != "local":
        pytest.skip("the node of this cluster is not ours to kill")
    victims = processes_of_the_node(Cluster())
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    world.kubectl.wait_for("everything is dead", lambda: all(is_dead(pid) for pid in victims), DIES_SECONDS)

    target.bring_up("local", Narrator())
    answer = world.kubectl.wait_for("the alias answers", lambda: answer_if_any(world), COMES_BACK_SECONDS)
    assert answer.version == FIRST


def processes_of_the_node(cluster: Cluster) -> list[int]:
    """Its services, and every container with all that runs in it."""
    records = (cluster.processes.record(name) for name in cluster.processes.names())
    services = [record.pid for record in records if record and record.alive()]
    shims = [pid for pid in pids() if str(cluster.layout.containerd_socket) in command_of(pid)]
    containers = [child for shim in shims for child in descendants(shim)]
    return list(dict.fromkeys([*services, *shims, *containers]))


def pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # It ended meanwhile.
        return ""


def descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # It ended meanwhile.
        return
    for child in map(int, children):
        yield child
        yield from descendants(child)


def is_dead(pid: int) -> bool:
    """Gone, or a zombie, which holds no port and no file."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def answer_if_any(world: World) -> Answer | None:
    """Until gateway and engine have started there is nobody to forward to, or a 503."""
    try:
        with world.kubectl.port_forward(f"{RELEASE}-gateway") as url:
            return ask(client(url), ALIAS, QUESTIONS[0])
    except (DemoError, OpenAIError):
        return None
