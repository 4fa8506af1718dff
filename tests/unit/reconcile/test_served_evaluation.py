"""When a served version is measured, what becomes of its Job, and what its promotion reads of the result."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.contract.evaluation import EvaluationReport, Saturation
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.workloads import QUEUE_LABEL, JobFacts, PodFacts, job_facts, pod_facts
from finetune_operator.manifests.evaluation import evaluation_id, evaluation_job_name
from finetune_operator.reconcile import modelversion
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Create, Delete, Plan, RecordEvaluation
from finetune_operator.reconcile.served_evaluation import EvaluationFacts, record_id
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionStatus, State
from tests.builders import (
    CONFIG,
    EVALUATED,
    NOON,
    Object,
    after,
    job_body,
    job_condition,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
    waiting,
)

ROUGE: Object = {"evaluation": {"metrics": ["RougeL"]}}
TRAINED: Object = {
    "lineage": {
        "evaluation": {
            "examples": 9,
            "metrics": [
                {"name": "RougeL", "base": "0.1", "fineTuned": "0.9"},
                {"name": "F1", "base": "0.2", "fineTuned": "0.8"},
            ],
            "testLoss": "0.3",
            "baseTestLoss": "2.5",
        }
    }
}
UNAVAILABLE = Failure(reason=FailureReason.ENGINE_UNAVAILABLE, message="no answer for 600 s", remedy="see its log")
COMPLETE, FAILED = job_condition("Complete"), job_condition("Failed", "BackoffLimitExceeded")


def version(*changes: Mapping[str, Any], **options: Any) -> ModelVersion:
    spec: Object = {}
    for change in changes:
        spec = merged(spec, change)
    return make_version(2, spec, **options)


def identity(of: ModelVersion) -> str:
    found = evaluation_id(of.spec)
    assert found is not None
    return found


def job_of(of: ModelVersion, *conditions: Object) -> JobFacts:
    name = evaluation_job_name(of, identity(of))
    return job_facts(job_body(of.metadata.uid, name=name, conditions=conditions))


def suspended(of: ModelVersion, labels: Mapping[str, str] | None = None) -> JobFacts:
    return job_facts(job_body(of.metadata.uid, name=evaluation_job_name(of, identity(of)), held=True, labels=labels))


def said(message: EvaluationReport | Failure | str, exit_code: int = 0, **options: Any) -> PodFacts:
    text = message if isinstance(message, str) else message.model_dump_json(by_alias=True)
    phase = "Failed" if exit_code else "Succeeded"
    return pod_facts(pod_body("evaluator-1", phase=phase, main={"evaluator": terminated(exit_code, text)}, **options))


def at_work(state: Object) -> PodFacts:
    return pod_facts(pod_body("evaluator-1", main={"evaluator": state}))


def decide(
    of: ModelVersion, *jobs: JobFacts, pods: tuple[PodFacts, ...] = (), loaded: bool = True,
    recorded: Iterable[RecordEvaluation] = (), config: OperatorConfig = CONFIG, now: datetime = NOON,
) -> Plan:  # fmt: skip
    """The decision on a version in an engine of one pod, which has it or is still starting."""
    ready = ({"type": "Ready", "status": "True"},) if loaded else ()
    engine = pod_facts(pod_body(main={"vllm": running()}, conditions=ready))
    name, number = of.metadata.name, of.spec.version
    listed = {name: f"/artifacts/finetune/plato/job-{number}/adapter"}
    acknowledged = frozenset((action.id, action.evaluation.measured_at) for action in recorded)
    facts = EvaluationFacts(jobs, pods, acknowledged)
    seen = modelversion.Observed(versions=(of,), pods=(EnginePod(engine, listed, frozenset({name})),), evaluation=facts)
    return modelversion.reconcile(of, seen, now, config)


def status_of(plan: Plan) -> ModelVersionStatus:
    return ModelVersionStatus.model_validate(plan.status)


def evaluated(plan: Plan) -> tuple[str, str]:
    found = find(status_of(plan).conditions, "Evaluated")
    assert found is not None
    return found.status.value, found.reason


def on_jobs(plan: Plan) -> list[str]:
    return [
        f"{type(action).__name__} {action.body['metadata']['name'] if isinstance(action, Create) else action.name}"
        for action in plan.actions
        if isinstance(action, Create | Delete) and action.plural == "jobs"
    ]


def measured(of: ModelVersion) -> ModelVersion:
    """As it is once its Job's report has been read."""
    return after(of, decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED),)))


