"""The Job of a training at a provider, and the ModelVersion that it publishes."""

from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.contract.places import CONFIG_ANNOTATION, PROVIDER_KEY_VARIABLE, TRAINER_CONTAINER
from finetune_operator.contract.remote import RemoteConfig, RemoteModel
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.manifests.cancellation import cancellation_job, cancellation_job_name
from finetune_operator.manifests.common import JOB_NAME_LABEL, JOB_UID_LABEL
from finetune_operator.manifests.remote import TOKEN_DIRECTORY, TOKEN_VOLUME
from finetune_operator.manifests.serving import adapter_of
from finetune_operator.manifests.training import training_config, training_job, training_job_name
from finetune_operator.manifests.versions import model_version
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, make_job, make_result
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

MODEL = "gpt-4.1-mini-2025-04-14"
FINE_TUNED = f"ft:{MODEL}:org:plato:AbCd"
URL = "https://api.openai.com/v1"
TUNER = "http://tuner.ml.svc:8080/v1"
PROVIDER: dict[str, Any] = {"secretRef": {"name": "openai", "key": "api-key"}, "learningRateMultiplier": "0.5"}
AT_PROVIDER: dict[str, Any] = {
    "backend": "OpenAI",
    "openai": PROVIDER,
    "baseModel": {"name": "gpt-4.1-mini", "source": {"volume": None, "openai": {"model": MODEL}}},
}
JOBS: dict[str, FineTuneJob] = {
    "sft": make_job(AT_PROVIDER),
    "dpo": make_job(
        AT_PROVIDER
        | {
            "method": "DPO",
            "openai": PROVIDER | {"baseUrl": TUNER, "suffix": "p", "learningRateMultiplier": None},
            "resources": {"requests": {"cpu": "10m"}},
        }
    ),
}  # fmt: skip
PRICED = CONFIG.__class__(
    operator_image="o", trainer_image="t", server_image="s", prices=PriceBook(per_million_tokens={MODEL: Decimal("5")})
)
REMOTE = RemoteModel(base_url=URL, model=FINE_TUNED, job="ftjob-1", trained_tokens=1500, cost=Decimal("0.0075"))
each_job = pytest.mark.parametrize("name", JOBS)


def pod_of(job: FineTuneJob) -> dict[str, Any]:
    pod: dict[str, Any] = training_job(job, CONFIG)["spec"]["template"]["spec"]
    return pod


def published(job: FineTuneJob) -> dict[str, Any]:
    result = make_result(adapter_digest=None, remote=REMOTE)
    return model_version(job, 3, "volume://unused/x", result, training_config(job, CONFIG), CONFIG.trainer_image)


@each_job
def test_the_job_as_reviewed(name: str) -> None:
    assert_golden(f"job-{name}-at-provider", [training_job(JOBS[name], CONFIG)])


@each_job
def test_the_model_version_as_reviewed(name: str) -> None:
    body = published(JOBS[name])

    assert_golden(f"modelversion-{name}-at-provider", [body])
    version = ModelVersion.parse(body | {"metadata": body["metadata"] | {"uid": "uid-of-v3"}})
    with pytest.raises(ValueError, match="is no adapter"):
        adapter_of(version)


@each_job
def test_every_pod_is_restricted_and_bounded(name: str) -> None:
    assert [line for line in pod_violations(pod_of(JOBS[name])) if "memory" not in line] == []
    assert pod_violations(pod_of(JOBS["sft"])) == []


@each_job
def test_only_the_process_at_work_has_the_key_and_the_token(name: str) -> None:
    pod = pod_of(JOBS[name])
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        at_work = container["name"] == TRAINER_CONTAINER
        variables = {variable["name"]: variable for variable in container["env"]}
        assert (PROVIDER_KEY_VARIABLE in variables) is at_work
        assert (TOKEN_VOLUME in {mount["name"] for mount in container["volumeMounts"]}) is at_work
        assert (TOKEN_DIRECTORY in {mount["mountPath"] for mount in container["volumeMounts"]}) is at_work
    secret = variables[PROVIDER_KEY_VARIABLE]
    assert secret["valueFrom"] == {"secretKeyRef": {"name": "openai", "key": "api-key"}}
    assert "api-key" not in str(training_job(JOBS[name], CONFIG)["spec"]["template"]["metadata"])


@each_job
def test_no_model_is_mounted_and_no_shell_runs(name: str) -> None:
    pod = pod_of(JOBS[name])
    assert "models" not in {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert "command" not in container
        assert "models" not in {mount["name"] for mount in container["volumeMounts"]}


@each_job
def test_the_pod_reads_its_configuration_back(name: str) -> None:
    annotations = training_job(JOBS[name], CONFIG)["spec"]["template"]["metadata"]["annotations"]
    read = TrainingConfig.model_validate_json(annotations[CONFIG_ANNOTATION])
    assert read == training_config(JOBS[name], CONFIG)


def test_the_provider_is_told_what_the_spec_says() -> None:
    assert training_config(JOBS["sft"], PRICED).remote == RemoteConfig(
        base_url=URL, model=MODEL, suffix="plato", learning_rate_multiplier=0.5, price_per_million_tokens=Decimal("5")
    )
    assert training_config(JOBS["dpo"], CONFIG).remote == RemoteConfig(base_url=TUNER, model=MODEL, suffix="p")


def cancellation(name: str) -> dict[str, Any]:
    provider = JOBS[name].spec.openai
    assert provider is not None
    return cancellation_job(JOBS[name], provider, CONFIG)


@each_job
def test_the_cancellation_as_reviewed(name: str) -> None:
    assert_golden(f"cancellation-{name}", [cancellation(name)])


@each_job
def test_a_cancellation_is_restricted_bounded_and_outlives_its_job(name: str) -> None:
    manifest = cancellation(name)
    pod = manifest["spec"]["template"]["spec"]
    assert pod_violations(pod) == []
    assert "ownerReferences" not in manifest["metadata"]
    assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished"} <= manifest["spec"].keys()
    (container,) = pod["containers"]
    (secret,) = [variable for variable in container["env"] if "secretKeyRef" in variable.get("valueFrom", {})]
    assert secret["valueFrom"] == {"secretKeyRef": {"name": "openai", "key": "api-key"}}


@each_job
def test_its_pods_are_not_those_of_the_training_whose_time_is_counted(name: str) -> None:
    manifest = cancellation(name)
    assert manifest["metadata"]["labels"][JOB_NAME_LABEL] == JOBS[name].metadata.name
    assert JOB_UID_LABEL not in manifest["spec"]["template"]["metadata"]["labels"]
    assert cancellation_job_name(JOBS[name]) != training_job_name(JOBS[name])
    assert len(cancellation_job_name(make_job(AT_PROVIDER, name="x" * 52))) <= 63
