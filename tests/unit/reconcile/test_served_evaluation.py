"""When a served version is measured, what becomes of its Job, and what makes it another evaluation."""

from collections.abc import Mapping
from typing import Any

import pytest

from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import QUEUE_LABEL, job_facts, pod_facts
from finetune_operator.reconcile.plan import Plan
from tests.builders import EVALUATED, Object, after, job_body, job_condition, pod_body, running, waiting
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
    identity,
    job_of,
    measured,
    on_jobs,
    said,
    status_of,
    suspended,
    unrecorded,
    version,
)

EARLIER = job_facts(job_body(WANTED.metadata.uid, name="plato-v2-earlier", conditions=(COMPLETE,)))
FOREIGN = job_facts(job_body("somebody-else", name="plato-v2-foreign"))
ARCHIVED: Object = {"state": "Archived"}

LIFE: dict[str, tuple[Plan, tuple[str, str], list[str]]] = {
    "the engine is starting": (decide(WANTED, loaded=False), ("False", "NotLoaded"), []),
    "it answers": (decide(WANTED), ("False", "Starting"), [f"Create {NAME}"]),
    "the Job is there": (decide(WANTED, job_of(WANTED)), ("False", "Evaluating"), []),
    "its pod works": (decide(WANTED, job_of(WANTED), pods=(at_work(running()),)), ("False", "Evaluating"), []),
    "its pod works while the engine restarts": (
        decide(WANTED, job_of(WANTED), pods=(at_work(running()),), loaded=False), ("False", "Evaluating"), [],
    ),
    "somebody else keeps its Job suspended": (
        decide(WANTED, suspended(WANTED)), ("False", "Held"), [],
    ),
    "its Job waits in a queue": (
        decide(WANTED, suspended(WANTED, {QUEUE_LABEL: "team"})), ("False", "Queued"), [],
    ),
    "its image can't be pulled": (
        decide(WANTED, job_of(WANTED), pods=(at_work(waiting("ErrImagePull", "no such image")),)),
        ("False", "ErrImagePull"), [],
    ),
    "it has reported": (decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)), ("True", "Measured"), []),
    "it has reported while the engine restarts": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),), loaded=False), ("True", "Measured"), [],
    ),
    "it has reported after a try that failed": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(
            said(UNAVAILABLE, 1, created="2026-01-01T11:20:00Z"), said(EVALUATED, created="2026-01-01T11:40:00Z"),
        )),
        ("True", "Measured"), [],
    ),
    "its pod is gone with the report": (
        decide(WANTED, job_of(WANTED, COMPLETE)), ("False", "Evaluating"), [f"Delete {NAME}"],
    ),
    "the Job is complete before its pod is seen to be": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(at_work(running()),)), ("False", "Evaluating"), [],
    ),
    "the Job is complete, and its pod is seen as it was before it started": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(pod_facts(pod_body("evaluator-1", phase="Pending")),)),
        ("False", "Evaluating"), [],
    ),
    "the Job is complete, its first try had failed, and the second is seen as it was": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(
            said(UNAVAILABLE, 1, created="2026-01-01T11:20:00Z"), at_work(running()),
        )),
        ("False", "Evaluating"), [],
    ),
    "the Job is complete, and only the try that failed is left": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(UNAVAILABLE, 1),)),
        ("False", "Evaluating"), [f"Delete {NAME}"],
    ),
    "its report can't be read": (
        decide(WANTED, job_of(WANTED, COMPLETE), pods=(said('{"event": "x"}'),)), ("False", "EvaluatorFailed"), [],
    ),
    "its report can't be read, and the version is archived": (
        decide(version(ROUGE, ARCHIVED), job_of(WANTED, COMPLETE), pods=(said("?"),), loaded=False),
        ("False", "EvaluatorFailed"), [f"Delete {NAME}"],
    ),
    "a try failed, and another follows": (
        decide(WANTED, job_of(WANTED), pods=(said(UNAVAILABLE, 1),)), ("False", "Evaluating"), [],
    ),
    "it has failed": (
        decide(WANTED, job_of(WANTED, FAILED), pods=(said(UNAVAILABLE, 1),)), ("False", "EngineUnavailable"), [],
    ),
    "it has failed without a word": (
        decide(WANTED, job_of(WANTED, FAILED), pods=(said("Killed", 137),)), ("False", "EvaluatorFailed"), [],
    ),
    "it has failed, and its log's only line is JSON": (
        decide(WANTED, job_of(WANTED, FAILED), pods=(said('{"event": "x"}', 1),)), ("False", "EvaluatorFailed"), [],
    ),
    "it has failed, and its pods are gone": (
        decide(WANTED, job_of(WANTED, FAILED)), ("False", "EvaluatorFailed"), [],
    ),
    "it took too long": (
        decide(WANTED, job_of(WANTED, job_condition("Failed", "DeadlineExceeded"))), ("False", "DeadlineExceeded"), [],
    ),
    "it is done, and the Job was deleted": (decide(measured(WANTED)), ("True", "Measured"), []),
    "something else was asked for before": (
        decide(WANTED, EARLIER), ("False", "Starting"), ["Delete plato-v2-earlier", f"Create {NAME}"],
    ),
    "somebody else's Job has our label": (decide(WANTED, FOREIGN, job_of(WANTED)), ("False", "Evaluating"), []),
    "archived before it was measured": (
        decide(version(ROUGE, ARCHIVED), job_of(WANTED), loaded=False), ("False", "Evaluating"), [f"Delete {NAME}"],
    ),
    "archived": (decide(version(ROUGE, ARCHIVED)), ("False", "NotLoaded"), []),
}  # fmt: skip


