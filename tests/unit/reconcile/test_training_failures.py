"""Why a training has failed, and what is said of the remedy."""

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.conditions import find, is_true
from finetune_operator.reconcile.finetunejob import is_finished, refused
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import Phase
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    job_condition,
    make_failure,
    make_job,
    terminated,
    training_pod,
    wire,
)
from tests.unit.reconcile.trainings import (
    FAILED,
    JOB,
    PREPARED,
    STATUS_OF_TRAINING,
    TRAINING_POD,
    assert_failed,
    decide,
    seen,
    status_of,
)

FAILURES: dict[str, tuple[Object, Object, FailureReason, str]] = {
    **{
        reason.value: (
            FAILED,
            training_pod(phase="Failed", trainer=terminated(42, wire(make_failure(reason, remedy=f"mend {reason}")))),
            reason,
            f"mend {reason}",
        )
        for reason in FailureReason
    },
    "out of memory": (
        FAILED,
        training_pod(phase="Failed", trainer=terminated(137, reason="OOMKilled")),
        FailureReason.OUT_OF_MEMORY,
        "raise spec.resources.limits.memory",
    ),
    "killed, and nobody says by whom": (
        FAILED,
        training_pod(phase="Failed", trainer=terminated(137)),
        FailureReason.KILLED,
        "set spec.resources.requests.memory",
    ),
    "the preparation is killed": (
        FAILED,
        training_pod(phase="Failed", prepare=terminated(137, reason="OOMKilled")),
        FailureReason.OUT_OF_MEMORY,
        "container prepare",
    ),
    "too slow": (
        job_condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline"),
        training_pod(phase="Failed", trainer=terminated(143)),
        FailureReason.DEADLINE_EXCEEDED,
        "raise spec.activeDeadlineSeconds",
    ),
    "too slow, and too slow to stop": (
        job_condition("Failed", "DeadlineExceeded"),
        training_pod(phase="Failed", trainer=terminated(137)),
        FailureReason.DEADLINE_EXCEEDED,
        "raise spec.activeDeadlineSeconds",
    ),
    "crashed too often": (
        job_condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"),
        training_pod(phase="Failed", trainer=terminated(1, "Traceback\nRuntimeError: CUDA error")),
        FailureReason.TRAINER_FAILED,
        "RuntimeError: CUDA error",
    ),
}


class TestFailure:
    @pytest.mark.parametrize(("job", "pod", "reason", "hint"), FAILURES.values(), ids=FAILURES.keys())
    def test_reason_and_remedy(self, job: Object, pod: Object, reason: FailureReason, hint: str) -> None:
        plan = decide(make_job(status=STATUS_OF_TRAINING), seen(pod, conditions=(job,)))
        assert plan.actions == ()
        assert_failed(plan, reason, hint)

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            (FailureReason.DATASET_EMPTY, ConditionStatus.FALSE),
            (FailureReason.DATASET_TOO_SMALL, ConditionStatus.FALSE),
            (FailureReason.DATASET_INVALID, ConditionStatus.FALSE),
            (FailureReason.DATABASE_UNREACHABLE, ConditionStatus.FALSE),
            (FailureReason.BASE_MODEL_NOT_FOUND, ConditionStatus.UNKNOWN),
        ],
    )
    def test_whose_fault_it_is(self, reason: FailureReason, expected: ConditionStatus) -> None:
        pod = training_pod(phase="Failed", prepare=terminated(44, wire(make_failure(reason))))
        ready = find(status_of(decide(JOB, seen(pod, conditions=(FAILED,)))).conditions, "DatasetReady")
        assert ready is not None
        assert ready.status is expected

    def test_a_dataset_stays_ready_when_the_trainer_fails(self) -> None:
        pod = training_pod(phase="Failed", prepare=PREPARED, trainer=terminated(137))
        assert is_true(status_of(decide(JOB, seen(pod, conditions=(FAILED,)))).conditions, "DatasetReady")

    def test_pods_that_are_gone_leave_the_jobs_own_words(self) -> None:
        assert_failed(decide(JOB, seen(conditions=(FAILED,))), FailureReason.TRAINER_FAILED, "container trainer failed")

    def test_a_pod_whose_end_is_not_yet_seen_is_waited_for(self) -> None:
        failed = FAILED | {"lastTransitionTime": "2026-01-01T12:00:00Z"}
        plan = decide(make_job(status=STATUS_OF_TRAINING), seen(TRAINING_POD, conditions=(failed,)))
        assert plan == Plan(requeue_after_seconds=70)

    def test_a_drained_node_is_nobodys_fault(self) -> None:
        disrupted = ({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},)
        pod = training_pod(phase="Failed", prepare=PREPARED, trainer=terminated(137), conditions=disrupted)
        plan = decide(make_job(status=STATUS_OF_TRAINING), seen(pod))
        assert status_of(plan).phase is Phase.PENDING
        assert not is_finished(after(JOB, plan))

    def test_a_message_of_any_length_fits_the_schema(self) -> None:
        failure = make_failure(FailureReason.DATASET_INVALID, message="x" * 5000)
        pod = training_pod(phase="Failed", prepare=terminated(43, wire(failure)))
        assert len(status_of(decide(JOB, seen(pod, conditions=(FAILED,)))).message or "") == 4096


def test_a_job_that_the_api_server_refuses_is_final_and_says_why() -> None:
    words = "spec.template.spec.containers[0].resources.requests: must be less than memory limit"
    plan = refused(JOB, words, NOON, CONFIG)
    assert plan.actions == ()
    assert_failed(plan, FailureReason.INVALID_CONFIG, "must be less than memory limit")
