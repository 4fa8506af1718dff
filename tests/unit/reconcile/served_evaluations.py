"""A version that is measured where it is served, and the Job that measures it, as reconciles see them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.core.conditions import find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.workloads import JobFacts, PodFacts, job_facts, pod_facts
from finetune_operator.manifests.evaluation import evaluation_id, evaluation_job_name
from finetune_operator.reconcile import modelversion
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Create, Delete, Plan, RecordEvaluation
from finetune_operator.reconcile.served_evaluation import EvaluationFacts
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionStatus
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


WANTED = version(ROUGE)
NAME = evaluation_job_name(WANTED, identity(WANTED))


def unrecorded(plan: Plan) -> list[RecordEvaluation]:
    return [action for action in plan.actions if isinstance(action, RecordEvaluation)]


def records_of(plan: Plan) -> dict[str, dict[str, tuple[float, float]]]:
    return {
        action.id: {value.name: (value.base, value.fine_tuned) for value in action.evaluation.values}
        for action in unrecorded(plan)
    }
