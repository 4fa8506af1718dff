"""Pods whose base model comes from the hub: what the training downloads, what is frozen, what the engine serves."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.contract.base_models import HubModel
from finetune_operator.contract.places import FETCH_CONTAINER, PREPARE_CONTAINER
from finetune_operator.manifests.preparation import preparation_job
from finetune_operator.manifests.serving import engine_manifests, engine_name
from finetune_operator.manifests.training import training_config, training_job
from finetune_operator.manifests.versions import model_version
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import COMMIT, CONFIG, HUB_MODEL, make_job, make_result, make_version, merged
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

MIRRORED = replace(
    CONFIG, base_models_claim="weights", hub_endpoint="https://hub.example", fetch_env={"HTTPS_PROXY": "http://proxy"}
)
OTHER_COMMIT = "d" * 40
JOB = make_job({"baseModel": HUB_MODEL, "serving": {"maxModelLen": 512}})


def hub_version(commit: str = COMMIT) -> ModelVersion:
    return make_version(1, {"baseModel": merged(HUB_MODEL, {"source": {"hub": {"revision": commit}}})})


def job_pod(job: FineTuneJob = JOB) -> dict[str, Any]:
    return dict(training_job(job, MIRRORED)["spec"]["template"]["spec"])


def engine_pod(version: ModelVersion) -> dict[str, Any]:
    return dict(engine_manifests(name_of(version), [version], [version], MIRRORED)[2]["spec"]["template"]["spec"])


def name_of(version: ModelVersion) -> str:
    assert version.spec.serving
    return engine_name(version.spec, version.spec.serving)


def published(job: FineTuneJob = JOB, commit: str = COMMIT) -> dict[str, Any]:
    result = make_result(base_model_commit=commit)
    uri = "volume://artifacts/finetune/plato/uid/adapter"
    return model_version(job, 3, uri, result, training_config(job, CONFIG), CONFIG.trainer_image)


PODS = {"job": job_pod(), "engine": engine_pod(hub_version())}
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS.keys())


def test_the_job_as_reviewed() -> None:
    assert_golden("job-of-hub-model", [training_job(JOB, MIRRORED)])


def test_a_preparation_downloads_the_model_after_it_made_the_dataset() -> None:
    pod = preparation_job(JOB, MIRRORED)["spec"]["template"]["spec"]
    own = job_pod()
    assert [container["name"] for container in (*pod["initContainers"], *pod["containers"])] == ["prepare", "fetch"]
    assert [*pod["initContainers"], *pod["containers"]] == own["initContainers"]
    mounted = {mount["name"] for each in own["initContainers"] for mount in each["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_model_version_as_reviewed() -> None:
    assert_golden("modelversion-of-hub-model", [published()])


def test_the_engine_as_reviewed() -> None:
    version = hub_version()
    assert_golden("engine-of-hub-model", engine_manifests(name_of(version), [version], [version], MIRRORED))


@each_pod
def test_every_pod_is_restricted(pod: dict[str, Any]) -> None:
    assert [line for line in pod_violations(pod) if "memory" not in line] == []


@each_pod
def test_the_fetching_container_alone_may_write_to_the_weights_and_sees_the_token(pod: dict[str, Any]) -> None:
    for container in (*pod["initContainers"], *pod["containers"]):
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
        fetches = container["name"] == FETCH_CONTAINER
        assert mount.get("readOnly", False) is not fetches
        assert ("HF_TOKEN" in str(container["env"])) is fetches


@each_pod
def test_a_pod_has_no_claim_twice(pod: dict[str, Any]) -> None:
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume
    ]
    assert len(claims) == len(set(claims))


def test_the_dataset_is_prepared_before_gigabytes_are_downloaded() -> None:
    assert [container["name"] for container in job_pod()["initContainers"]] == [PREPARE_CONTAINER, FETCH_CONTAINER]


def test_without_a_secret_there_is_no_token() -> None:
    open_model = make_job({"baseModel": merged(HUB_MODEL, {"source": {"hub": {"tokenSecretRef": None}}})})
    assert "HF_TOKEN" not in str(job_pod(open_model))


def test_the_trainer_learns_the_commit_from_the_fetch() -> None:
    config = training_config(JOB, CONFIG)
    assert config.base_model_hub == HubModel(id="Qwen/Qwen3-0.6B", revision="main")
    assert config.base_model_path == "/models/hub/Qwen/Qwen3-0.6B"


def test_a_version_names_the_commit_that_was_trained_on_and_how_to_get_it_again() -> None:
    hub = published()["spec"]["baseModel"]["source"]["hub"]
    assert hub == {"id": "Qwen/Qwen3-0.6B", "revision": COMMIT, "tokenSecretRef": {"name": "hub", "key": "token"}}
    assert JOB.spec.base_model.source.hub
    assert JOB.spec.base_model.source.hub.revision == "main"


def test_an_engine_serves_the_commit_that_its_version_names() -> None:
    (container,) = engine_pod(hub_version())["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--model") + 1] == f"/models/hub/Qwen/Qwen3-0.6B/{COMMIT}"


def test_versions_of_two_commits_have_two_engines() -> None:
    assert name_of(hub_version(COMMIT)) != name_of(hub_version(OTHER_COMMIT))
