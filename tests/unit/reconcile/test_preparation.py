"""A training that wants a GPU: dataset and base model are there before one is taken."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.preflight import Preflight
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import JobFacts, job_facts, pod_facts
from finetune_operator.manifests.preparation import preparation_job, preparation_job_name, wants_device
from finetune_operator.manifests.training import training_job, training_job_name
from finetune_operator.reconcile.finetunejob import Observed, reconcile
from finetune_operator.reconcile.plan import Create, Delete, Patch, Plan
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from tests.builders import (
    CONFIG,
    NOON,
    REPORT,
    Object,
    after,
    job_body,
    job_condition,
    make_failure,
    make_job,
    pod_body,
    prepared,
    running,
    terminated,
    waiting,
    wire,
)

GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
JOB = make_job(GPU)
UID = JOB.metadata.uid
NAME = preparation_job_name(JOB)
COMPLETE, FAILED = job_condition("Complete"), job_condition("Failed", "PodFailurePolicy", "prepare failed")
DEVICES: dict[str, tuple[Object, bool]] = {
    "a GPU": (GPU, True),
    "a GPU that is only requested": ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, True),
    "a GPU of another vendor": ({"resources": {"limits": {"amd.com/gpu": 1}}}, True),
    "a slice of a GPU": ({"resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}, True),
    "none": ({}, False),
    "none, on purpose": ({"resources": {"limits": {"nvidia.com/gpu": 0}}}, False),
    "what every node has": ({"resources": {"limits": {"cpu": 4, "memory": "8Gi", "ephemeral-storage": "1Gi"}}}, False),
}


def pod(state: Object, *, phase: str = "Running", **options: Any) -> Object:
    """Of the preparation; of a model of a volume, its only container is `prepare`."""
    return pod_body("preparing", phase=phase, main={"prepare": state}, **options)


def world(*pods: Object, conditions: tuple[Object, ...] = (), owner: str = UID, **options: Any) -> Observed:
    """Before the training's own Job."""
    body = job_body(owner, name=NAME, conditions=conditions, **options)
    return Observed(preparation=job_facts(body), preparation_pods=tuple(pod_facts(each) for each in pods))


def decide(job: FineTuneJob, seen: Observed) -> Plan:
    return reconcile(job, seen, NOON, CONFIG)


def status_of(plan: Plan) -> FineTuneJobStatus:
    return FineTuneJobStatus.model_validate(plan.status)


@pytest.mark.parametrize(("spec", "wanted"), DEVICES.values(), ids=DEVICES.keys())
def test_what_is_scarce(spec: Object, wanted: bool) -> None:
    job = make_job(spec)
    made = preparation_job(job, CONFIG) if wanted else training_job(job, CONFIG)
    assert wants_device(job.spec) is wanted
    assert decide(job, Observed()).actions == (Create("jobs", made, UID),)


def test_at_a_provider_nothing_is_taken() -> None:
    job = make_job(GPU)
    spec = job.spec.model_copy(update={"openai": object()})
    assert not wants_device(spec)


def test_it_is_told_which_job_works_and_that_no_attempt_has_begun() -> None:
    status = status_of(decide(JOB, Observed()))
    assert (status.phase, status.job_name, status.attempts) == (Phase.PENDING, NAME, None)


PRESENT: dict[str, tuple[Observed, Phase, str]] = {
    "no pod yet": (world(), Phase.PENDING, "Starting"),
    "rows are exported": (world(pod(running())), Phase.PREPARING, "Preparing"),
    "its image can't be pulled": (
        world(pod(waiting("ErrImagePull", "no"), phase="Pending")),
        Phase.PENDING,
        "ErrImagePull",
    ),
    "it is tried again": (world(pod(terminated(1), phase="Failed")), Phase.PENDING, "Retrying"),
    "Kueue has yet to admit it": (
        world(held=True, labels={"kueue.x-k8s.io/queue-name": "gpus"}),
        Phase.QUEUED,
        "Queued",
    ),
    "somebody holds it": (world(held=True), Phase.QUEUED, "Held"),
}


@pytest.mark.parametrize(("seen", "phase", "reason"), PRESENT.values(), ids=PRESENT.keys())
def test_meanwhile_it_says_how_it_goes_and_makes_nothing(seen: Observed, phase: Phase, reason: str) -> None:
    begun = after(JOB, decide(JOB, Observed()))
    plan = decide(begun, seen)
    status = status_of(plan)
    reconciling = find(status.conditions, "Reconciling")
    assert reconciling is not None
    assert (plan.actions, status.phase, reconciling.reason) == ((), phase, reason)
    assert decide(after(begun, plan), seen).status == plan.status


