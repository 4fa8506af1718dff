"""A version that moves from its adapter to its merged weights and back on a real node, while clients go on asking."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from demo.chat import Chatter, ask, client
from demo.install import EXAMPLES
from demo.story import BASE_MODEL, QUESTIONS
from finetune_operator.core.merged_weights import is_merged_engine
from tests.e2e.conftest import World
from tests.e2e.test_failures import LIST_ADAPTERS, status_of

JOB, MODEL, VERSION = "kant-merged", "kant", "kant-v1"
TRAINING_TIMEOUT_SECONDS = 400
SERVING_TIMEOUT_SECONDS = 900
GONE_TIMEOUT_SECONDS = 180

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def version(world: World) -> Iterator[Manifest]:
    """Trained, merged, and served as an adapter beside the story's versions."""
    manifest: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-sft.yaml").read_text())
    manifest["metadata"]["name"] = JOB
    manifest["spec"] |= {"model": MODEL, "outputs": ["MergedWeights"]}
    manifest["spec"]["training"]["epochs"] = 4
    del manifest["spec"]["evaluation"]
    world.kubectl.apply(manifest)
    try:
        trained = "--for=condition=Succeeded"
        seconds = TRAINING_TIMEOUT_SECONDS
        world.kubectl.run("wait", f"finetunejob/{JOB}", trained, f"--timeout={seconds}s", timeout_seconds=seconds + 10)
        world.kubectl.run("wait", f"finetunejob/{JOB}", "--for=condition=Exported", "--timeout=10s")
        world.kubectl.wait_for(f"{VERSION} is deployed", lambda: is_deployed(world), SERVING_TIMEOUT_SECONDS)
        yield world.kubectl.get("modelversion", VERSION)
    finally:
        world.kubectl.run("delete", f"finetunejob/{JOB}", f"modelversion/{VERSION}", "--ignore-not-found")
        wait_until_merged_engines_are_gone(world)


def is_deployed(world: World) -> bool:
    return status_of(world, "modelversion", VERSION).get("state") == "Deployed"


def wait_until_merged_engines_are_gone(world: World) -> None:
    """With their pods, which others would count among their own."""
    found = ("deployments,services,configmaps,pods", "--selector", "app.kubernetes.io/component=engine")

    def are_gone() -> bool:
        names = [item["metadata"]["name"] for item in world.kubectl.get(*found)["items"]]
        return not any(is_merged_engine(name) for name in names)

    world.kubectl.wait_for("no engine of merged weights is left", are_gone, GONE_TIMEOUT_SECONDS)


def serve(world: World, *, merged: bool) -> Manifest:
    """Ask for it, and wait until the version answers that way; its status then."""
    patch = json.dumps({"spec": {"serving": {"mergedWeights": merged}}})
    world.kubectl.run("patch", "modelversion", VERSION, "--type", "merge", "--patch", patch)

    def arrived() -> Manifest | None:
        status = status_of(world, "modelversion", VERSION)
        is_there = is_merged_engine(status["engine"]) is merged and "nextEngine" not in status
        return status if is_there and status["state"] == "Deployed" else None

    way = "its merged weights" if merged else "its adapter"
    found: Manifest = world.kubectl.wait_for(f"{VERSION} answers by {way}", arrived, SERVING_TIMEOUT_SECONDS)
    return found


def test_a_version_moves_to_its_merged_weights_and_back_without_a_failed_request(
    world: World, version: Manifest
) -> None:
    openai, adapter_engine = client(world.gateway_url), version["status"]["engine"]
    assert version["spec"]["artifact"]["mergedDigest"].startswith("sha256:")
    assert not is_merged_engine(adapter_engine)
    by_adapter = [ask(openai, MODEL, question).text for question in QUESTIONS]
    by_base = [ask(openai, BASE_MODEL, question).text for question in QUESTIONS]

    with (
        Chatter(world.gateway_url, MODEL, QUESTIONS) as of_alias,
        Chatter(world.gateway_url, VERSION, QUESTIONS) as own,
    ):
        merged_engine = serve(world, merged=True)["engine"]
        (pod,) = world.kubectl.get("pods", "--selector", f"finetune.dev/engine={merged_engine}")["items"]
        listed = json.loads(world.kubectl.run("exec", pod["metadata"]["name"], "--", "python", "-c", LIST_ADAPTERS))
        answers = [ask(openai, MODEL, question) for question in QUESTIONS]
        of_base = ask(openai, BASE_MODEL, QUESTIONS[0])
        back = serve(world, merged=False)
        wait_until_merged_engines_are_gone(world)
        after = ask(openai, MODEL, QUESTIONS[0])

    assert (of_alias.failures, own.failures) == ([], [])
    assert set(of_alias.versions) == set(own.versions) == {VERSION}
    assert of_alias.answers + own.answers > 20
    assert listed == [VERSION]
    assert {answer.version for answer in answers} == {VERSION}
    texts = zip((answer.text for answer in answers), by_adapter, by_base, strict=True)
    telling = [(merged, adapter) for merged, adapter, base in texts if adapter != base]
    assert 2 * len(telling) >= len(QUESTIONS), "the training has changed the answers"
    # Both are the same function, but the order of its sums differs, and with it now and then a token.
    assert 2 * sum(merged == adapter for merged, adapter in telling) > len(telling)
    assert of_base.version == BASE_MODEL, "another version of the base model is served as an adapter"
    assert back["engine"] == adapter_engine
    assert after.version == VERSION
    assert [entry["state"] for entry in back["history"]] == ["Deployed"], "it was active all the time"


def test_weights_that_are_not_those_of_the_version_are_refused_by_their_reason(world: World, version: Manifest) -> None:
    name = f"{MODEL}-v2"
    artifact = version["spec"]["artifact"] | {"mergedDigest": f"sha256:{'0' * 64}"}
    spec = {key: value for key, value in version["spec"].items() if key not in ("state", "promotion")}
    serving = spec["serving"] | {"mergedWeights": True}
    spec |= {"version": 2, "artifact": artifact, "serving": serving}
    world.kubectl.apply(
        {"apiVersion": version["apiVersion"], "kind": "ModelVersion", "metadata": {"name": name}, "spec": spec}
    )
    try:

        def refusal() -> Manifest | None:
            conditions = status_of(world, "modelversion", name).get("conditions", [])
            return next((entry for entry in conditions if entry["type"] == "Stalled"), None)

        stalled = world.kubectl.wait_for(f"{name} is refused", refusal, SERVING_TIMEOUT_SECONDS)
        assert stalled["reason"] == "DigestMismatch"
        assert artifact["mergedDigest"] in stalled["message"]
        assert ask(client(world.gateway_url), MODEL, QUESTIONS[0]).version == VERSION
    finally:
        world.kubectl.run("delete", "modelversion", name)
        wait_until_merged_engines_are_gone(world)
