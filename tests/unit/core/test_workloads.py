"""What is read of Jobs, Pods and Deployments."""

from collections.abc import Mapping
from typing import Any

import pytest

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import SIGKILL_EXIT_CODE, Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER, TRAINER_CONTAINER
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.workloads import (
    PodFacts,
    dataset_report,
    deployment_facts,
    job_facts,
    last_line,
    last_words,
    last_words_of,
    obstacle,
    out_of_memory,
    pod_facts,
    told_by,
    training_outcome,
)
from tests.builders import (
    REPORT,
    deployment_body,
    job_body,
    job_condition,
    make_batch_report,
    make_failure,
    make_result,
    pod_body,
    running,
    terminated,
    training_pod,
    waiting,
    wire,
)

EARLIER, LATER = "2026-01-01T11:00:00Z", "2026-01-01T11:30:00Z"
DISRUPTED = ({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},)
RESULT = make_result()
EMPTY = make_failure(FailureReason.DATASET_EMPTY)
GATED = make_failure(FailureReason.BASE_MODEL_UNAVAILABLE)


def facts(*bodies: Mapping[str, Any]) -> tuple[PodFacts, ...]:
    return tuple(pod_facts(body) for body in bodies)


def test_a_pod_that_was_just_made_has_no_status_yet() -> None:
    pod = pod_facts({"metadata": {"name": "pod-1", "uid": "uid-1"}})
    assert (pod.phase, pod.ip, pod.ready, pod.deleting, pod.disrupted) == ("Pending", None, False, False, False)
    assert pod.container("any").exit_code is None


def test_a_pods_state() -> None:
    body = training_pod(
        prepare=terminated(0, "done"),
        trainer=running(),
        conditions=({"type": "Ready", "status": "True"}, *DISRUPTED),
    )
    body["metadata"]["deletionTimestamp"] = LATER
    pod = pod_facts(body)
    assert (pod.ip, pod.ready, pod.deleting, pod.disrupted) == ("10.0.0.1", True, True, True)
    assert (pod.container(PREPARE_CONTAINER).exit_code, pod.container(PREPARE_CONTAINER).message) == (0, "done")
    assert pod.container(TRAINER_CONTAINER).running


def test_a_container_that_waits_to_restart_tells_how_it_ended() -> None:
    body = pod_body(main={"vllm": waiting("CrashLoopBackOff")})
    body["status"]["containerStatuses"][0]["lastState"] = terminated(1, "no such model")
    container = pod_facts(body).container("vllm")
    assert (container.waiting_reason, container.exit_code, container.message) == (
        "CrashLoopBackOff",
        1,
        "no such model",
    )


JOBS: dict[str, tuple[tuple[dict[str, Any], ...], bool, str | None]] = {
    "just made": ((), False, None),
    "complete": ((job_condition("Complete"),), True, None),
    "as good as complete": ((job_condition("SuccessCriteriaMet"),), True, None),
    "failed": ((job_condition("Failed", "BackoffLimitExceeded"),), False, "BackoffLimitExceeded"),
    "failing, its pods still end": ((job_condition("FailureTarget", "PodFailurePolicy"),), False, "PodFailurePolicy"),
    "a condition that no longer holds": (({"type": "Failed", "status": "False", "reason": "Was"},), False, None),
}


@pytest.mark.parametrize(("conditions", "complete", "failed"), JOBS.values(), ids=JOBS.keys())
def test_a_jobs_state(conditions: tuple[dict[str, Any], ...], complete: bool, failed: str | None) -> None:
    job = job_facts(job_body("uid-of-owner", suspended=True, conditions=conditions))
    assert (job.complete, job.failed_reason) == (complete, failed)
    assert job.suspended
    assert job.owner_uids == {"uid-of-owner"}


def test_a_deployments_state() -> None:
    stuck = {"type": "Progressing", "status": "False", "message": "quota exceeded"}
    deployment = deployment_facts(
        deployment_body("vllm-1", revision="r1", replicas=3, conditions=(stuck,)), "finetune.dev/revision"
    )
    assert (deployment.revision, deployment.wanted_replicas, deployment.ready_replicas) == ("r1", 3, 0)
    assert deployment.progress_failure == "quota exceeded"
    assert not deployment.deadline_exceeded


def test_a_deployment_that_is_late() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    body = deployment_body("vllm-1", conditions=(late,))
    body["spec"]["progressDeadlineSeconds"] = 60
    deployment = deployment_facts(body, "finetune.dev/revision")
    assert (deployment.deadline_exceeded, deployment.progress_deadline_seconds) == (True, 60)


