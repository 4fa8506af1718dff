"""What is told, and once, of a served version's evaluation that can't start or has failed: the cause and the remedy."""

import pytest

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import PodFacts, pod_facts
from tests.builders import Object, after, job_condition, pod_body, waiting
from tests.unit.reconcile.served_evaluations import (
    COMPLETE,
    FAILED,
    NAME,
    ROUGE,
    UNAVAILABLE,
    WANTED,
    at_work,
    decide,
    evaluated,
    job_of,
    on_jobs,
    said,
    status_of,
    suspended,
    version,
)


def test_a_failure_is_told_by_one_event_with_the_remedy() -> None:
    failing = (job_of(WANTED, FAILED),)
    plan = decide(WANTED, *failing, pods=(said(UNAVAILABLE, 1),))
    (told,) = [event for event in plan.events if event.type == "Warning"]
    expected = "the evaluation failed: no answer for 600 s: see its log; kubectl delete job"
    assert told.message == f"{expected} {NAME} has it tried again"
    again = decide(after(WANTED, plan), *failing, pods=(said(UNAVAILABLE, 1),))
    assert again.events == ()
    assert again.status == plan.status


EMPTY = Failure(reason=FailureReason.DATASET_EMPTY, message="no held-out rows", remedy="name other questions")
LATE = job_condition("Failed", "DeadlineExceeded")
WITHOUT_A_WORD: dict[str, tuple[tuple[PodFacts, ...], Object]] = {
    "its pods are gone": ((), FAILED),
    "its pods are gone, and it had taken too long": ((), LATE),
    "a pod is left that never started": ((pod_facts(pod_body("evaluator-2", phase="Failed")),), FAILED),
}


@pytest.mark.parametrize(("pods", "ending"), WITHOUT_A_WORD.values(), ids=WITHOUT_A_WORD.keys())
def test_the_cause_of_a_failure_outlives_the_pod_that_told_it(pods: tuple[PodFacts, ...], ending: Object) -> None:
    job = job_of(WANTED, ending)
    plan = decide(WANTED, job, pods=(said(EMPTY, 1),))
    assert evaluated(plan) == ("False", "DatasetEmpty")
    again = decide(after(WANTED, plan), job, pods=pods)
    assert (again.status, again.events) == (plan.status, ())


def test_the_cause_of_another_evaluations_failure_is_not_this_ones() -> None:
    plan = decide(WANTED, job_of(WANTED, FAILED), pods=(said(EMPTY, 1),))
    edited = version(ROUGE, {"evaluation": {"maxExamples": 7}}, status=plan.status, generation=2)
    assert evaluated(decide(edited, job_of(edited, FAILED))) == ("False", "EvaluatorFailed")


def test_a_cause_that_is_seen_late_takes_the_place_of_none() -> None:
    unknown = after(WANTED, decide(WANTED, job_of(WANTED, FAILED)))
    plan = decide(unknown, job_of(WANTED, FAILED), pods=(said(EMPTY, 1),))
    assert evaluated(plan) == ("False", "DatasetEmpty")


def test_a_report_that_cannot_be_read_is_told_by_one_event_with_the_remedy() -> None:
    complete, pods = job_of(WANTED, COMPLETE), (said("no report"),)
    plan = decide(WANTED, complete, pods=pods)
    (told,) = [event for event in plan.events if event.type == "Warning"]
    assert told.message == (
        "the evaluation failed: the evaluator ended without an error, but also without a readable report; "
        f"kubectl delete job {NAME} has it tried again"
    )
    again = decide(after(WANTED, plan), complete, pods=pods)
    assert (again.status, again.events, on_jobs(again)) == (plan.status, (), [])


def test_a_held_job_says_how_it_gets_going() -> None:
    found = find(status_of(decide(WANTED, suspended(WANTED))).conditions, "Evaluated")
    assert found is not None
    assert found.message == (
        f"Job {NAME} is kept suspended by another controller; if that is Kueue, which waits for a queue of Jobs "
        f"without one: kubectl label job {NAME} kueue.x-k8s.io/queue-name=<a LocalQueue>"
    )


@pytest.mark.parametrize("cause", ["", ": ErrImagePull: no such image"], ids=["an older kubelet", "a newer kubelet"])
def test_a_missing_image_is_told_once_however_often_it_is_pulled(cause: str) -> None:
    failed = at_work(waiting("ErrImagePull", "no such image"))
    back_off = at_work(waiting("ImagePullBackOff", f'Back-off pulling image "operator:1"{cause}'))
    told = after(WANTED, decide(WANTED, job_of(WANTED), pods=(failed,)))
    for pod in (back_off, failed, back_off):
        assert decide(told, job_of(WANTED), pods=(pod,)).status == told.status.to_dict()
