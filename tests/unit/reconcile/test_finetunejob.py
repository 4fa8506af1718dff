"""The life of a FineTuneJob, decided from what is seen."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import JobIdentity, Progress
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import CONFIG_PROBLEMS, IMAGE_PROBLEMS, job_facts, pod_facts
from finetune_operator.manifests.training import training_job, training_job_name
from finetune_operator.reconcile.finetunejob import Observed, is_finished, reconcile, refused, wants_progress
from finetune_operator.reconcile.plan import Create, Delete, Patch, Plan
from finetune_operator.reconcile.training_outlook import OBSTACLE_REMEDIES
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import (
    CONFIG,
    DIGEST,
    NOON,
    REPORT,
    Object,
    after,
    job_body,
    job_condition,
    make_failure,
    make_job,
    make_result,
    make_version,
    running,
    terminated,
    training_pod,
    waiting,
    wire,
)

JOB = make_job()
UID = JOB.metadata.uid
COMPLETE = job_condition("Complete")
FAILED = job_condition("Failed", "PodFailurePolicy", "container trainer failed")
PREPARED = terminated(0, wire(REPORT))
RESULT = make_result()
SUCCEEDED_POD = training_pod(phase="Succeeded", prepare=PREPARED, trainer=terminated(0, wire(RESULT)))
TRAINING_POD = training_pod(prepare=PREPARED, trainer=running())


def suspension(mark: str | None) -> Object:
    """A merge patch that suspends or starts the Job, and marks by whom."""
    return {"metadata": {"annotations": {"finetune.dev/suspended": mark}}, "spec": {"suspend": mark is not None}}


STATUS_OF_TRAINING = {
    "phase": "Training",
    "jobName": "plato-ethics-1",
    "startTime": "2026-01-01T11:00:00Z",
    "progress": {"summary": "50%", "percent": 50, "eta": "20m", "etaSeconds": 1200},
}


def seen(
    *pods: Object,
    conditions: tuple[Object, ...] = (),
    versions: tuple[ModelVersion, ...] = (),
    progress: Progress | None = None,
    owner: str = UID,
    suspended: bool = False,
) -> Observed:
    """A world in which the Job exists."""
    body = job_body(owner, suspended=suspended, conditions=conditions)
    return Observed(job_facts(body), tuple(pod_facts(pod) for pod in pods), versions, progress)


def decide(job: FineTuneJob, world: Observed) -> Plan:
    return reconcile(job, world, NOON, CONFIG)


def status_of(plan: Plan) -> FineTuneJobStatus:
    assert plan.status is not None
    return FineTuneJobStatus.model_validate(plan.status)


def measured(step: int = 402, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "step": step,
        "total_steps": 600,
        "epoch": 2.0,
        "total_epochs": 3.0,
        "loss": 0.234,
        "best_loss": 0.189,
        "eta_seconds": 1200,
    }
    identity = JobIdentity(namespace="finetune", name=JOB.metadata.name, uid=UID)
    return Progress(job=identity, attempt="pod-1", time=NOON, **(values | changes))


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


class TestProgress:
    def test_what_a_measurement_looks_like(self) -> None:
        progress = status_of(decide(JOB, seen(TRAINING_POD, progress=measured()))).progress
        assert progress is not None
        assert progress.to_dict() == {
            "summary": "67%",
            "percent": 67,
            "step": 402,
            "totalSteps": 600,
            "epoch": "2.0",
            "totalEpochs": "3.0",
            "loss": "0.234",
            "bestLoss": "0.189",
            "etaSeconds": 1200,
            "eta": "20m",
            "lastUpdateTime": "2026-01-01T12:00:00Z",
        }

    @pytest.mark.parametrize(("seconds", "step"), [(0, 402), (9, 402), (10, 402), (12, 450), (600, 450)])
    def test_at_most_one_write_in_ten_seconds(self, seconds: int, step: int) -> None:
        job = after(JOB, decide(JOB, seen(TRAINING_POD, progress=measured(402))))
        later = NOON + timedelta(seconds=seconds)
        plan = reconcile(job, seen(TRAINING_POD, progress=measured(450)), later, CONFIG)
        progress = status_of(plan).progress
        assert progress is not None
        assert progress.step == step

    def test_the_same_measurement_is_not_written_again(self) -> None:
        world = seen(TRAINING_POD, progress=measured())
        job = after(JOB, decide(JOB, world))
        later = reconcile(job, world, NOON + timedelta(hours=1), CONFIG)
        assert later.status == job.status.to_dict()

    def test_no_news_changes_nothing(self) -> None:
        job = after(JOB, decide(JOB, seen(TRAINING_POD, progress=measured())))
        assert status_of(decide(job, seen(TRAINING_POD, progress=None))).progress == job.status.progress

    @pytest.mark.parametrize(
        "world",
        [
            seen(training_pod(phase="Failed", trainer=terminated(1))),
            seen(training_pod(phase="Failed", trainer=terminated(137)), conditions=(FAILED,)),
        ],
        ids=["retrying", "failed"],
    )
    def test_what_does_not_run_has_no_remaining_time(self, world: Observed) -> None:
        progress = status_of(decide(make_job(status=STATUS_OF_TRAINING), world)).progress
        assert progress is not None
        assert (progress.percent, progress.eta, progress.eta_seconds) == (50, None, None)

    def test_the_api_is_asked_only_while_the_trainer_runs(self) -> None:
        assert wants_progress(make_job(status={"phase": "Training"}))
        assert not wants_progress(make_job(status={"phase": "Preparing"}))
        assert not wants_progress(make_job(status={"phase": "Training"}, deleting=True))


class TestPublish:
    @pytest.mark.parametrize(("backend", "image"), [("Unsloth", "trainer:1"), ("Axolotl", "trainer-axolotl:1")])
    def test_a_version_names_the_image_that_trained_it(self, backend: str, image: str) -> None:
        (create,) = decide(make_job({"backend": backend}), seen(SUCCEEDED_POD, conditions=(COMPLETE,))).actions
        assert isinstance(create, Create)
        assert create.body["spec"]["lineage"]["trainerImage"] == f"registry.example/{image}"

    def test_a_result_becomes_a_model_version(self) -> None:
        plan = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,)))
        (create,) = plan.actions
        assert isinstance(create, Create)
        assert (create.plural, create.body["metadata"]["name"], create.owner_uid) == ("modelversions", "plato-v1", UID)
        assert create.body["spec"]["artifact"] == {
            "uri": f"volume://artifacts/finetune/plato/{UID}/adapter",
            "digest": DIGEST,
        }
        assert create.body["spec"]["lineage"]["jobUid"] == UID
        status = status_of(plan)
        assert (status.phase, status.model_version, status.completion_time) == (Phase.SUCCEEDED, "plato-v1", NOON)
        assert status.progress is not None
        assert (status.progress.percent, status.progress.eta) == (100, "0s")
        assert status.result is not None
        assert (status.result.test_loss, status.result.base_test_loss) == ("0.3", "2.5")
        for type_ in ("DatasetReady", "Trained", "Published", "Succeeded", "Ready"):
            assert is_true(status.conditions, type_), type_
        assert find(status.conditions, "Reconciling") is None
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Published")]

    def test_the_next_number_counts_the_own_family_only(self) -> None:
        others = (
            make_version(1),
            make_version(7),
            make_version(9, {"model": "kant"}),
        )
        (create,) = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,), versions=others)).actions
        assert isinstance(create, Create)
        assert create.body["metadata"]["name"] == "plato-v8"

    def test_the_loser_of_a_race_for_a_number_takes_the_next(self) -> None:
        """The API server refuses the second plato-v1; the executor remembers whose it is, and the plan is made anew."""
        first = decide(JOB, seen(SUCCEEDED_POD, conditions=(COMPLETE,))).actions[0]
        assert isinstance(first, Create)
        rival = make_job(name="plato-logic")
        made = ModelVersion.parse(first.body | {"metadata": first.body["metadata"] | {"uid": "uid-of-v1"}})
        world = seen(SUCCEEDED_POD, conditions=(COMPLETE,), owner=rival.metadata.uid, versions=(made,))
        (second,) = decide(rival, world).actions
        assert isinstance(second, Create)
        assert second.body["metadata"]["name"] == "plato-v2"

    @pytest.mark.parametrize(
        "world",
        [
            seen(SUCCEEDED_POD, conditions=(COMPLETE,), versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
            seen(conditions=(COMPLETE,), versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
            Observed(versions=(make_version(4, {"lineage": {"jobUid": UID}}),)),
        ],
        ids=["pods there", "pods gone", "job gone"],
    )
    def test_a_version_made_before_a_crash_is_adopted(self, world: Observed) -> None:
        plan = decide(JOB, world)
        assert plan.actions == ()
        assert (status_of(plan).phase, status_of(plan).model_version) == (Phase.SUCCEEDED, "plato-v4")

    def test_a_job_whose_pods_are_gone_asks_again(self) -> None:
        plan = decide(JOB, seen(conditions=(COMPLETE,)))
        assert plan == Plan(actions=(Delete("jobs", "plato-ethics-1", "uid-of-plato-ethics-1"),))
        assert isinstance(decide(JOB, Observed()).actions[0], Create)

    def test_a_pod_whose_end_is_not_yet_seen_is_waited_for(self) -> None:
        """Job and pod come by different watches, in any order."""
        assert decide(make_job(status=STATUS_OF_TRAINING), seen(TRAINING_POD, conditions=(COMPLETE,))) == Plan()

    def test_a_trainer_that_left_no_result_is_not_asked_for_ever(self) -> None:
        silent = training_pod(phase="Succeeded", prepare=PREPARED, trainer=terminated(0, "bye"))
        plan = decide(JOB, seen(silent, conditions=(COMPLETE,)))
        assert plan.actions == ()
        assert_failed(plan, FailureReason.TRAINER_FAILED, "use a trainer image of the operator's own release")


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


class TestFinished:
    @pytest.mark.parametrize("type_", ["Succeeded", "Stalled"])
    @pytest.mark.parametrize("world", [Observed(), seen(TRAINING_POD), seen(conditions=(FAILED,))])
    def test_nothing_happens_to_a_finished_job_any_more(self, type_: str, world: Observed) -> None:
        condition = {
            "type": type_,
            "status": "True",
            "reason": "Published",
            "message": "",
            "lastTransitionTime": "2026-01-01T11:00:00Z",
        }
        job = make_job(status={"conditions": [condition]}, generation=2)
        assert decide(job, world) == Plan(status=job.status.to_dict() | {"observedGeneration": 2})


def assert_failed(plan: Plan, reason: FailureReason, hint: str) -> None:
    """Final, with the reason for programs, and for people the remedy."""
    status = status_of(plan)
    assert (status.phase, status.completion_time) == (Phase.FAILED, NOON)
    stalled = find(status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.status, stalled.reason) == (ConditionStatus.TRUE, reason.value)
    for type_ in ("Trained", "Succeeded", "Ready", "Published"):
        found = find(status.conditions, type_)
        assert found is not None
        assert (found.status, found.reason) == (ConditionStatus.FALSE, reason.value)
    assert find(status.conditions, "Reconciling") is None
    assert status.message is not None
    assert hint in status.message
    assert is_finished(after(JOB, plan))
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", reason.value)]
    assert plan.requeue_after_seconds is None


CONTAINERS = st.sampled_from(
    [
        None,
        running(),
        waiting("PodInitializing"),
        waiting("ImagePullBackOff", "no such image"),
        terminated(0, wire(RESULT)),
        terminated(0, wire(REPORT)),
        terminated(0, "bye"),
        terminated(1, "Traceback"),
        terminated(44, wire(make_failure(FailureReason.DATASET_EMPTY))),
        terminated(137, reason="OOMKilled"),
    ]
)
PODS = st.builds(
    training_pod,
    st.sampled_from(["pod-1", "pod-2"]),
    prepare=CONTAINERS,
    trainer=CONTAINERS,
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    created=st.sampled_from(["2026-01-01T11:30:00Z", "2026-01-01T11:40:00Z"]),
)
WORLDS = st.one_of(
    st.just(Observed()),
    st.builds(
        lambda pods, conditions, versions, progress, suspended: seen(
            *pods, conditions=conditions, versions=versions, progress=progress, suspended=suspended
        ),
        st.lists(PODS, max_size=2),
        st.sampled_from([(), (COMPLETE,), (FAILED,), (job_condition("Failed", "DeadlineExceeded"),)]),
        st.sampled_from([(), (make_version(1),), (make_version(2, {"lineage": {"jobUid": UID}}),)]),
        st.sampled_from([None, measured(1), measured(402), measured(600, loss=None, eta_seconds=None)]),
        st.booleans(),
    ),
)
STEPS = st.lists(st.tuples(WORLDS, st.booleans(), st.integers(min_value=1, max_value=3600)), min_size=1, max_size=4)


@given(STEPS)
def test_nothing_changes_means_no_write_and_times_move_with_status_only(
    steps: list[tuple[Observed, bool, int]],
) -> None:
    """However a job got where it is: the same world again plans no other status, whatever the clock says."""
    job, now = JOB, NOON
    for world, suspend, seconds in steps:
        now += timedelta(seconds=seconds)
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"suspend": suspend})})
        plan = reconcile(job, world, now, CONFIG)
        if plan.status is None:
            continue
        before, job = job, after(job, plan)
        for entry in job.status.conditions:
            old = find(before.status.conditions, entry.type)
            assert (entry.last_transition_time == now) or (old is not None and old.status is entry.status)
        again = reconcile(job, world, now + timedelta(seconds=5), CONFIG)
        if not any(isinstance(action, Create) and action.plural == "jobs" for action in plan.actions):
            assert again.status == job.status.to_dict()
            assert again.events == ()


@given(STEPS)
def test_a_finished_job_stays_as_it_is(steps: list[tuple[Observed, bool, int]]) -> None:
    job, now = JOB, NOON
    for world, _, seconds in steps:
        now += timedelta(seconds=seconds)
        plan = reconcile(job, world, now, CONFIG)
        if is_finished(job):
            assert plan == Plan(status=job.status.to_dict())
        if plan.status is not None:
            job = after(job, plan)
