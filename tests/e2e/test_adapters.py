"""Adapters that an engine must not take: refused before they are loaded, with the reason, the engine unharmed."""

from typing import Any

import pytest
import yaml

from demo.chat import ask, client
from demo.install import EXAMPLES
from demo.story import ALIAS, FIRST, QUESTIONS
from tests.e2e.conftest import World

TRAINING_TIMEOUT_SECONDS = 300
REFUSAL_TIMEOUT_SECONDS = 300

Manifest = dict[str, Any]


def stalled_condition(version: Manifest) -> Manifest | None:
    conditions = version.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == "Stalled"), None)


def wait_until_refused(world: World, name: str) -> Manifest:
    found: Manifest = world.kubectl.wait_for(
        f"{name} is refused",
        lambda: stalled_condition(world.kubectl.get("modelversion", name)),
        REFUSAL_TIMEOUT_SECONDS,
    )
    return found


@pytest.fixture
def first(world: World) -> Manifest:
    return world.kubectl.get("modelversion", FIRST)


def copy_of(version: Manifest, number: int) -> Manifest:
    """Another ModelVersion of the same artifact."""
    spec = {key: value for key, value in version["spec"].items() if key not in ("state", "promotion")}
    name = f"{spec['model']}-v{number}"
    return {
        "apiVersion": version["apiVersion"],
        "kind": "ModelVersion",
        "metadata": {"name": name},
        "spec": spec | {"version": number},
    }


def test_a_wrong_digest_is_refused_and_the_engine_goes_on(world: World, first: Manifest) -> None:
    manifest = copy_of(first, 91)
    manifest["spec"]["artifact"] = first["spec"]["artifact"] | {"digest": f"sha256:{'0' * 64}"}
    world.kubectl.apply(manifest)
    assert wait_until_refused(world, "plato-v91")["reason"] == "DigestMismatch"
    assert ask(client(world.gateway_url), ALIAS, QUESTIONS[0]).version == FIRST
    world.kubectl.run("delete", "modelversion", "plato-v91")


def test_an_adapter_of_another_base_model_is_refused(world: World, first: Manifest) -> None:
    """Another name of the base model is another engine, which starts and refuses."""
    manifest = copy_of(first, 92)
    manifest["spec"]["baseModel"] = first["spec"]["baseModel"] | {"name": "another-model"}
    world.kubectl.apply(manifest)
    condition = wait_until_refused(world, "plato-v92")
    assert condition["reason"] == "WrongBaseModel"
    assert "tiny-llama" in condition["message"]
    world.kubectl.run("delete", "modelversion", "plato-v92")


def test_a_rank_beyond_the_engines_maximum_is_refused(world: World, first: Manifest) -> None:
    """Trained without serving, hence without the schema's check, and asked to be served afterwards."""
    job: Manifest = yaml.safe_load((EXAMPLES / "finetunejob-sft.yaml").read_text())
    job["metadata"]["name"] = "wide"
    del job["spec"]["serving"]
    job["spec"] |= {"model": "wide", "lora": {"r": 32, "alpha": 32}, "promotion": "Manual"}
    job["spec"]["training"] |= {"maxSteps": 2}
    world.kubectl.apply(job)
    world.kubectl.run("wait", "finetunejob/wide", "--for=condition=Succeeded", f"--timeout={TRAINING_TIMEOUT_SECONDS}s")
    serving = {"spec": {"serving": first["spec"]["serving"]}}
    world.kubectl.run("patch", "modelversion", "wide-v1", "--type", "merge", "--patch", yaml.safe_dump(serving))
    condition = wait_until_refused(world, "wide-v1")
    assert condition["reason"] == "RankTooLarge"
    assert "32" in condition["message"]
    world.kubectl.run("delete", "finetunejob/wide", "modelversion/wide-v1")
