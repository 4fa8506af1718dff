"""One of an engine's two pods dies under load: only streams that this pod had begun may fail, all else is answered."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.install import RELEASE
from demo.story import FIRST
from tests.e2e.conftest import World
from tests.e2e.test_failures import engine_pods, is_ready
from tests.e2e.test_ten_thousand_requests import answers, load
from tests.e2e.test_whole_node import is_dead, pids

REPLICAS = 2
REQUESTS, REQUESTS_PER_SECOND = 200, 6.0
"""So that two cores also start an engine beside it."""
TOKENS = 24
"""So that streams are always under way."""
READY_SECONDS = 420
DIES_SECONDS = 180
ANSWERS_SECONDS = 60
ANSWERED = (
    "import os, re, urllib.request; "
    "request = urllib.request.Request('http://127.0.0.1:8000/metrics', "
    "headers={'Authorization': 'Bearer ' + os.environ['VLLM_API_KEY']}); "
    "text = urllib.request.urlopen(request, timeout=20).read().decode(); "
    "print(sum(float(n) for n in re.findall(r'^vllm:request_success_total\\{.*\\} (.+)$', text, re.M)))"
)

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Death:
    """When it was asked for, and when the pod certainly answered no more, by the clock that the load also uses."""

    pod: str
    began_at: float
    ended_at: float

    def may_fail(self, told: Manifest, pods: Mapping[str, str]) -> bool:
        """Whether this pod had begun to stream the answer by then, and had not ended before; `pods` are those that
        answered, by the requests' ids. A refusal is no stream."""
        return (
            told["streamed"]
            and told["status"] == httpx2.codes.OK
            and pods.get(told["request_id"]) == self.pod
            and told["begun"] <= self.ended_at
            and told["whole"] >= self.began_at
        )


@pytest.fixture
def pair(world: World) -> Iterator[World]:
    scale(world, REPLICAS)
    try:
        wait_until_all_are_ready(world, REPLICAS)
        yield world
    finally:
        scale(world, 1)
        wait_until_all_are_ready(world, 1)


@pytest.mark.timeout(4 * READY_SECONDS)
def test_only_streams_that_a_killed_pod_had_begun_may_fail(pair: World) -> None:
    with load(pair, REQUESTS, REQUESTS_PER_SECOND, TOKENS):
        deaths = []
        if pair.target.name == "local":
            # Elsewhere the node's processes are not ours; the pod stays, and its container comes back.
            before = retries(pair)
            deaths.append(killed(pair, kill_process))
            # Of a pod that was deleted, it may have learned from the API server before it asked it again.
            assert retries(pair) > before
        deaths.append(killed(pair, delete_by_force))
        told = answers(pair)
        pods = answering_pods(pair)

    assert {each["request_id"] for each in told if each["status"] == httpx2.codes.OK} <= pods.keys()
    problems = [each for each in told if each["problem"]]
    assert len(told) >= REQUESTS
    assert max(each["sent"] for each in told) > deaths[-1].ended_at, "the load ended before the last pod died"
    assert [each for each in problems if not any(death.may_fail(each, pods) for death in deaths)] == []
    assert {each["version"] for each in told if not each["problem"]} == {FIRST}
    for death in deaths:
        assert any(death.may_fail(each, pods) for each in told), "the pod streamed nothing when it died"


def killed(world: World, kill: Callable[[World, Manifest], None]) -> Death:
    """The death of a pod that answers; returns once two pods answer again."""
    victim = engine_pods(world)[0]
    began_at = time.time()
    kill(world, victim)
    death = Death(victim["metadata"]["name"], began_at, time.time())
    names = wait_until_all_are_ready(world, REPLICAS)
    answered_before = {name: answered(world, name) for name in names}
    for name in names:
        world.kubectl.wait_for(
            f"{name} answers", lambda name=name: answered(world, name) > answered_before[name], ANSWERS_SECONDS
        )
    return death


def answered(world: World, pod_name: str) -> float:
    """How many requests this pod has answered."""
    return float(world.kubectl.run("exec", pod_name, "--", "python", "-c", ANSWERED))


def kill_process(world: World, pod: Manifest) -> None:
    """SIGKILL to the container's first process, with which the kernel ends all others of it."""
    (pid,) = (pid for pid in pids() if is_first_process(pid, pod["metadata"]["name"]))
    os.kill(pid, signal.SIGKILL)
    world.kubectl.wait_for("the process is dead", lambda: is_dead(pid), DIES_SECONDS)
    # Not by its being ready, which it may still seem to be.
    world.kubectl.wait_for("kubelet has noticed", lambda: restarts(world, pod) != restarts_of(pod), DIES_SECONDS)


def is_first_process(pid: int, pod_name: str) -> bool:
    """Of the engine's container: the pod's own process has no variables of Kubernetes."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # It ended meanwhile.
        return False
    return (
        f"HOSTNAME={pod_name}".encode() in variables and re.search(r"^NSpid:.*\t1$", status, re.MULTILINE) is not None
    )


def delete_by_force(world: World, pod: Manifest) -> None:
    """As for a node that is lost: the API server forgets the pod at once, and nobody lets it drain."""
    processes = [pid for pid in pids() if is_first_process(pid, pod["metadata"]["name"])]
    world.kubectl.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
    world.kubectl.wait_for("its process is dead", lambda: all(is_dead(pid) for pid in processes), DIES_SECONDS)


def restarts(world: World, pod: Manifest) -> int:
    return restarts_of(world.kubectl.get("pod", pod["metadata"]["name"]))


def restarts_of(pod: Manifest) -> int:
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def scale(world: World, replicas: int) -> None:
    patch = json.dumps({"spec": {"serving": {"replicas": replicas}}})
    world.kubectl.run("patch", "modelversion", FIRST, "--type", "merge", "--patch", patch)


def wait_until_all_are_ready(world: World, replicas: int) -> list[str]:
    """The names of the pods, which are as many as that."""

    def ready() -> list[str] | None:
        pods = engine_pods(world)
        names = [pod["metadata"]["name"] for pod in pods]
        return names if len(pods) == replicas and all(is_ready(pod) for pod in pods) else None

    names: list[str] = world.kubectl.wait_for(f"{replicas} engine pods are ready", ready, READY_SECONDS)
    return names


def answering_pods(world: World) -> dict[str, str]:
    """Which of the engine's pods answered, by the request's id, as the gateway's log tells."""
    gateway = f"app.kubernetes.io/component=gateway,app.kubernetes.io/instance={RELEASE}"
    lines = world.kubectl.run("logs", "--selector", gateway, "--tail=-1").splitlines()
    requests = [entry for entry in map(json.loads, lines) if entry["event"] == "request"]
    return {entry["request_id"]: entry["engine_pod"] for entry in requests if entry["engine_pod"]}


def retries(world: World) -> float:
    """Of the gateway, all reasons together."""
    with world.kubectl.port_forward(f"{RELEASE}-gateway") as url:
        text = httpx2.get(f"{url}/metrics").text
    return sum(
        float(number) for number in re.findall(r"^finetune_gateway_retries_total\{.*\} (.+)$", text, re.MULTILINE)
    )
