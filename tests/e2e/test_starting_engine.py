"""An engine that is no longer wanted while it starts frees what it holds at once, on a real node."""

import json
from typing import Any

from demo.story import ENGINE_PODS, FIRST, SERVING_TIMEOUT_SECONDS
from tests.e2e.conftest import World

LENGTH = 256
GOES_WITHIN_SECONDS = 60
"""Five of them it is left alone, so that gateways hear of its end; a pod that drains may take five minutes."""


def patch(world: World, length: int) -> None:
    spec = {"serving": {"maxModelLen": length}}
    world.kubectl.run("patch", "modelversion", FIRST, "--type", "merge", "--patch", json.dumps({"spec": spec}))


def starting(world: World) -> list[str]:
    """Names of the engine pods whose server runs and does not answer yet, of the other length."""
    pods: list[dict[str, Any]] = world.kubectl.get(*ENGINE_PODS)["items"]
    return [
        pod["metadata"]["name"]
        for pod in pods
        if str(LENGTH) in pod["spec"]["containers"][0]["args"]
        and any(
            "running" in status["state"] and not status["ready"]
            for status in pod["status"].get("containerStatuses", ())
        )
    ]


def test_a_starting_engine_that_nobody_wants_goes_at_once(world: World) -> None:
    before = world.kubectl.get("modelversion", FIRST)["spec"]["serving"]["maxModelLen"]
    patch(world, LENGTH)
    try:
        (name,) = world.kubectl.wait_for("another engine starts", lambda: starting(world), SERVING_TIMEOUT_SECONDS)
    finally:
        patch(world, before)

    def is_gone() -> bool:
        pods = world.kubectl.get(*ENGINE_PODS)["items"]
        return name not in {pod["metadata"]["name"] for pod in pods}

    world.kubectl.wait_for("it is gone", is_gone, GOES_WITHIN_SECONDS)
    assert world.kubectl.get("modelversion", FIRST)["status"]["state"] == "Deployed"
