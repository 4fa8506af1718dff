"""Which Job a FineTuneJob gets, how its phase follows that Job's pods, and how it is suspended."""

from datetime import timedelta

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import CONFIG_PROBLEMS, IMAGE_PROBLEMS, pod_facts
from finetune_operator.manifests.training import training_job, training_job_name
from finetune_operator.reconcile.finetunejob import Observed, is_finished
from finetune_operator.reconcile.plan import Create, Patch, Plan
from finetune_operator.reconcile.training_outlook import OBSTACLE_REMEDIES
from finetune_operator.resources.finetunejob import Phase
from tests.builders import CONFIG, NOON, REPORT, Object, after, make_job, running, terminated, training_pod, waiting
from tests.unit.reconcile.trainings import (
    COMPLETE,
    JOB,
    PREPARED,
    STATUS_OF_TRAINING,
    SUCCEEDED_POD,
    TRAINING_POD,
    UID,
    assert_failed,
    decide,
    seen,
    status_of,
)


class TestStart:
    def test_a_new_job_gets_its_kubernetes_job(self) -> None:
        plan = decide(JOB, Observed())
        assert plan.actions == (Create("jobs", training_job(JOB, CONFIG), UID),)
        status = status_of(plan)
        assert (status.phase, status.job_name, status.start_time) == (Phase.PENDING, training_job_name(JOB), NOON)
        assert [event.reason for event in plan.events] == ["JobCreated"]

    def test_one_that_is_suspended_from_the_start_gets_none_until_it_is_resumed(self) -> None:
        plan = decide(make_job({"suspend": True}), Observed())
        assert plan.actions == ()
        assert (status_of(plan).phase, status_of(plan).attempts) == (Phase.SUSPENDED, None)
        assert isinstance(decide(after(JOB, plan), Observed()).actions[0], Create)

    def test_a_pod_of_an_earlier_kubernetes_job_must_have_ended(self) -> None:
        """Two attempts of one training never write to the same volume at a time."""
        ending = Observed(pods=(pod_facts(TRAINING_POD),))
        plan = decide(JOB, ending)
        assert plan.actions == ()
        assert status_of(plan).phase is Phase.PENDING
        assert "to end" in (status_of(plan).message or "")

    def test_a_name_with_dots_is_a_name_of_a_kubernetes_job(self) -> None:
        job = make_job(name="plato.ethics.v1")
        assert after(job, decide(job, Observed())).status.job_name == training_job_name(job)

    def test_a_job_of_that_name_that_is_not_ours_is_left_alone(self) -> None:
        plan = decide(JOB, seen(owner="uid-of-somebody-else"))
        assert plan.actions == ()
        assert_failed(plan, FailureReason.NAME_TAKEN, "give this FineTuneJob another name")

    def test_deleting_plans_nothing(self) -> None:
        job = make_job(deleting=True)
        for world in (Observed(), seen(TRAINING_POD), seen(SUCCEEDED_POD, conditions=(COMPLETE,))):
            assert decide(job, world) == Plan()


PHASES: dict[str, tuple[tuple[Object, ...], Phase, str]] = {
    "no pod yet": ((), Phase.PENDING, "Starting"),
    "a pod without a node": (
        (
            training_pod(
                phase="Pending",
                conditions=(
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"},
                ),
            ),
        ),
        Phase.PENDING,
        "Unschedulable",
    ),
    "no image": (
        (training_pod(phase="Pending", prepare=PREPARED, trainer=waiting("ErrImagePull")),),
        Phase.PENDING,
        "ErrImagePull",
    ),
    "no image, between two tries": (
        (training_pod(phase="Pending", prepare=PREPARED, trainer=waiting("ImagePullBackOff")),),
        Phase.PENDING,
        "ErrImagePull",
    ),
    "preparing": ((training_pod(phase="Pending", prepare=running()),), Phase.PREPARING, "Preparing"),
    "prepared, the trainer is about to start": (
        (training_pod(phase="Pending", prepare=PREPARED, trainer=waiting("PodInitializing")),),
        Phase.PREPARING,
        "Preparing",
    ),
    "training": ((TRAINING_POD,), Phase.TRAINING, "Training"),
    "ended well, the Job does not know yet": ((SUCCEEDED_POD,), Phase.TRAINING, "Training"),
    "failed, Kubernetes tries again": (
        (training_pod(phase="Failed", prepare=PREPARED, trainer=terminated(1, "CUDA error")),),
        Phase.PENDING,
        "Retrying",
    ),
    "failed, and the next attempt trains": (
        (training_pod("pod-1", phase="Failed", trainer=terminated(1)), training_pod("pod-2", trainer=running())),
        Phase.TRAINING,
        "Training",
    ),
}


