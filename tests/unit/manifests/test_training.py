"""The Kubernetes Job of a FineTuneJob, and the ModelVersion that it publishes."""

from typing import Any

import pytest

from finetune_operator.contract.dataset import StoredSource
from finetune_operator.contract.failures import EXIT_CODES
from finetune_operator.contract.places import CONFIG_ANNOTATION
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.manifests.preparation import preparation_job
from finetune_operator.manifests.training import training_config, training_job, training_job_name
from finetune_operator.manifests.versions import model_version, next_version
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobSpec
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, RATINGS, make_job, make_result, make_version, merged
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

SERVING = {"maxModelLen": 512, "resources": {"limits": {"nvidia.com/gpu": 1}}}
JOBS: dict[str, FineTuneJob] = {
    "sft-from-ratings": make_job(),
    "sft-on-gpu": make_job(
        {
            "dataset": {"ratings": merged(RATINGS, {"claimName": "ratings", "minRating": 5, "limit": 1000})},
            "lora": {"r": 8, "targetModules": ["q_proj", "v_proj"]},
            "training": {"epochs": 1, "maxSteps": 50, "learningRate": "5e-5"},
            "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "24Gi"}, "requests": {"memory": "16Gi"}},
            "scheduling": {
                "nodeSelector": {"gpu": "a100"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "serving": SERVING,
            "promotion": "Always",
            "activeDeadlineSeconds": 7200,
            "ttlSecondsAfterFinished": 600,
        }
    ),
    "dpo-from-volume": make_job(
        {
            "method": "DPO",
            "backend": "HuggingFace",
            "dataset": {"ratings": None, "volume": {"claimName": "datasets", "path": "pairs.jsonl"}},
            "training": {"dpoBeta": "0.2", "quantization": "none"},
            "suspend": True,
        }
    ),
    "sft-from-the-api": make_job(
        {
            "dataset": {
                "ratings": None,
                "stored": {
                    "path": f"file-{'0' * 32}/data.jsonl",
                    "validationPath": f"chatml-{'1' * 32}/test.jsonl",
                },
            }
        }
    ),
}
each_job = pytest.mark.parametrize("name", JOBS)


def pod_of(job: FineTuneJob) -> dict[str, Any]:
    pod: dict[str, Any] = training_job(job, CONFIG)["spec"]["template"]["spec"]
    return pod


TYPED = {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}}
GPUS: dict[str, tuple[dict[str, Any], str | None]] = {
    "one": ({"limits": {"nvidia.com/gpu": 1}}, "NVIDIA-L4"),
    "one, as text": ({"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}, "NVIDIA-L4"),
    "two, each with a copy of the model": ({"limits": {"nvidia.com/gpu": 2}}, "NVIDIA-L4"),
    "a slice of one": ({"limits": {"nvidia.com/mig-1g.5gb": 1}}, None),
    "none, on a node that has some": ({"limits": {"cpu": 4}}, None),
}


@pytest.mark.parametrize(("resources", "told"), GPUS.values(), ids=GPUS.keys())
def test_the_memory_of_one_gpu_bounds_what_trains_on_whole_ones(resources: dict[str, Any], told: str | None) -> None:
    assert training_config(make_job(TYPED | {"resources": resources}), CONFIG).gpu_type == told


@each_job
def test_the_job_as_reviewed(name: str) -> None:
    assert_golden(f"job-{name}", [training_job(JOBS[name], CONFIG)])


def test_the_preparation_as_reviewed() -> None:
    job = JOBS["sft-on-gpu"]
    assert_golden("preparation-sft-on-gpu", [preparation_job(job, CONFIG)])


def test_the_preparation_needs_no_node_with_a_gpu() -> None:
    selector = {"nvidia.com/gpu.product": "NVIDIA-L4", "zone": "b"}
    job = make_job({"resources": {"limits": {"nvidia.com/gpu": 1}}, "scheduling": {"nodeSelector": selector}})
    pod = preparation_job(job, CONFIG)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"zone": "b"}
    assert "nvidia.com" not in str([pod["containers"], pod["nodeSelector"]])
    assert [line for line in pod_violations(pod) if "memory" not in line] == []


@each_job
def test_the_model_version_as_reviewed(name: str) -> None:
    job = JOBS[name]
    uri = "volume://artifacts/finetune/plato/uid/adapter"
    body = model_version(job, 3, uri, make_result(), training_config(job, CONFIG), CONFIG.trainer_image)
    assert_golden(f"modelversion-{name}", [body])
    parsed = ModelVersion.parse(body | {"metadata": body["metadata"] | {"uid": "uid-of-v3"}})
    assert parsed.spec.serving == job.spec.serving
    assert "ownerReferences" not in body["metadata"]


@each_job
def test_every_pod_is_restricted(name: str) -> None:
    assert [line for line in pod_violations(pod_of(JOBS[name])) if "memory" not in line] == []


@each_job
def test_no_shell_runs_anywhere(name: str) -> None:
    pod = pod_of(JOBS[name])
    for container in (*pod["initContainers"], *pod["containers"]):
        assert "command" not in container
        assert not {"sh", "bash", "-c"} & set(container["args"])


@each_job
def test_the_pod_reads_its_configuration_back(name: str) -> None:
    annotations = training_job(JOBS[name], CONFIG)["spec"]["template"]["metadata"]["annotations"]
    read = TrainingConfig.model_validate_json(annotations[CONFIG_ANNOTATION])
    assert read == training_config(JOBS[name], CONFIG)
    assert read.job.uid == JOBS[name].metadata.uid


@each_job
def test_only_the_preparation_sees_the_database(name: str) -> None:
    (trainer,) = pod_of(JOBS[name])["containers"]
    assert "ratings-db" not in str(trainer)


def test_only_the_preparation_sees_the_stores_credentials_and_by_reference_alone() -> None:
    stored = {"url": "s3://bucket/rows.parquet", "endpoint": "http://store:9000", "secretRef": {"name": "store"}}
    pod = pod_of(make_job({"dataset": {"ratings": None, "s3": stored}}))
    (prepare,) = pod["initContainers"]
    references = {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in prepare["env"]
        if "valueFrom" in variable and variable["name"] != "FINETUNE_INTERNAL_TOKEN"
    }
    assert references == {
        name: {"name": "store", "key": name} for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    assert all("AWS" not in variable["name"] for container in pod["containers"] for variable in container["env"])


def test_the_preparation_fetches_from_the_api_for_its_own_namespace() -> None:
    job = JOBS["sft-from-the-api"]
    source = training_config(job, CONFIG).dataset.source
    assert isinstance(source, StoredSource)
    assert source.url == f"{CONFIG.api_url}/internal/v1/datasets/{job.metadata.namespace}/file-{'0' * 32}/data.jsonl"


@pytest.mark.parametrize(("name", "is_optional"), [("sft-from-the-api", False), ("sft-from-ratings", True)])
def test_the_preparation_needs_the_apis_token_for_its_files_and_not_for_its_log(name: str, is_optional: bool) -> None:
    (prepare,) = pod_of(JOBS[name])["initContainers"]
    (token,) = (variable for variable in prepare["env"] if variable["name"] == "FINETUNE_INTERNAL_TOKEN")
    assert token["valueFrom"]["secretKeyRef"].get("optional", False) is is_optional


@pytest.mark.parametrize(
    ("difference", "points"),
    [({}, 1), ({"minRatingDifference": 2}, 2), ({"minConfidenceDiff": "0.5"}, 2), ({"minConfidenceDiff": "0.75"}, 3)],
    ids=str,
)
def test_pairs_are_apart_by_points_or_by_a_share_of_the_scale(difference: dict[str, Any], points: int) -> None:
    job = make_job({"method": "DPO", "dataset": difference})
    assert training_config(job, CONFIG).dataset.min_rating_difference == points


def test_a_job_without_a_dataset_exports_gold_stars_from_the_database_of_the_namespace() -> None:
    spec = make_job().spec.model_dump(by_alias=True, exclude={"dataset"})
    dataset = FineTuneJobSpec.model_validate(spec).dataset
    assert dataset.ratings is not None
    assert (dataset.ratings.secret_ref.name, dataset.ratings.secret_ref.key) == ("ratings-db", "url")
    assert dataset.ratings.gold_star_only


def test_the_name_follows_from_the_uid() -> None:
    assert training_job_name(make_job(uid="a")) == training_job_name(make_job(uid="a", generation=2))
    assert training_job_name(make_job(uid="a")) != training_job_name(make_job(uid="b"))
    assert len(training_job_name(make_job(name="n" * 52))) <= 63


def test_labels_of_the_resource_are_not_copied() -> None:
    labelled = make_job(labels={"argocd.argoproj.io/instance": "demo", "app": "mine"})
    assert training_job(labelled, CONFIG) == training_job(make_job(), CONFIG)


def test_the_label_of_a_kueue_queue_goes_to_the_job_alone_which_waits_for_kueue() -> None:
    queued = training_job(make_job(labels={"kueue.x-k8s.io/queue-name": "gpus"}), CONFIG)
    plain = training_job(make_job(), CONFIG)
    assert queued["metadata"]["labels"] == plain["metadata"]["labels"] | {"kueue.x-k8s.io/queue-name": "gpus"}
    assert (queued["spec"]["suspend"], plain["spec"]["suspend"]) == (True, False)
    assert queued["spec"]["template"] == plain["spec"]["template"]


def test_the_priority_class_is_the_pods() -> None:
    assert pod_of(make_job({"scheduling": {"priorityClassName": "research"}}))["priorityClassName"] == "research"


def test_the_job_is_owned_and_controlled_by_its_resource() -> None:
    (owner,) = training_job(make_job(), CONFIG)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("FineTuneJob", "uid-of-plato-ethics", True)


def test_disruptions_do_not_count_and_hopeless_failures_are_not_tried_again() -> None:
    disruption, asked, hopeless = training_job(make_job(), CONFIG)["spec"]["podFailurePolicy"]["rules"]
    assert disruption == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert asked == {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [143]}}
    assert hopeless["action"] == "FailJob"
    assert set(hopeless["onExitCodes"]["values"]) == set(EXIT_CODES.values())
    assert hopeless["onExitCodes"]["values"] == sorted(hopeless["onExitCodes"]["values"])


def test_axolotl_trains_in_an_image_of_its_own() -> None:
    (trainer,) = training_job(make_job({"backend": "Axolotl"}), CONFIG)["spec"]["template"]["spec"]["containers"]
    assert trainer["image"] == CONFIG.axolotl_image != CONFIG.trainer_image


def test_a_job_without_an_api_reports_nowhere() -> None:
    quiet = CONFIG.__class__(operator_image="o", trainer_image="t", server_image="s")
    assert training_config(make_job(), quiet).progress_url is None


def test_numbers_count_within_a_family_from_one() -> None:
    assert next_version("plato", [], []) == 1
    assert next_version("plato", [make_version(3), make_version(1), make_version(8, {"model": "kant"})], []) == 4


def test_a_number_that_a_job_had_published_does_not_come_back_with_its_version_deleted() -> None:
    assert next_version("plato", [make_version(3)], ["plato-v5", "plato-v2", "kant-v9", "plato-vx-v7"]) == 6