@pytest.mark.parametrize(("plan", "condition", "jobs"), LIFE.values(), ids=LIFE.keys())
def test_the_life_of_an_evaluation(plan: Plan, condition: tuple[str, str], jobs: list[str]) -> None:
    assert evaluated(plan) == condition
    assert on_jobs(plan) == jobs


def test_once_written_nothing_is_written_again() -> None:
    done = measured(WANTED)
    for plan in (decide(done, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)), decide(done)):
        acknowledged = decide(after(done, plan), recorded=unrecorded(plan))
        settled = after(done, acknowledged)
        again = decide(settled)
        assert (again.status, again.events, on_jobs(again)) == (settled.status.to_dict(), (), [])
        assert unrecorded(again) == []


CHANGES: dict[str, tuple[Mapping[str, Any], bool]] = {
    "a metric more": ({"evaluation": {"metrics": ["RougeL", "F1"]}}, True),
    "more examples": ({"evaluation": {"maxExamples": 7}}, True),
    "longer answers": ({"evaluation": {"maxNewTokens": 7}}, True),
    "more at once": ({"evaluation": {"concurrency": 7}}, True),
    "the engine's limit": ({"evaluation": {"saturation": {}}}, True),
    "more time": ({"evaluation": {"timeoutSeconds": 7}}, True),
    "other questions": ({"evaluation": {"dataset": {"volume": {"claimName": "d", "path": "q.jsonl"}}}}, True),
    "another adapter": ({"artifact": {"digest": "sha256:" + "b" * 64}}, True),
    "another engine": ({"serving": {"maxModelLen": 1024}}, True),
    "another requirement": ({"evaluation": {"require": ["RougeL > base"]}}, False),
    "more engine pods": ({"serving": {"replicas": 2}}, False),
    "a note": ({"notes": "good"}, False),
}


@pytest.mark.parametrize(("change", "is_another"), CHANGES.values(), ids=CHANGES.keys())
def test_what_decides_the_outcome_makes_another_evaluation(change: Mapping[str, Any], *, is_another: bool) -> None:
    done = measured(WANTED)
    edited = version(ROUGE, change, status=done.status.to_dict(), generation=2)

    plan = decide(edited)

    assert (identity(edited) != identity(WANTED)) is is_another
    assert evaluated(plan)[0] == ("False" if is_another else "True")
    assert status_of(plan).evaluation == done.status.evaluation


def test_the_order_of_metrics_is_none() -> None:
    one, other = (
        version({"evaluation": {"metrics": ["F1", "Bleu"]}}),
        version({"evaluation": {"metrics": ["Bleu", "F1"]}}),
    )
    assert identity(one) == identity(other)


def test_where_nothing_is_asked_for_any_more_nothing_is_left() -> None:
    done = measured(WANTED)
    edited = version(status=done.status.to_dict(), generation=2)

    plan = decide(edited, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),))

    assert on_jobs(plan) == [f"Delete {NAME}"]
    assert status_of(plan).evaluation is None
    assert find(status_of(plan).conditions, "Evaluated") is None


def test_a_deleted_version_is_left_to_the_garbage_collector() -> None:
    assert decide(version(ROUGE, deleting=True), job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)) == Plan()
