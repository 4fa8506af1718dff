"""The Job that measures a served version."""

from typing import Any

import pytest

from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.places import EVALUATION_CONFIG_ANNOTATION, JobPaths
from finetune_operator.contract.served_evaluation import SaturationConfig, ServedEvaluationConfig
from finetune_operator.manifests.asking import FINAL_EXIT_CODES
from finetune_operator.manifests.evaluation import (
    evaluation_config,
    evaluation_id,
    evaluation_job,
    evaluation_job_name,
)
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, make_version
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

RATINGS = {"secretRef": {"name": "ratings-db", "key": "url"}, "claimName": "ratings", "domain": "ethics"}
STORED = {"url": "s3://bucket/q.parquet", "endpoint": "http://store:9000", "secretRef": {"name": "store"}}
VERSIONS: dict[str, ModelVersion] = {
    "held-out": make_version(3, {"evaluation": {"metrics": ["RougeL", "TokenAccuracy"], "maxExamples": 20}}),
    "from-ratings": make_version(3, {"evaluation": {"metrics": ["F1"], "dataset": {"ratings": RATINGS}}}),
    "from-volume": make_version(
        3,
        {
            "evaluation": {
                "metrics": ["F1"],
                "concurrency": 16,
                "dataset": {"volume": {"claimName": "questions", "path": "q.jsonl"}, "format": "Alpaca"},
            }
        },
    ),
    "from-store": make_version(3, {"evaluation": {"metrics": ["F1"], "dataset": {"s3": STORED}}}),
}
each_version = pytest.mark.parametrize("name", VERSIONS)


def job_of(version: ModelVersion) -> dict[str, Any]:
    identity = evaluation_id(version.spec)
    assert identity is not None
    return evaluation_job(version, identity, CONFIG)


@each_version
def test_the_job_as_reviewed(name: str) -> None:
    assert_golden(f"evaluation-{name}", [job_of(VERSIONS[name])])


@each_version
def test_every_pod_is_restricted(name: str) -> None:
    assert pod_violations(job_of(VERSIONS[name])["spec"]["template"]["spec"]) == []


@each_version
def test_the_pod_reads_its_configuration_back(name: str) -> None:
    annotations = job_of(VERSIONS[name])["spec"]["template"]["metadata"]["annotations"]
    read = ServedEvaluationConfig.model_validate_json(annotations[EVALUATION_CONFIG_ANNOTATION])
    assert read == evaluation_config(VERSIONS[name], CONFIG)


@each_version
def test_no_secret_is_in_the_configuration(name: str) -> None:
    text = evaluation_config(VERSIONS[name], CONFIG).model_dump_json()
    assert not [secret for secret in ("ratings-db", "secret", "AWS") if secret in text]


def test_the_evaluator_saturates_the_engine_only_where_that_is_asked_for() -> None:
    asked = make_version(3, {"evaluation": {"metrics": ["F1"], "saturation": {"maxConcurrency": 64}}})
    wanted = SaturationConfig(step_seconds=30, max_concurrency=64)
    assert evaluation_config(asked, CONFIG).saturation == wanted
    assert evaluation_config(VERSIONS["held-out"], CONFIG).saturation is None


def test_the_held_out_rows_are_where_the_trainer_left_them() -> None:
    paths = JobPaths("finetune", "plato", "job-3")
    assert evaluation_config(VERSIONS["held-out"], CONFIG).rows_path == str(paths.test_rows)


def test_the_name_follows_from_version_and_evaluation() -> None:
    identity = "0123456789ab"
    names = {
        evaluation_job_name(make_version(3, uid=uid), identity=each) for uid in ("a", "b") for each in (identity, "x")
    }
    assert len(names) == 4
    longest = make_version(999_999, {"model": "m" * 40})
    assert len(evaluation_job_name(longest, identity)) <= 63
    assert evaluation_job_name(longest, identity) == evaluation_job_name(longest, identity)


def test_the_engine_being_away_is_tried_again_and_all_else_that_is_told_is_not() -> None:
    assert FailureReason.ENGINE_UNAVAILABLE not in EXIT_CODES
    told = (
        FailureReason.INVALID_CONFIG,
        FailureReason.ENGINE_REFUSED,
        FailureReason.DATASET_INVALID,
        FailureReason.DATASET_EMPTY,
        FailureReason.DATABASE_UNREACHABLE,
    )
    assert {EXIT_CODES[reason] for reason in told} <= set(FINAL_EXIT_CODES)