CUT_SHORT = RESULT.model_copy(update={"evaluation": EvaluationReport(error="cut short")})
OUTCOMES: dict[str, tuple[tuple[dict[str, Any], ...], TrainingResult | Failure | None]] = {
    "no pods": ((), None),
    "still running": ((training_pod(trainer=running()),), None),
    "a result": ((training_pod(prepare=terminated(0, wire(REPORT)), trainer=terminated(0, wire(RESULT))),), RESULT),
    "the trainer gave up": ((training_pod(trainer=terminated(44, wire(EMPTY))),), EMPTY),
    "the download gave up": (
        (training_pod(prepare=terminated(0, wire(REPORT)), fetch=terminated(46, wire(GATED))),),
        GATED,
    ),
    "a download that is tried again": (
        (training_pod(prepare=terminated(0, wire(REPORT)), fetch=terminated(1, "the hub can't be reached")),),
        None,
    ),
    "the preparation gave up": ((training_pod(prepare=terminated(44, wire(EMPTY))),), EMPTY),
    "a crash without a message of ours": ((training_pod(trainer=terminated(1, "Traceback ...")),), None),
    "a second attempt succeeded": (
        (
            training_pod("pod-2", created=LATER, trainer=terminated(0, wire(RESULT))),
            training_pod("pod-1", created=EARLIER, trainer=terminated(1, "Traceback ...")),
        ),
        RESULT,
    ),
    "what is published stays so, whatever follows": (
        (
            training_pod("pod-1", created=EARLIER, trainer=terminated(143, wire(RESULT))),
            training_pod("pod-2", created=LATER, prepare=terminated(44, wire(EMPTY))),
        ),
        RESULT,
    ),
    "the newest result has the say": (
        (
            training_pod("pod-1", created=EARLIER, trainer=terminated(143, wire(CUT_SHORT))),
            training_pod("pod-2", created=LATER, trainer=terminated(0, wire(RESULT))),
        ),
        RESULT,
    ),
    "killed after it had published": (
        (training_pod(trainer=terminated(SIGKILL_EXIT_CODE, wire(CUT_SHORT), reason="OOMKilled")),),
        CUT_SHORT,
    ),
    "ended well, though a child of it was killed": (
        (training_pod(trainer=terminated(0, wire(RESULT), reason="OOMKilled")),),
        RESULT,
    ),
    "killed by the kernel": (
        (training_pod(trainer=terminated(SIGKILL_EXIT_CODE, reason="OOMKilled")),),
        out_of_memory(TRAINER_CONTAINER),
    ),
    "killed, and the kubelet missed why": (
        (training_pod(prepare=terminated(SIGKILL_EXIT_CODE)),),
        Failure(
            reason=FailureReason.KILLED,
            message="container prepare was killed (exit code 137); Kubernetes does not say by whom",
            remedy="if its node was short of memory, set spec.resources.requests.memory to what the training needs",
        ),
    ),
    "evicted for what it wrote to its own disk": (
        (
            training_pod(
                trainer=terminated(SIGKILL_EXIT_CODE), reason="Evicted", message="Pod ephemeral local storage usage"
            ),
        ),
        Failure(
            reason=FailureReason.STORAGE_EXCEEDED,
            message="Pod ephemeral local storage usage",
            remedy="raise spec.resources.limits.ephemeral-storage",
        ),
    ),
    "a child of the trainer was killed": (
        (training_pod(trainer=terminated(1, reason="OOMKilled")),),
        out_of_memory(TRAINER_CONTAINER),
    ),
    "killed as its node was drained": (
        (training_pod(trainer=terminated(SIGKILL_EXIT_CODE), conditions=DISRUPTED),),
        None,
    ),
}


@pytest.mark.parametrize(("pods", "expected"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_a_trainings_outcome(pods: tuple[dict[str, Any], ...], expected: TrainingResult | Failure | None) -> None:
    assert training_outcome(facts(*pods)) == expected


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", ""),
        ("loading\nNo space left on device\n\n", "No space left on device"),
        (
            "1 error\n  Value error, 4096 is too long\n    For further information visit https://x/v\n",
            "Value error, 4096 is too long",
        ),
    ],
)
def test_the_last_line_is_what_a_process_said(message: str, told: str) -> None:
    assert last_line(message) == told


def test_out_of_memory_says_what_to_change() -> None:
    failure = out_of_memory(TRAINER_CONTAINER)
    assert failure.reason is FailureReason.OUT_OF_MEMORY
    assert "137" in failure.message
    assert "spec.resources.limits.memory" in failure.remedy
    assert "batchSize" in failure.remedy


REPORTS: dict[str, tuple[tuple[dict[str, Any], ...], DatasetReport | None]] = {
    "no pods": ((), None),
    "being prepared": ((training_pod(prepare=running()),), None),
    "prepared": ((training_pod(prepare=terminated(0, wire(REPORT))),), REPORT),
    "not prepared": ((training_pod(prepare=terminated(44, wire(EMPTY))),), None),
    "an unreadable report": ((training_pod(prepare=terminated(0, "{}")),), None),
}