def test_a_queue_that_is_named_later_is_passed_on() -> None:
    labelled = make_job(GPU, labels={"kueue.x-k8s.io/queue-name": "gpus"})
    (patch,) = decide(labelled, world(held=True)).actions
    assert patch == Patch("jobs", NAME, {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}})


def test_a_pod_of_it_that_failed_and_is_followed_by_another_is_told_once() -> None:
    away = make_failure(FailureReason.DATABASE_UNREACHABLE)
    seen = world(pod(terminated(1, wire(away)), phase="Failed"))
    plan = decide(JOB, seen)
    last = status_of(plan).last_failure
    assert last is not None
    assert (last.pod, last.reason) == ("preparing", "DatabaseUnreachable")
    assert [event.reason for event in plan.events] == ["DatabaseUnreachable"]
    assert decide(after(JOB, plan), seen).events == ()


def test_between_the_end_of_its_pod_and_its_own_nothing_is_told() -> None:
    assert decide(JOB, world(pod(terminated(0, wire(REPORT)), phase="Succeeded"))) == Plan()


def test_once_all_is_there_the_training_begins_and_the_preflight_is_told() -> None:
    warned = REPORT.model_copy(update={"preflight": Preflight(warnings=("half of the rows are too long",))})
    done = pod(terminated(0, wire(warned)), phase="Succeeded")
    plan = decide(after(JOB, decide(JOB, Observed())), world(done, conditions=(COMPLETE,)))
    status = status_of(plan)
    assert plan.actions == (Create("jobs", training_job(JOB, CONFIG), UID),)
    assert status.job_name == training_job_name(JOB)
    assert status.dataset is not None
    assert status.dataset.rows == REPORT.rows
    assert [(event.reason, event.message) for event in plan.events] == [
        ("JobCreated", f"created Job {training_job_name(JOB)}"),
        ("Preflight", "half of the rows are too long"),
    ]


def test_what_it_refuses_fails_the_job_and_no_gpu_was_taken() -> None:
    failure = make_failure(FailureReason.DATASET_EMPTY)
    seen = world(pod(terminated(42, wire(failure)), phase="Failed"), conditions=(FAILED,))
    plan = decide(JOB, seen)
    status = status_of(plan)
    assert (plan.actions, status.phase, status.attempts) == ((), Phase.FAILED, None)
    assert status.allocation is not None
    assert (status.allocation.settled_seconds, status.allocation.pods) == (0, ())
    stalled, dataset = find(status.conditions, "Stalled"), find(status.conditions, "DatasetReady")
    assert stalled is not None
    assert stalled.reason == FailureReason.DATASET_EMPTY
    assert dataset is not None
    assert dataset.status == "False"


def test_a_job_of_that_name_that_is_not_ours_is_left_alone() -> None:
    plan = decide(JOB, world(owner="somebody"))
    stalled = find(status_of(plan).conditions, "Stalled")
    assert plan.actions == ()
    assert stalled is not None
    assert stalled.reason == FailureReason.NAME_TAKEN


def test_a_suspended_training_prepares_nothing_new() -> None:
    assert decide(make_job(GPU | {"suspend": True}), Observed()).actions == ()


def test_cancelled_it_goes_too_and_only_then_that_is_final() -> None:
    job = make_job(GPU | {"cancel": True})
    plan = decide(job, world(pod(running())))
    assert plan.actions == (Delete("jobs", NAME, f"uid-of-{NAME}"),)
    assert status_of(plan).phase is not Phase.CANCELLED
    still_there = replace(world(pod(running())), preparation=None)
    assert status_of(decide(job, still_there)).phase is not Phase.CANCELLED
    assert status_of(decide(job, Observed())).phase is Phase.CANCELLED


def test_a_finished_training_tells_both_jobs_when_to_go() -> None:
    job = make_job(GPU | {"ttlSecondsAfterFinished": 600})
    failure = make_failure(FailureReason.DATASET_EMPTY)
    failing = world(pod(terminated(42, wire(failure)), phase="Failed"), conditions=(FAILED,))
    done = after(job, decide(job, failing))
    told = {"spec": {"ttlSecondsAfterFinished": 600}}
    assert decide(done, failing).actions == (Patch("jobs", NAME, told),)
    own: JobFacts = job_facts(job_body(UID, conditions=(COMPLETE,)))
    both = decide(done, Observed(job=own, preparation=prepared(job)))
    assert both.actions == (Patch("jobs", own.name, told), Patch("jobs", NAME, told))