class TestFollow:
    @pytest.mark.parametrize(("seconds", "told"), [(1, False), (4, False), (5, True), (600, True)])
    def test_a_short_preparation_is_not_told(self, seconds: int, told: bool) -> None:
        """Each phase told costs a write, and most datasets are ready at once."""
        started_at = (NOON - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pod = training_pod(phase="Pending", prepare={"running": {"startedAt": started_at}})
        plan = decide(make_job(status={"phase": "Pending"}), seen(pod))
        if told:
            assert status_of(plan).phase is Phase.PREPARING
        else:
            assert plan == Plan(requeue_after_seconds=5 - seconds)

    @pytest.mark.parametrize(("pods", "phase", "reason"), PHASES.values(), ids=PHASES.keys())
    @pytest.mark.parametrize("before", [{}, STATUS_OF_TRAINING], ids=["new", "trained before"])
    def test_the_phase_follows_the_pods(
        self, pods: tuple[Object, ...], phase: Phase, reason: str, before: Object
    ) -> None:
        plan = decide(make_job(status=before), seen(*pods))
        status = status_of(plan)
        assert status.phase is phase
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == reason
        assert plan.actions == ()
        assert not is_finished(after(JOB, plan))

    def test_why_it_does_not_start_is_in_the_message(self) -> None:
        pod = training_pod(phase="Pending", prepare=waiting("CreateContainerConfigError", 'secret "x" not found'))
        message = 'secret "x" not found: it starts as soon as what it names is there'
        assert status_of(decide(JOB, seen(pod))).message == message

    @pytest.mark.parametrize("cause", ["", ": ErrImagePull: not found"], ids=["an older kubelet", "a newer kubelet"])
    def test_a_missing_image_is_told_once_however_often_it_is_pulled(self, cause: str) -> None:
        def pending(reason: str, message: str) -> Observed:
            return seen(training_pod(phase="Pending", prepare=waiting(reason, message)))

        failed = pending("ErrImagePull", "not found")
        job = after(JOB, decide(JOB, failed))
        assert (job.status.message or "").startswith("not found: check image.trainer")
        back_off = pending("ImagePullBackOff", f'Back-off pulling image "trainer:1"{cause}')
        for world in (back_off, failed, back_off):
            assert decide(job, world).status == job.status.to_dict()

    @pytest.mark.parametrize("reason", sorted(IMAGE_PROBLEMS | CONFIG_PROBLEMS | {"Unschedulable"}))
    def test_each_of_them_has_a_remedy(self, reason: str) -> None:
        assert OBSTACLE_REMEDIES[reason]

    def test_the_start_of_training_is_told_once(self) -> None:
        plan = decide(JOB, seen(TRAINING_POD))
        assert [event.reason for event in plan.events] == ["TrainingStarted"]
        assert decide(after(JOB, plan), seen(TRAINING_POD)).events == ()

    def test_only_a_training_job_is_looked_at_again_by_itself(self) -> None:
        assert decide(JOB, seen(TRAINING_POD)).requeue_after_seconds == CONFIG.poll_seconds
        assert decide(JOB, seen()).requeue_after_seconds is None

    def test_the_dataset_is_known_as_soon_as_it_is_prepared(self) -> None:
        status = status_of(decide(JOB, seen(TRAINING_POD)))
        assert status.dataset is not None
        assert (status.dataset.rows, status.dataset.test_rows, status.dataset.digest) == (90, 10, REPORT.digest)
        assert is_true(status.conditions, "DatasetReady")

    def test_a_retry_keeps_its_dataset(self) -> None:
        job = after(JOB, decide(JOB, seen(TRAINING_POD)))
        status = status_of(decide(job, seen(training_pod(phase="Pending"))))
        assert is_true(status.conditions, "DatasetReady")

    def test_attempts_count_the_pods_and_never_shrink(self) -> None:
        failed = training_pod("pod-1", phase="Failed", trainer=terminated(1))
        job = after(JOB, decide(JOB, seen(failed, training_pod("pod-2"))))
        assert job.status.attempts == 2
        assert status_of(decide(job, seen(training_pod("pod-2")))).attempts == 2


def suspension(mark: str | None) -> Object:
    """A merge patch that suspends or starts the Job, and marks by whom."""
    return {"metadata": {"annotations": {"finetune.dev/suspended": mark}}, "spec": {"suspend": mark is not None}}


class TestSuspend:
    def test_suspending_stops_the_kubernetes_job(self) -> None:
        job = make_job({"suspend": True}, status=STATUS_OF_TRAINING)
        plan = decide(job, seen(TRAINING_POD))
        assert plan.actions == (Patch("jobs", "plato-ethics-1", suspension("true")),)
        status = status_of(plan)
        assert status.phase is Phase.SUSPENDED
        assert is_true(status.conditions, "Suspended")
        assert find(status.conditions, "Reconciling") is None
        assert status.message is not None
        assert "spec.suspend" in status.message

    def test_it_is_done_once(self) -> None:
        assert decide(make_job({"suspend": True}), seen(suspended=True)).actions == ()

    def test_going_on_starts_it_again(self) -> None:
        suspended = after(JOB, decide(make_job({"suspend": True}), seen(suspended=True)))
        plan = decide(suspended, seen(suspended=True))
        assert plan.actions == (Patch("jobs", "plato-ethics-1", suspension(None)),)
        status = status_of(plan)
        assert status.phase is Phase.PENDING
        assert find(status.conditions, "Suspended") is None
        assert is_true(status.conditions, "Reconciling")
