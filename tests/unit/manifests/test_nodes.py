"""A training in several processes: what its Job has besides a plain one's, and the Service of its pods."""

from typing import Any

import pytest

from finetune_operator.core.endings import PEERS_LOST_EXIT_CODE, TERMINATED_EXIT_CODE
from finetune_operator.manifests.nodes import processes_per_node, rendezvous_service
from finetune_operator.manifests.training import training_config, training_job, training_job_name, training_labels
from finetune_operator.resources.finetunejob import FineTuneJob
from tests.builders import CONFIG, make_job
from tests.golden_files import assert_golden
from tests.helm.pod_security import pod_violations

TWO_GPUS = {"resources": {"limits": {"nvidia.com/gpu": 2}}}
JOBS: dict[str, FineTuneJob] = {
    "on-two-nodes": make_job(TWO_GPUS | {"nodes": 2, "backend": "HuggingFace"}),
    "on-two-gpus": make_job(TWO_GPUS),
}
PROCESSES: dict[str, tuple[dict[str, Any], int]] = {
    "no GPU": ({}, 1),
    "one GPU": ({"limits": {"nvidia.com/gpu": 1}}, 1),
    "four GPUs, as text": ({"limits": {"nvidia.com/gpu": "4"}}, 4),
    "GPUs that are only requested": ({"requests": {"nvidia.com/gpu": 2}}, 2),
    "slices of a GPU, between which NCCL has no way": ({"limits": {"nvidia.com/mig-1g.5gb": 2}}, 1),
    "none, on purpose": ({"limits": {"nvidia.com/gpu": 0}}, 1),
    "no number, which the API server refuses with the Job": ({"limits": {"nvidia.com/gpu": "many"}}, 1),
}


@pytest.mark.parametrize(("resources", "processes"), PROCESSES.values(), ids=PROCESSES.keys())
def test_each_gpu_has_a_process(resources: dict[str, Any], processes: int) -> None:
    assert processes_per_node(make_job({"resources": resources}).spec) == processes


@pytest.mark.parametrize("name", JOBS)
def test_the_job_as_reviewed(name: str) -> None:
    job = JOBS[name]
    service = rendezvous_service(job, training_job_name(job), training_labels(job))
    assert_golden(f"job-{name}", [*([service] if job.spec.nodes > 1 else []), training_job(job, CONFIG)])
    assert [v for v in pod_violations(_pod(job)) if "memory" not in v] == []


def test_one_node_with_one_process_is_started_as_ever() -> None:
    plain = training_job(make_job({"nodes": 1}), CONFIG)
    assert plain == training_job(make_job(), CONFIG)
    assert plain["spec"].keys().isdisjoint({"completionMode", "completions", "parallelism"})
    assert "subdomain" not in _pod(make_job())


def test_processes_on_one_node_need_neither_index_nor_service() -> None:
    job = JOBS["on-two-gpus"]
    assert "completionMode" not in training_job(job, CONFIG)["spec"]
    assert _arguments(job)[2:] == ["--processes-per-node", "2"]


def test_the_service_finds_the_pods_by_the_names_that_they_are_told() -> None:
    job = JOBS["on-two-nodes"]
    name = training_job_name(job)
    manifest = training_job(job, CONFIG)
    service = rendezvous_service(job, name, training_labels(job))
    template = manifest["spec"]["template"]
    assert service["metadata"]["name"] == template["spec"]["subdomain"] == manifest["metadata"]["name"] == name
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    arguments = _arguments(job)
    assert arguments[arguments.index("--leader") + 1] == f"{name}-0.{name}:{port['port']}"
    assert arguments[arguments.index("--address") + 1] == f"{name}-$(JOB_COMPLETION_INDEX).{name}"


def test_a_pod_that_lost_another_is_not_counted_as_a_try() -> None:
    """Only the pod that was the cause is: its own exit code decides."""
    rules = training_job(JOBS["on-two-nodes"], CONFIG)["spec"]["podFailurePolicy"]["rules"]
    ignored = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "Ignore" and "onExitCodes" in rule]
    assert ignored == [[PEERS_LOST_EXIT_CODE, TERMINATED_EXIT_CODE]]


def test_the_pod_is_told_how_many_train() -> None:
    assert training_config(JOBS["on-two-nodes"], CONFIG).processes == 4
    assert training_config(make_job(), CONFIG).processes is None


def test_the_memory_of_one_gpu_bounds_each_process() -> None:
    typed = {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}}}
    assert training_config(make_job(TWO_GPUS | typed | {"nodes": 2}), CONFIG).gpu_type == "NVIDIA-L4"


def test_names_of_pods_fit_for_the_longest_name_that_is_admitted() -> None:
    assert len(training_job_name(make_job(name="n" * 52)) + "-9") <= 63
    assert len(training_job_name(make_job(name="n" * 51)) + "-15") <= 63


def _pod(job: FineTuneJob) -> dict[str, Any]:
    pod: dict[str, Any] = training_job(job, CONFIG)["spec"]["template"]["spec"]
    return pod


def _arguments(job: FineTuneJob) -> list[str]:
    arguments: list[str] = _pod(job)["containers"][0]["args"]
    return arguments
