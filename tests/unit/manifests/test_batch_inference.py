"""The Job that runs a dataset through served models."""

from typing import Any

import pytest

from finetune_operator.contract.batch_inference import BatchInferenceConfig, SamplingConfig, VotingConfig
from finetune_operator.contract.dataset import StoredSource
from finetune_operator.contract.places import BATCH_CONFIG_ANNOTATION, BATCH_CONTAINER, INTERNAL_TOKEN_VARIABLE
from finetune_operator.manifests.batch_inference import asked_models, batch_config, batch_job, batch_job_name
from finetune_operator.resources.batch_inference import BatchInference
from tests.builders import CONFIG, make_batch, make_test, make_version
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

RATINGS = {"secretRef": {"name": "ratings-db", "key": "url"}, "claimName": "ratings", "domain": "ethics"}
OBJECT = {"url": "s3://bucket/q.parquet", "endpoint": "http://store:9000", "secretRef": {"name": "store"}}
BATCHES: dict[str, BatchInference] = {
    "prompts": make_batch(),
    "beside-base": make_batch({"compareWith": {"base": True}, "dataset": {"volume": None, "ratings": RATINGS}}),
    "beside-version": make_batch(
        {
            "compareWith": {"modelVersion": "plato-v2"},
            "abTest": {"name": "duel", "maxPairs": 50},
            "dataset": {"volume": None, "s3": OBJECT, "format": "Alpaca"},
            "parameters": {"maxTokens": 64, "temperature": "0.7", "topP": "0.9", "seed": 7},
            "maxConcurrentRequests": 32,
            "limit": 500,
            "activeDeadlineSeconds": 3600,
        }
    ),
}
each_batch = pytest.mark.parametrize("name", BATCHES)


def config_of(batch: BatchInference) -> BatchInferenceConfig:
    return batch_config(batch, models_of(batch), CONFIG, make_test())


def models_of(batch: BatchInference) -> Any:
    other = batch.spec.compare_with and batch.spec.compare_with.model_version
    return asked_models(batch, make_version(1), make_version(2, {"serving": {"maxModelLen": 1024}}) if other else None)


def job_of(batch: BatchInference) -> dict[str, Any]:
    return batch_job(batch, models_of(batch), CONFIG, make_test())


@each_batch
def test_the_job_as_reviewed(name: str) -> None:
    assert_golden(f"batch-{name}", [job_of(BATCHES[name])])


@each_batch
def test_every_pod_is_restricted(name: str) -> None:
    assert pod_violations(job_of(BATCHES[name])["spec"]["template"]["spec"]) == []


@each_batch
def test_the_pod_reads_its_configuration_back(name: str) -> None:
    annotations = job_of(BATCHES[name])["spec"]["template"]["metadata"]["annotations"]
    read = BatchInferenceConfig.model_validate_json(annotations[BATCH_CONFIG_ANNOTATION])
    assert read == config_of(BATCHES[name])


@each_batch
def test_no_secret_is_in_the_configuration(name: str) -> None:
    text = config_of(BATCHES[name]).model_dump_json()
    assert not [secret for secret in ("ratings-db", "secret", "AWS") if secret in text]


def test_the_artifacts_are_mounted_to_write_and_the_dataset_to_read() -> None:
    (container,) = job_of(BATCHES["prompts"])["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert container["name"] == BATCH_CONTAINER
    assert mounts == {"config": True, "datasets": True, "artifacts": False, "tmp": False}


def test_each_model_is_asked_where_it_is_loaded() -> None:
    asked = {name: [model.served_name for model in models_of(batch)] for name, batch in BATCHES.items()}
    assert asked == {
        "prompts": ["plato-v1"],
        "beside-base": ["plato-v1", "tiny-llama"],
        "beside-version": ["plato-v1", "plato-v2"],
    }
    first, base = models_of(BATCHES["beside-base"])
    assert first.engine_url == base.engine_url
    first, other = models_of(BATCHES["beside-version"])
    assert first.engine_url != other.engine_url


def test_a_version_that_is_being_moved_is_asked_where_it_answers() -> None:
    moving = make_version(1, {"serving": {"maxModelLen": 1024}}, status={"engine": "vllm-former"})
    (asked,) = asked_models(BATCHES["prompts"], moving, None)
    assert asked.engine_url == "http://vllm-former.finetune.svc:8000"


def test_the_pairs_go_to_the_abtest_by_its_uid() -> None:
    wanted = VotingConfig(url="http://api.example:8080/internal/v1/abtests/uid-of-duel/pairs", max_pairs=50)
    assert config_of(BATCHES["beside-version"]).voting == wanted
    assert config_of(BATCHES["beside-base"]).voting is None


def test_parameters_are_numbers() -> None:
    wanted = SamplingConfig(max_tokens=64, temperature=0.7, top_p=0.9, seed=7)
    assert config_of(BATCHES["beside-version"]).sampling == wanted


@pytest.mark.parametrize(
    ("name", "alone", "record_format"), [("prompts", True, "ChatML"), ("beside-version", False, "Alpaca")]
)
def test_the_format_of_the_rows(name: str, alone: bool, record_format: str) -> None:
    config = config_of(BATCHES[name])
    assert (config.prompts_alone, config.dataset.format) == (alone, record_format)


def test_what_the_api_keeps_is_fetched_from_it() -> None:
    path = f"chatml-{'0' * 32}/train.jsonl"
    batch = make_batch({"dataset": {"volume": None, "stored": {"path": path}, "format": "ChatML"}})
    url = f"http://api.example:8080/internal/v1/datasets/finetune/{path}"
    assert config_of(batch).dataset.source == StoredSource(path=path, url=url)
    (container,) = job_of(batch)["spec"]["template"]["spec"]["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {"config", "artifacts", "tmp"}
    assert INTERNAL_TOKEN_VARIABLE in {variable["name"] for variable in container["env"]}


def test_the_name_follows_from_the_uid() -> None:
    names = {batch_job_name(make_batch(uid=uid)) for uid in ("a", "b")}
    assert len(names) == 2
    assert len(batch_job_name(make_batch(name="b" * 52))) <= 63