@pytest.mark.parametrize(("pods", "expected"), REPORTS.values(), ids=REPORTS.keys())
def test_the_dataset_is_known_once_it_is_prepared(
    pods: tuple[dict[str, Any], ...], expected: DatasetReport | None
) -> None:
    assert dataset_report(facts(*pods)) == expected


WORDS: dict[str, tuple[tuple[dict[str, Any], ...], str]] = {
    "nobody failed": ((training_pod(trainer=terminated(0, "bye")),), ""),
    "the last line counts": (
        (training_pod(trainer=terminated(1, "Traceback ...\nValueError: no\n")),),
        "trainer exited with 1: ValueError: no",
    ),
    "silence": ((training_pod(prepare=terminated(2)),), "prepare exited with 2: no message"),
}


@pytest.mark.parametrize(("pods", "expected"), WORDS.values(), ids=WORDS.keys())
def test_last_words(pods: tuple[dict[str, Any], ...], expected: str) -> None:
    assert last_words(facts(*pods)) == expected


def asking_pod(name: str, state: dict[str, Any], minute: int = 30) -> dict[str, Any]:
    return pod_body(name, main={"batch": state}, created=f"2026-01-01T11:{minute}:00Z")


AWAY = make_failure(FailureReason.ENGINE_UNAVAILABLE)
TOLD: dict[str, tuple[tuple[dict[str, Any], ...], BatchReport | Failure | None]] = {
    "no pods": ((), None),
    "at work": ((asking_pod("a", running()),), None),
    "done": ((asking_pod("a", terminated(0, wire(make_batch_report()))),), make_batch_report()),
    "gave up": ((asking_pod("a", terminated(1, wire(AWAY))),), AWAY),
    "unreadable": ((asking_pod("a", terminated(0, "{}")),), None),
    "the newest counts": (
        (asking_pod("b", terminated(0, wire(make_batch_report())), 40), asking_pod("a", terminated(1, wire(AWAY)))),
        make_batch_report(),
    ),
    "one at work after one that gave up": (
        (asking_pod("b", running(), 40), asking_pod("a", terminated(1, wire(AWAY)))),
        AWAY,
    ),
}


@pytest.mark.parametrize(("pods", "expected"), TOLD.values(), ids=TOLD.keys())
def test_what_a_pod_told(pods: tuple[dict[str, Any], ...], expected: BatchReport | Failure | None) -> None:
    assert told_by("batch", facts(*pods), BatchReport) == expected


LAST: dict[str, tuple[tuple[dict[str, Any], ...], str]] = {
    "nobody failed": ((asking_pod("a", terminated(0, "bye")),), "the batch left no message"),
    "the last line counts": ((asking_pod("a", terminated(1, "x\nno")),), "the batch exited with 1: no"),
    "silence": ((asking_pod("a", terminated(2)),), "the batch exited with 2: no message"),
    "no memory": (
        (asking_pod("a", terminated(137, reason="OOMKilled")),),
        "the batch was killed: it used more memory than it may; ask less",
    ),
}


@pytest.mark.parametrize(("pods", "expected"), LAST.values(), ids=LAST.keys())
def test_the_last_words_of_one_container(pods: tuple[dict[str, Any], ...], expected: str) -> None:
    assert last_words_of("batch", facts(*pods), "ask less") == expected


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no GPU"}
BACK_OFF = 'Back-off pulling image "registry.example/trainer:1"'
OBSTACLES: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "none": (training_pod(trainer=running()), None),
    "starting": (training_pod(prepare=waiting("PodInitializing")), None),
    "no node": (training_pod(conditions=(UNSCHEDULABLE,)), ("Unschedulable", "0/1 nodes: no GPU")),
    "no image": (training_pod(trainer=waiting("ErrImagePull", "not found")), ("ErrImagePull", "not found")),
    "no image, between two tries": (
        training_pod(trainer=waiting("ImagePullBackOff", f"{BACK_OFF}: ErrImagePull: not found")),
        ("ErrImagePull", "not found"),
    ),
    "no image, between two tries of an older kubelet": (
        training_pod(trainer=waiting("ImagePullBackOff", BACK_OFF)),
        ("ErrImagePull", BACK_OFF),
    ),
    "no secret": (
        training_pod(prepare=waiting("CreateContainerConfigError", 'secret "ratings-db" not found')),
        ("CreateContainerConfigError", 'secret "ratings-db" not found'),
    ),
}


@pytest.mark.parametrize(("pod", "expected"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_obstacle(pod: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert obstacle(facts(pod)) == expected