SATURATED = EVALUATED.model_copy(
    update={
        "base_saturation": Saturation(concurrency=64, requests_per_second=12.5, tokens_per_second=1000.0),
        "fine_tuned_saturation": Saturation(concurrency=32, requests_per_second=10.0, tokens_per_second=800.0),
    }
)
WANTED = version(ROUGE)
NAME = evaluation_job_name(WANTED, identity(WANTED))
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


def test_the_result_is_in_the_status_side_by_side() -> None:
    status = measured(WANTED).status.evaluation
    assert status is not None
    assert status.to_dict() == {
        "id": identity(WANTED),
        "time": "2026-01-01T12:00:00Z",
        "engine": status.engine,
        "examples": 12,
        "metrics": [{"name": "RougeL", "base": "0.12", "fineTuned": "0.41"}],
        "domains": [{"domain": "ethics", "examples": 9, "name": "RougeL", "base": "0.1", "fineTuned": "0.5"}],
        "meanLatencySeconds": {"base": "1", "fineTuned": "1.1"},
        "p95LatencySeconds": {"base": "2", "fineTuned": "2.1"},
        "meanSecondsToFirstToken": {"base": "0.1", "fineTuned": "0.2"},
        "tokensPerSecond": {"base": "80", "fineTuned": "70"},
    }
    assert status.engine.startswith("vllm-")


def test_an_answer_costs_its_share_of_all_engine_pods_and_nothing_is_told_without_a_price() -> None:
    priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": Decimal("3.60")}))
    on_gpus = version(ROUGE, {"serving": {"resources": {"limits": {"nvidia.com/gpu": 2}}}})
    plan = decide(on_gpus, job_of(on_gpus, COMPLETE), pods=(said(EVALUATED),), config=priced)
    result = status_of(plan).evaluation
    assert result is not None
    assert result.cost_per_answer is not None
    # 2 GPUs at 0.001 EUR a second
    assert result.cost_per_answer.to_dict() == {"currency": "EUR", "base": "0.0005", "fineTuned": "0.001"}
    unknown = measured(on_gpus).status.evaluation
    assert unknown is not None
    assert unknown.cost_per_answer is None
    assert unknown.cost_per_million_tokens is None


def test_a_million_tokens_cost_what_the_engine_costs_while_it_makes_them() -> None:
    priced = replace(CONFIG, prices=PriceBook(currency="EUR", per_hour={"nvidia.com/gpu": Decimal("3.60")}))
    on_gpu = version(ROUGE, {"serving": {"resources": {"limits": {"nvidia.com/gpu": 1}}}})
    costs = []
    for report in (EVALUATED, SATURATED):
        plan = decide(on_gpu, job_of(on_gpu, COMPLETE), pods=(said(report),), config=priced)
        result = status_of(plan).evaluation
        assert result is not None
        assert result.cost_per_million_tokens is not None
        costs.append(result.cost_per_million_tokens.to_dict())
    # 0.001 EUR a second, at 80 and 70 tokens a second, and at saturation at 1000 and 800
    assert costs == [
        {"currency": "EUR", "base": "12.5", "fineTuned": "14.29"},
        {"currency": "EUR", "base": "1", "fineTuned": "1.25"},
    ]


def test_saturation_is_told_side_by_side_to_status_and_database() -> None:
    of = version(ROUGE)
    plan = decide(of, job_of(of, COMPLETE), pods=(said(SATURATED),))
    result = status_of(plan).evaluation
    assert result is not None
    assert result.saturation is not None
    assert result.saturation.to_dict() == {
        "requestsPerSecond": {"base": "12.5", "fineTuned": "10"},
        "tokensPerSecond": {"base": "1000", "fineTuned": "800"},
        "concurrency": {"base": "64", "fineTuned": "32"},
    }
    told = records_of(plan)[record_id(of, identity(of))]
    assert {name: value for name, value in told.items() if name.endswith("AtSaturation")} == {
        "requestsPerSecondAtSaturation": (12.5, 10.0),
        "tokensPerSecondAtSaturation": (1000.0, 800.0),
        "concurrencyAtSaturation": (64.0, 32.0),
    }


def test_once_written_nothing_is_written_again() -> None:
    done = measured(WANTED)
    for plan in (decide(done, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)), decide(done)):
        acknowledged = decide(after(done, plan), recorded=unrecorded(plan))
        settled = after(done, acknowledged)
        again = decide(settled)
        assert (again.status, again.events, on_jobs(again)) == (settled.status.to_dict(), (), [])
        assert unrecorded(again) == []


def test_a_result_is_told_by_one_event() -> None:
    plan = decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),))
    (told,) = [event for event in plan.events if event.reason == "Evaluated"]
    assert told.message == "plato-v2 is evaluated: RougeL 0.41 (base 0.12)"
    assert not [event for event in decide(after(WANTED, plan)).events if event.reason == "Evaluated"]


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


