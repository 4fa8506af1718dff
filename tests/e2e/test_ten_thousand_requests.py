"""Ten thousand requests while versions change, an engine is replaced and the operator dies: none fails or is misled."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.chat import ask, client
from demo.install import RELEASE
from demo.story import ALIAS, FIRST, SECOND
from tests.e2e.conftest import World
from tests.e2e.open_loop import QUESTIONS
from tests.e2e.test_failures import kill, status_of

REQUESTS = 10_000
REQUESTS_PER_SECOND = 12.5
"""So that two cores also start an engine beside it."""
TOKENS = 4
LIKELY_SHARE = 0.9
"""The likeliest token may be another one where requests are computed together."""
SWITCH_SECONDS = 1.0
"""The promise: so soon after a change of the resource, an answer comes from the other version."""
MAX_MODEL_LEN, OTHER_MAX_MODEL_LEN = 512, 320
POD = "open-loop"
SCRIPT = Path(__file__).with_name("open_loop.py")
LOAD_TIMEOUT_SECONDS = REQUESTS / REQUESTS_PER_SECOND + 180
ROLL_TIMEOUT_SECONDS = 900

Manifest = dict[str, Any]


@dataclass
class Reign:
    """Which version the alias stood for, and from when on, by the clock that the load also uses."""

    version: str
    asked_at: float
    """Before the change was asked for."""
    granted_at: float
    """When it must have taken effect."""


@dataclass
class Reigns:
    """All of them, in order."""

    kubectl: Any
    past: list[Reign] = field(default_factory=list)

    def begin(self, version: str) -> None:
        """Pin a version; who was pinned before is left to the operator."""
        asked_at = time.time()
        self.patch(version, {"state": "Deployed"})
        self.past.append(Reign(version, asked_at, time.time() + SWITCH_SECONDS))
        self.kubectl.wait_for(
            f"{version} is deployed", lambda: status_of_version(self.kubectl, version).get("state") == "Deployed", 60
        )
        for other in {FIRST, SECOND} - {version}:
            self.patch(other, {"state": None})
            # Else the next pin of it would be none that the operator has not yet seen.
            self.kubectl.wait_for(
                f"{other} is no longer pinned", lambda other=other: is_observed(self.kubectl, other), 60
            )

    def patch(self, version: str, spec: Manifest) -> None:
        self.kubectl.run("patch", "modelversion", version, "--type", "merge", "--patch", json.dumps({"spec": spec}))

    def allowed(self, sent: float, whole: float) -> set[str]:
        """Versions that may have answered a request that was under way from `sent` to `whole`."""
        ends = [*(reign.granted_at for reign in self.past[1:]), float("inf")]
        return {
            reign.version for reign, end in zip(self.past, ends, strict=True) if reign.asked_at <= whole and sent <= end
        }


def status_of_version(kubectl: Any, version: str) -> Manifest:
    status: Manifest = kubectl.get("modelversion", version).get("status", {})
    return status


def is_observed(kubectl: Any, version: str) -> bool:
    found = kubectl.get("modelversion", version)
    return bool(found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"])


@pytest.mark.timeout(LOAD_TIMEOUT_SECONDS + 2 * ROLL_TIMEOUT_SECONDS)
def test_none_of_ten_thousand_requests_fails_or_is_misled(world: World) -> None:
    kubectl = world.kubectl
    reigns = Reigns(kubectl, [Reign(FIRST, 0.0, 0.0)])
    reigns.begin(FIRST)
    own = {version: own_answers(world, version) for version in (FIRST, SECOND)}
    assert own[FIRST] != own[SECOND], "no question tells the versions apart"
    with load(world, REQUESTS, REQUESTS_PER_SECOND, TOKENS):
        for version in (SECOND, FIRST, SECOND):
            reigns.begin(version)
        roll(world, reigns, SECOND, max_model_len=OTHER_MAX_MODEL_LEN)
        kill(world, "operator")
        # The last two take back what was promoted before.
        for version in (FIRST, SECOND, FIRST, SECOND, FIRST):
            reigns.begin(version)
        told = answers(world)
    roll(world, reigns, SECOND, max_model_len=MAX_MODEL_LEN)

    assert len(told) >= REQUESTS
    assert reigns.past[-1].granted_at < max(each["sent"] for each in told), "the load ended before the changes"
    assert [(each["sent"], each["problem"]) for each in told if each["problem"]] == []
    assert [each for each in told if each["engine"] != [each["version"]]] == []
    misled = [each for each in told if each["version"] not in reigns.allowed(each["sent"], each["whole"])]
    assert misled == []
    assert [each for each in told if is_of_another(each, own)] == []
    likely = sum(each["text"].strip() == own[each["version"]][each["question"]] for each in told)
    assert likely > len(told) * LIKELY_SHARE, "hardly any answer is what its version says"
    by_version = Counter(each["version"] for each in told)
    assert set(by_version) == {FIRST, SECOND}
    assert min(by_version.values()) > REQUESTS / 100
    assert sum(each["streamed"] for each in told) > REQUESTS / 4


def own_answers(world: World, version: str) -> dict[str, str]:
    """What a version that is asked by its own name says to each question."""
    openai = client(world.gateway_url)
    return {question: ask(openai, version, question, max_tokens=TOKENS).text for question in QUESTIONS}


def is_of_another(told: Manifest, own: dict[str, dict[str, str]]) -> bool:
    """Whether it has the words of another version than its header names, where the two say different things."""
    (other,) = own.keys() - {told["version"]}
    words, question = told["text"].strip(), told["question"]
    return words == own[other][question] != own[told["version"]][question]


def roll(world: World, reigns: Reigns, version: str, max_model_len: int) -> None:
    """Other serving parameters are another engine, beside the former one until it answers."""
    before = status_of(world, "modelversion", version)["engine"]
    reigns.patch(version, {"serving": {"maxModelLen": max_model_len}})

    def has_moved() -> bool:
        status = status_of(world, "modelversion", version)
        return status.get("engine") != before and status.get("state") in ("Ready", "Deployed")

    world.kubectl.wait_for(f"another engine serves {version}", has_moved, ROLL_TIMEOUT_SECONDS)


@contextmanager
def load(world: World, requests: int, requests_per_second: float, tokens: int) -> Iterator[None]:
    """A client in a pod of its own, which asks in the background."""
    operator = world.kubectl.get("deployment", f"{RELEASE}-operator")["spec"]["template"]["spec"]
    container = operator["containers"][0]
    arguments = (f"http://{RELEASE}-gateway", ALIAS, str(requests), str(requests_per_second), str(tokens))
    world.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": POD},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": operator["securityContext"],
                "containers": [
                    {
                        "name": POD,
                        "image": container["image"],
                        "imagePullPolicy": container["imagePullPolicy"],
                        "command": ["python", "-c", SCRIPT.read_text(), *arguments],
                        "securityContext": container["securityContext"],
                        # Else a busy engine would leave it no time to keep the rate.
                        "resources": {"requests": {"cpu": "500m"}},
                    }
                ],
            },
        }
    )
    try:
        world.kubectl.run("wait", f"pod/{POD}", "--for=condition=Ready", "--timeout=120s")
        world.kubectl.wait_for("requests are asked", lambda: world.kubectl.run("logs", POD).strip(), 60)
        yield
    finally:
        world.kubectl.run("delete", "pod", POD, "--grace-period=0", "--force")


def answers(world: World) -> list[Manifest]:
    """How every request fared, once the last one has; there is none after this but what lacks."""
    world.kubectl.run("exec", POD, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGUSR1)")
    ended = ("Succeeded", "Failed")
    world.kubectl.wait_for(
        "all requests are answered",
        lambda: world.kubectl.get("pod", POD)["status"]["phase"] in ended,
        LOAD_TIMEOUT_SECONDS,
    )
    return [json.loads(line) for line in world.kubectl.run("logs", POD).splitlines()]
