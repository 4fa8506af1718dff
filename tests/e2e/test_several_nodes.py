"""Two pods on the real node train one adapter together, found by each other through the headless Service."""

import json
from typing import Any

import yaml

from demo.install import EXAMPLES
from tests.e2e.conftest import World

TIMEOUT_SECONDS = 400
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"

Manifest = dict[str, Any]


def lines_of(world: World, pod: Manifest) -> list[dict[str, Any]]:
    """The trainer's structured log; torchrun writes lines of its own between them."""
    text = world.kubectl.run("logs", pod["metadata"]["name"], "--container", "trainer")
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]


def test_two_pods_train_one_version(world: World) -> None:
    kubectl = world.kubectl
    manifest: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-two-nodes.yaml").read_text())
    name = manifest["metadata"]["name"]
    kubectl.apply(manifest)
    kubectl.run("wait", f"finetunejob/{name}", "--for=condition=Succeeded", f"--timeout={TIMEOUT_SECONDS}s",
                timeout_seconds=TIMEOUT_SECONDS + 10)  # fmt: skip

    status = kubectl.get("finetunejob", name)["status"]
    assert status["attempts"] == 1
    assert status["progress"]["step"] == manifest["spec"]["training"]["maxSteps"]
    assert float(status["result"]["testLoss"]) < float(status["result"]["baseTestLoss"])
    (version,) = [v for v in kubectl.get("modelversions")["items"] if v["spec"]["lineage"].get("fineTuneJob") == name]
    assert version["metadata"]["name"] == status["modelVersion"]

    pods = kubectl.get("pods", "--selector", f"finetune.dev/job={name}")["items"]
    by_index = {pod["metadata"]["labels"][INDEX_LABEL]: pod for pod in pods}
    assert {index: pod["status"]["phase"] for index, pod in by_index.items()} == {"0": "Succeeded", "1": "Succeeded"}
    # The first publishes and tells; the second has trained as many steps, and has nothing to say.
    first, second = (lines_of(world, by_index[index]) for index in ("0", "1"))
    assert [line["rank"] for line in second if line["message"] == "training"] == [1]
    assert any(line["message"] == "step" for line in first)
    assert not any(line["message"] in ("step", "checkpoint", "done") for line in second)
    (trainer,) = by_index["1"]["status"]["containerStatuses"]
    assert "message" not in trainer["state"]["terminated"]
    kubectl.run("delete", "finetunejob", name)