ALWAYS: Object = {"promotion": "Always"}
MET, MISSED, BY_TRAINING = (
    {"evaluation": {"require": [text]}} for text in ("RougeL >= 0.4", "RougeL >= 0.5", "evalLoss < base")
)
GATE: dict[str, tuple[ModelVersion, bool, State, str]] = {
    "not measured yet, though the training was good": (
        version(ROUGE, ALWAYS, TRAINED, MET), False, State.READY, "NotMeasured",
    ),
    "measured and met": (version(ROUGE, ALWAYS, TRAINED, MET), True, State.DEPLOYED, "RequirementsMet"),
    "measured and missed, though the training was good": (
        version(ROUGE, ALWAYS, TRAINED, MISSED), True, State.READY, "RequirementMissed",
    ),
    "what is not asked of the served version is the training's": (
        version(ROUGE, ALWAYS, TRAINED, BY_TRAINING), False, State.DEPLOYED, "RequirementsMet",
    ),
    "asked of the training alone": (version(ALWAYS, TRAINED, MISSED), False, State.DEPLOYED, "RequirementsMet"),
}  # fmt: skip


@pytest.mark.parametrize(("of", "is_reported", "state", "reason"), GATE.values(), ids=GATE.keys())
def test_a_promotion_reads_what_was_measured_where_it_was_asked_for(
    of: ModelVersion, *, is_reported: bool, state: State, reason: str
) -> None:
    plan = decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED),)) if is_reported else decide(of)

    passed = find(status_of(plan).conditions, "EvaluationPassed")
    assert passed is not None
    assert (status_of(plan).state, passed.reason) == (state, reason)


def test_a_failed_evaluation_holds_back() -> None:
    of = version(ROUGE, ALWAYS, TRAINED, MET)
    plan = decide(of, job_of(of, FAILED), pods=(said(UNAVAILABLE, 1),))
    assert status_of(plan).state is State.READY
    assert "RougeL was not measured (see the condition Evaluated)" in (status_of(plan).message or "")


def test_what_the_engine_could_not_tell_is_not_met_and_says_why() -> None:
    accuracy: Object = {"evaluation": {"metrics": ["TokenAccuracy"], "require": ["TokenAccuracy >= 0.1"]}}
    of = version(accuracy, ALWAYS)
    report = EvaluationReport(examples=3, remark="TokenAccuracy was not measured: this engine can't")
    plan = decide(of, job_of(of, COMPLETE), pods=(said(report),))
    passed = find(status_of(plan).conditions, "EvaluationPassed")
    assert passed is not None
    assert passed.reason == "NotMeasured"
    assert "this engine can't" in passed.message


def test_the_versions_metrics_show_the_served_scores_before_the_trainings() -> None:
    metrics = measured(version(ROUGE, TRAINED)).status.metrics
    assert metrics is not None
    assert [(value.name, value.fine_tuned) for value in metrics.scores] == [("RougeL", "0.41"), ("F1", "0.8")]


TRAINING_ROW = record_id(version(), "training")
"""The row of what the training of the version of all these tests measured."""


def unrecorded(plan: Plan) -> list[RecordEvaluation]:
    return [action for action in plan.actions if isinstance(action, RecordEvaluation)]


def records_of(plan: Plan) -> dict[str, dict[str, tuple[float, float]]]:
    return {
        action.id: {value.name: (value.base, value.fine_tuned) for value in action.evaluation.values}
        for action in unrecorded(plan)
    }


