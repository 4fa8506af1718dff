"""Processes die and come back: what users see stays right."""

import json
from typing import Any

import pytest
import yaml
from openai import NotFoundError

from demo.chat import Chatter, ask, client
from demo.install import EXAMPLES, RELEASE
from demo.story import ALIAS, BASE_MODEL, ENGINE_PODS, FIRST, QUESTIONS, SECOND
from tests.e2e.conftest import World

CATCH_UP_SECONDS = 30
TRAINING_TIMEOUT_SECONDS = 400

Manifest = dict[str, Any]

LIST_ADAPTERS = (
    "import json, os, urllib.request; "
    "request = urllib.request.Request('http://127.0.0.1:8000/v1/models', "
    "headers={'Authorization': 'Bearer ' + os.environ['VLLM_API_KEY']}); "
    "print(json.dumps([m['id'] for m in json.load(urllib.request.urlopen(request, timeout=20))['data']]))"
)


def is_ready(pod: Manifest) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def engine_pods(world: World) -> list[Manifest]:
    """Those that have not been told to end: an engine that another test has left takes a while."""
    items: list[Manifest] = world.kubectl.get(*ENGINE_PODS)["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def status_of(world: World, kind: str, name: str) -> Manifest:
    status: Manifest = world.kubectl.get(kind, name).get("status", {})
    return status


def kill(world: World, process: str) -> None:
    """SIGKILL, without a grace period, as when a node loses power; returns once another pod is Ready.

    Not by `rollout status`, which may read what was so before.
    """
    selector = f"app.kubernetes.io/component={process},app.kubernetes.io/instance={RELEASE}"
    pods = ("pods", "--selector", selector)
    dead = {pod["metadata"]["uid"] for pod in world.kubectl.get(*pods)["items"]}
    world.kubectl.run("delete", *pods, "--grace-period=0", "--force", "--wait=true")

    def is_back() -> bool:
        return any(is_ready(pod) and pod["metadata"]["uid"] not in dead for pod in world.kubectl.get(*pods)["items"])

    world.kubectl.wait_for(f"another {process} is Ready", is_back, 180)


def test_an_engine_pod_that_was_deleted_has_its_adapters_before_it_is_ready(world: World) -> None:
    (old,) = engine_pods(world)
    world.kubectl.run("delete", "pod", old["metadata"]["name"], "--wait=false")

    def replacement() -> Manifest | None:
        fresh = [pod for pod in engine_pods(world) if pod["metadata"]["uid"] != old["metadata"]["uid"]]
        return next((pod for pod in fresh if is_ready(pod)), None)

    pod = world.kubectl.wait_for("a new engine pod is Ready", replacement, 300)
    listed = json.loads(world.kubectl.run("exec", pod["metadata"]["name"], "--", "python", "-c", LIST_ADAPTERS))
    assert {BASE_MODEL, FIRST, SECOND} <= set(listed)
    # Of serve.py, where it can't use what the image's build found out: the start then takes a third longer.
    assert "vLLM inspects the model's class itself" not in world.kubectl.run("logs", pod["metadata"]["name"])
    world.kubectl.wait_for(
        "the status says so", lambda: status_of(world, "modelversion", FIRST).get("state") == "Deployed", 60
    )
    assert ask(client(world.gateway_url), ALIAS, QUESTIONS[0]).version == FIRST


def test_a_training_survives_the_death_of_operator_and_api(world: World) -> None:
    """DPO, while the api is gone for most of the time and the operator is killed in the middle."""
    kubectl = world.kubectl
    manifest: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-dpo.yaml").read_text())
    # Long enough to be still under way when the api is back.
    manifest["spec"]["training"]["epochs"] = 7
    kubectl.apply(manifest)
    name = manifest["metadata"]["name"]
    kubectl.wait_for("it trains", lambda: status_of(world, "finetunejob", name).get("phase") == "Training", 180)
    before = kubectl.get("jobs", "--selector", f"finetune.dev/job={name}")["items"]

    kubectl.run("scale", f"deployment/{RELEASE}-api", "--replicas=0")
    api = ("pods", "--selector", f"app.kubernetes.io/component=api,app.kubernetes.io/instance={RELEASE}")
    kubectl.wait_for("the api is gone", lambda: not kubectl.get(*api)["items"], 60)
    kill(world, "operator")
    kubectl.run("scale", f"deployment/{RELEASE}-api", "--replicas=1")
    kubectl.run("rollout", "status", f"deployment/{RELEASE}-api", "--timeout=180s")
    steps = (status_of(world, "finetunejob", name).get("progress") or {}).get("step", 0)

    def went_on() -> bool:
        status = status_of(world, "finetunejob", name)
        assert status["phase"] == "Training", "it ended before the api was back: more epochs are needed"
        return bool((status.get("progress") or {}).get("step", 0) > steps)

    kubectl.wait_for("progress resumes", went_on, CATCH_UP_SECONDS)
    kubectl.run("wait", f"finetunejob/{name}", "--for=condition=Succeeded", f"--timeout={TRAINING_TIMEOUT_SECONDS}s",
                timeout_seconds=TRAINING_TIMEOUT_SECONDS + 10)  # fmt: skip
    after = kubectl.get("jobs", "--selector", f"finetune.dev/job={name}")["items"]
    assert [job["metadata"]["uid"] for job in after] == [job["metadata"]["uid"] for job in before]
    published = status_of(world, "finetunejob", name)["modelVersion"]
    owners = [v for v in kubectl.get("modelversions")["items"] if v["spec"]["lineage"].get("fineTuneJob") == name]
    assert [version["metadata"]["name"] for version in owners] == [published]


def test_a_version_that_loads_survives_the_death_of_the_operator(world: World) -> None:
    """Beside the active one, while the operator is killed; nothing is restarted and nothing fails meanwhile."""
    kubectl = world.kubectl
    uids = {pod["metadata"]["uid"] for pod in engine_pods(world)}
    kubectl.run("patch", "modelversion", SECOND, "--type", "merge", "--patch", '{"spec":{"state":"Archived"}}')
    kubectl.wait_for("it is unloaded", lambda: status_of(world, "modelversion", SECOND)["state"] == "Archived", 60)
    with Chatter(world.gateway_url, ALIAS, QUESTIONS) as chatter:
        kubectl.run("patch", "modelversion", SECOND, "--type", "merge", "--patch", '{"spec":{"state":"Ready"}}')
        kill(world, "operator")
        kubectl.wait_for(
            "it is loaded", lambda: status_of(world, "modelversion", SECOND)["state"] == "Ready", CATCH_UP_SECONDS
        )
        assert ask(client(world.gateway_url), SECOND, QUESTIONS[0]).version == SECOND
    assert chatter.failures == []
    assert {pod["metadata"]["uid"] for pod in engine_pods(world)} == uids


def test_deleting_a_job_cancels_its_training_and_keeps_its_version(world: World) -> None:
    kubectl = world.kubectl
    manifest: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-sft.yaml").read_text())
    manifest["metadata"]["name"] = "cancelled"
    kubectl.apply(manifest)
    selector = ("pods", "--selector", "finetune.dev/job=cancelled")
    kubectl.wait_for("it has a pod", lambda: kubectl.get(*selector)["items"], 60)
    kubectl.run("delete", "finetunejob", "cancelled", "plato-emotion")
    kubectl.wait_for("its pods are gone", lambda: not kubectl.get(*selector)["items"], 120)
    assert status_of(world, "modelversion", FIRST)["state"] == "Deployed"


def test_the_gateway_never_answers_from_another_model(world: World) -> None:
    """Unknown and unloaded names are errors; what answers is what was asked for."""
    openai = client(world.gateway_url)
    for name in ("gpt-4", "plato-v77", "plato-v1x", "Plato"):
        with pytest.raises(NotFoundError, match="does not exist") as refusal:
            ask(openai, name, QUESTIONS[0])
        assert refusal.value.code == "model_not_found"
    for name in (BASE_MODEL, FIRST, SECOND):
        answer = ask(openai, name, QUESTIONS[0])
        assert (answer.model, answer.version) == (name, name)
