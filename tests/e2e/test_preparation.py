"""A training that wants a GPU, on a node without: all that needs none is done, and no more than that is made."""

from typing import Any

import yaml

from demo.install import EXAMPLES
from tests.e2e.conftest import World

NAME = "on-gpu"
TIMEOUT_SECONDS = 120

Manifest = dict[str, Any]


def test_dataset_and_preflight_are_there_before_a_gpu_is_asked_for(world: World) -> None:
    kubectl = world.kubectl
    manifest: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-sft.yaml").read_text())
    manifest["metadata"]["name"] = NAME
    manifest["spec"] |= {"model": NAME, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    kubectl.apply(manifest)

    def waits_for_a_gpu() -> Manifest | None:
        status: Manifest = kubectl.get("finetunejob", NAME).get("status", {})
        reasons = {entry["type"]: entry["reason"] for entry in status.get("conditions", [])}
        return status if reasons.get("Reconciling") == "Unschedulable" else None

    status = kubectl.wait_for("it waits for a GPU", waits_for_a_gpu, TIMEOUT_SECONDS)
    assert "nvidia.com/gpu" in status["message"]
    assert status["dataset"]["rows"] > 0
    assert status["preflight"]["steps"] > 0
    pods = {
        pod["status"]["phase"]: pod for pod in kubectl.get("pods", "--selector", f"finetune.dev/job={NAME}")["items"]
    }
    assert pods.keys() == {"Succeeded", "Pending"}
    assert [each["name"] for each in pods["Succeeded"]["spec"]["containers"]] == ["prepare"]
    kubectl.run("delete", "finetunejob", NAME)