class TestDatabase:
    def test_it_is_told_of_both_evaluations_with_all_values(self) -> None:
        of = version(ROUGE, TRAINED)
        told = records_of(decide(of, job_of(of, COMPLETE), pods=(said(EVALUATED),)))
        assert told == {
            TRAINING_ROW: {"RougeL": (0.1, 0.9), "F1": (0.2, 0.8), "evalLoss": (2.5, 0.3)},
            record_id(of, identity(of)): {
                "RougeL": (0.12, 0.41),
                "RougeL/ethics": (0.1, 0.5),
                "meanLatencySeconds": (1.0, 1.1),
                "p95LatencySeconds": (2.0, 2.1),
                "meanSecondsToFirstToken": (0.1, 0.2),
                "tokensPerSecond": (80.0, 70.0),
            },
        }

    def test_it_is_told_until_it_has_acknowledged_and_that_is_remembered(self) -> None:
        of = version(TRAINED)
        first = decide(of)
        assert records_of(first).keys() == {TRAINING_ROW}
        assert status_of(first).recorded_evaluations is None
        assert first.requeue_after_seconds is not None
        second = decide(of, recorded=(*unrecorded(first), *unrecorded(decide(make_version(1, TRAINED)))))
        assert records_of(second) == {}
        assert status_of(second).recorded_evaluations == (TRAINING_ROW,)
        assert records_of(decide(after(of, second))) == {}

    def test_what_is_measured_again_is_told_again(self) -> None:
        done = measured(WANTED)
        known = unrecorded(decide(done))
        unwanted = version(status=decide(done, recorded=known).status)
        wanted_again = version(ROUGE, status=decide(unwanted, recorded=known).status)

        later = NOON + timedelta(hours=1, microseconds=7)
        again = decide(wanted_again, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),), recorded=known, now=later)

        assert [action.id for action in unrecorded(again)] == [action.id for action in known]
        assert [action.evaluation.measured_at for action in unrecorded(again)] == [NOON + timedelta(hours=1)]
        assert status_of(again).recorded_evaluations is None

    def test_what_is_told_in_the_moment_of_its_measuring_is_told_once(self) -> None:
        plan = decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),), now=NOON + timedelta(microseconds=7))
        assert unrecorded(plan)
        assert unrecorded(decide(after(WANTED, plan), recorded=unrecorded(plan))) == []

    def test_after_a_restart_nothing_is_told_that_the_status_remembers(self) -> None:
        of = after(WANTED, decide(WANTED, job_of(WANTED, COMPLETE), pods=(said(EVALUATED),)))
        remembered = after(of, decide(of, recorded=unrecorded(decide(of))))
        assert unrecorded(decide(remembered)) == []

    def test_a_registered_version_is_told_as_well(self) -> None:
        of = make_version(2, TRAINED | {"serving": None})
        plan = modelversion.reconcile(of, modelversion.Observed(versions=(of,)), NOON, CONFIG)
        assert records_of(plan).keys() == {record_id(of, "training")}
        assert plan.requeue_after_seconds == modelversion.RECORD_AGAIN_SECONDS

    @pytest.mark.parametrize("job_uid", ["train#7", "x?y", "run_7", "j" * 64])
    def test_its_ids_are_the_versions_whatever_its_lineage_says(self, job_uid: str) -> None:
        of = version(TRAINED, {"lineage": {"jobUid": job_uid}})
        assert records_of(decide(of)).keys() == {TRAINING_ROW}

    @pytest.mark.parametrize("text", ["0,31", "n/a", "nan", "inf", ""])
    def test_what_is_no_finite_number_has_no_row(self, text: str) -> None:
        of = version(merged(TRAINED, {"lineage": {"evaluation": {"testLoss": text}}}))
        assert records_of(decide(of)) == {TRAINING_ROW: {"RougeL": (0.1, 0.9), "F1": (0.2, 0.8)}}

    def test_one_training_in_two_versions_is_two_rows(self) -> None:
        one, other = (make_version(number, merged(TRAINED, {"lineage": {"jobUid": "job-1"}})) for number in (1, 2))
        assert records_of(decide(one)).keys().isdisjoint(records_of(decide(other)))

    def test_a_training_outside_the_cluster_has_a_row_as_well(self) -> None:
        of = version(TRAINED)
        lineage = of.spec.lineage.model_copy(update={"job_uid": None})
        of = of.model_copy(update={"spec": of.spec.model_copy(update={"lineage": lineage})})
        assert records_of(decide(of)).keys() == {TRAINING_ROW}

    def test_without_an_api_nobody_is_told(self) -> None:
        assert records_of(decide(version(TRAINED), config=replace(CONFIG, api_url=None))) == {}

    def test_a_version_that_was_never_measured_has_no_row(self) -> None:
        assert records_of(decide(version())) == {}

    def test_an_id_that_nobody_asks_for_any_more_is_forgotten(self) -> None:
        of = version(status={"recordedEvaluations": ["old"]})
        assert status_of(decide(of)).recorded_evaluations is None


@pytest.mark.parametrize("cause", ["", ": ErrImagePull: no such image"], ids=["an older kubelet", "a newer kubelet"])
def test_a_missing_image_is_told_once_however_often_it_is_pulled(cause: str) -> None:
    failed = at_work(waiting("ErrImagePull", "no such image"))
    back_off = at_work(waiting("ImagePullBackOff", f'Back-off pulling image "operator:1"{cause}'))
    told = after(WANTED, decide(WANTED, job_of(WANTED), pods=(failed,)))
    for pod in (back_off, failed, back_off):
        assert decide(told, job_of(WANTED), pods=(pod,)).status == told.status.to_dict()
