"""A served version measured beside its base model by the engine that serves both, on a real node."""

import json
import urllib.request
from functools import partial
from typing import Any

from demo.install import RELEASE, api_token
from tests.e2e.conftest import World

EVALUATION_TIMEOUT_SECONDS = 300
SATURATION = {"stepSeconds": 3, "maxConcurrency": 8}
METRICS = ["RougeL", "TokenAccuracy", "TokenF1"]


def patch(world: World, name: str, spec: dict[str, Any]) -> None:
    world.kubectl.run("patch", "modelversion", name, "--type", "merge", "--patch", json.dumps({"spec": spec}))


def test_a_served_version_is_measured_beside_its_base_model(world: World) -> None:
    name = world.story.first.version["metadata"]["name"]
    patch(world, name, {"evaluation": {"metrics": METRICS, "maxNewTokens": 32, "saturation": SATURATION}})
    world.kubectl.run(
        "wait", f"modelversion/{name}", "--for=condition=Evaluated", f"--timeout={EVALUATION_TIMEOUT_SECONDS}s"
    )

    version = world.kubectl.get("modelversion", name)
    measured = version["status"]["evaluation"]
    scores = {score["name"]: score for score in measured["metrics"]}
    assert scores.keys() == set(METRICS), measured
    assert measured["examples"] > 0
    for quantity in ("meanLatencySeconds", "p95LatencySeconds", "meanSecondsToFirstToken", "tokensPerSecond"):
        assert float(measured[quantity]["base"]) > 0
        assert float(measured[quantity]["fineTuned"]) > 0
    saturation = measured["saturation"]
    for side in ("base", "fineTuned"):
        assert float(saturation["requestsPerSecond"][side]) > 0
        # An answer has a token at least.
        assert float(saturation["tokensPerSecond"][side]) >= float(saturation["requestsPerSecond"][side])
        assert int(saturation["concurrency"][side]) in {1, 2, 4, 8}
    memory = measured["memoryGigabytes"]
    assert memory["of"] == "Container"
    # vLLM with the demo's tiny model; one of gigabytes that were megabytes would be far off.
    assert 0.3 < float(memory["base"]) < 16
    assert 0.3 < float(memory["fineTuned"]) < 16
    # By teacher forcing, hence the same whoever computes it, but for the last digits of the logits.
    trained = {score["name"]: score for score in version["spec"]["lineage"]["evaluation"]["metrics"]}
    for side in ("base", "fineTuned"):
        assert abs(float(scores["TokenAccuracy"][side]) - float(trained["TokenAccuracy"][side])) < 0.05

    path = f"/v1/fine-tuning/model-versions/{version['metadata']['namespace']}/{name}/evaluations"
    with world.kubectl.port_forward(f"{RELEASE}-api") as api_url:
        recorded = partial(_recorded, world, api_url + path, version["metadata"]["uid"])
        rows = world.kubectl.wait_for("both are in the database", recorded, 60)
    assert {row["source"] for row in rows} == {"Training", "Served"}
    served = next(row for row in rows if row["source"] == "Served")
    assert {value["name"] for value in served["values"]} >= {
        *METRICS,
        "meanLatencySeconds",
        "tokensPerSecond",
        "requestsPerSecondAtSaturation",
        "memoryGigabytes",
    }
    patch(world, name, {"evaluation": {"metrics": None, "saturation": None}})


def _recorded(world: World, url: str, uid: str) -> list[dict[str, Any]] | None:
    """Of this version alone: the database keeps those of earlier ones with the same name."""
    headers = {"Authorization": f"Bearer {api_token(world.target)}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        rows: list[dict[str, Any]] = json.load(response)["evaluations"]
    own = [row for row in rows if row["id"].startswith(uid)]
    return own if len(own) == 2 else None
