"""A real trainer in a pod that is killed, suspended and resumed: each time it goes on from its last checkpoint."""

import os
import re
import signal
from typing import Any

import yaml

from demo.install import EXAMPLES
from tests.e2e.conftest import World
from tests.e2e.test_failures import status_of
from tests.e2e.test_killed_pods import is_first_process
from tests.e2e.test_whole_node import pids

NAME = "interrupted"
SAVE_STEPS = 20
WAIT_SECONDS = 180
ENDING_SECONDS = 400


def training() -> dict[str, Any]:
    """Long enough to be interrupted twice."""
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLES / "finetunejob-sft.yaml").read_text())
    manifest["metadata"]["name"] = NAME
    spec = manifest["spec"]
    spec["training"] |= {"epochs": 60, "saveSteps": SAVE_STEPS}
    # The demo's versions stay as they are.
    spec |= {"model": NAME, "promotion": "Manual"}
    del spec["serving"], spec["evaluation"]
    return manifest


def trainers(world: World) -> list[dict[str, Any]]:
    """Running pods that train; the one that prepares has a Job of its own."""
    pods: list[dict[str, Any]] = world.kubectl.get("pods", "--selector", f"finetune.dev/job={NAME}")["items"]
    return [
        pod
        for pod in pods
        if pod["status"].get("phase") == "Running"
        and any(container["name"] == "trainer" for container in pod["spec"]["containers"])
    ]


def kill_trainer(world: World) -> None:
    """By the node, as a kernel that lacks memory does; the pod's first process is the trainer."""
    (pod,) = trainers(world)
    (pid,) = (pid for pid in pids() if is_first_process(pid, pod["metadata"]["name"]))
    os.kill(pid, signal.SIGKILL)


def checkpoint_step(world: World) -> int:
    return int((status_of(world, "finetunejob", NAME).get("checkpoint") or {}).get("step", 0))


def test_a_trainer_that_is_killed_and_one_that_is_suspended_go_on_from_their_checkpoints(world: World) -> None:
    kubectl = world.kubectl
    kubectl.apply(training())
    kubectl.wait_for("a checkpoint", lambda: checkpoint_step(world) >= SAVE_STEPS, WAIT_SECONDS)
    kill_trainer(world)
    killed_at = checkpoint_step(world)
    kubectl.wait_for(
        "the kill is told",
        lambda: (status_of(world, "finetunejob", NAME).get("lastFailure") or {}).get("reason") == "Killed",
        WAIT_SECONDS,
    )
    kubectl.wait_for("another checkpoint", lambda: checkpoint_step(world) > killed_at, WAIT_SECONDS)
    assert status_of(world, "finetunejob", NAME)["attempts"] == 2

    kubectl.run("patch", "finetunejob", NAME, "--type", "merge", "--patch", '{"spec": {"suspend": true}}')
    kubectl.wait_for(
        "it is suspended", lambda: status_of(world, "finetunejob", NAME).get("phase") == "Suspended", WAIT_SECONDS
    )
    kubectl.wait_for("its pod is gone", lambda: not trainers(world), WAIT_SECONDS)
    suspended_at = checkpoint_step(world)
    kubectl.run("patch", "finetunejob", NAME, "--type", "merge", "--patch", '{"spec": {"suspend": false}}')
    kubectl.run(
        "wait", f"finetunejob/{NAME}", "--for=condition=Succeeded", f"--timeout={ENDING_SECONDS}s",
        timeout_seconds=ENDING_SECONDS + 10,
    )  # fmt: skip

    log = world.kubectl.run("logs", "--selector", f"finetune.dev/job={NAME}", "--container", "trainer", "--tail", "-1")
    resumed = {int(step) for step in re.findall(r'"resumed_from": "checkpoint-(\d+)"', log)}
    assert resumed, log[-3000:]
    assert max(resumed) >= suspended_at >= killed_at >= SAVE_STEPS
