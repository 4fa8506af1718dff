"""When a served version is measured, what came out, and what the database has to be told of it.

One evaluation is one Job, named after version and evaluation. Its result is read from its pod and kept in the status;
only then is it what `spec.evaluation.require` reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import EVALUATOR_CONTAINER
from finetune_operator.core.conditions import Absent, Finding, find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import NoPrice, hourly_rate
from finetune_operator.core.served_evaluation import (
    Measurement,
    served_record,
    served_status,
    training_record,
)
from finetune_operator.core.workloads import (
    DEADLINE_EXCEEDED,
    JobFacts,
    PodFacts,
    keeps_its_cause,
    last_words_of,
    obstacle,
    told_by,
)
from finetune_operator.manifests.evaluation import (
    current_evaluation,
    evaluation_id,
    evaluation_job,
    evaluation_job_name,
)
from finetune_operator.manifests.serving import engine_name
from finetune_operator.reconcile.engine_sharing import Versions
from finetune_operator.reconcile.plan import Action, Create, Delete, Event, RecordEvaluation
from finetune_operator.reconcile.served_version import NotServed, asks_in_vain
from finetune_operator.reconcile.suspension import held_by_others
from finetune_operator.resources.evaluation import EVALUATED, ServedEvaluationStatus
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionStatus, RequestedState

NO_REPORT = "the evaluator ended without an error, but also without a readable report"
MEMORY_REMEDY = "lower spec.evaluation.maxExamples"
TRAINING = "training"
"""Of the one that its training made, among a version's evaluations; the others are named by a digest."""


@dataclass(frozen=True)
class EvaluationFacts:
    """What is known of the evaluations of one version; the pods are those of the evaluation that is asked for now."""

    jobs: tuple[JobFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    recorded: frozenset[tuple[str, datetime]] = frozenset()
    """Evaluations that the api has acknowledged to this process, each with the time of its measuring: one that is asked
    for again later has the same id."""


def with_result(
    version: ModelVersion, facts: EvaluationFacts, replicas: int, now: datetime, config: OperatorConfig
) -> ModelVersion:
    """The version, its status with what the evaluator has said, if it has; all else is decided on that."""
    spec, identity = version.spec, evaluation_id(version.spec)
    if identity is None:
        return _with(version, None)
    if current_evaluation(version) or not _is_complete(_own_job(version, facts, identity)):
        return version
    outcome = told_by(EVALUATOR_CONTAINER, facts.pods, EvaluationReport)
    if spec.serving is None or not isinstance(outcome, EvaluationReport):
        return version
    rate = hourly_rate(spec.serving.resources, spec.serving.scheduling, config.prices)
    if spec.serving.merged_weights:
        rate = NoPrice("the base model was asked of another engine, whose pods may have another price")
    # In whole seconds, as the status has it: what the database is told now is what it would be told later.
    measured = Measurement(outcome, identity, engine_name(spec, spec.serving), replicas, now.replace(microsecond=0))
    return _with(version, served_status(measured, rate, config.prices.currency))


def evaluation_actions(
    version: ModelVersion,
    facts: EvaluationFacts,
    base_at: str | NotServed | None,
    versions: Versions,
    config: OperatorConfig,
) -> tuple[Action, ...]:
    """Make the Job once both models answer; remove those of evaluations that nobody asks for any more.

    `base_at` is the engine of the base model, or why there is none; None where the version does not answer.
    """
    identity = evaluation_id(version.spec)
    name = evaluation_job_name(version, identity) if identity else None
    ours = [job for job in facts.jobs if version.metadata.uid in job.owner_uids]
    done = current_evaluation(version) is not None
    actions: list[Action] = [Delete("jobs", job.name, job.uid) for job in ours if job.name != name]
    if identity is None or done:
        return tuple(actions)
    job = _own_job(version, facts, identity)
    if job is None:
        if isinstance(base_at, str) and not _is_archived(version):
            manifest = evaluation_job(version, identity, config, base_at)
            actions.append(Create("jobs", manifest, version.metadata.uid, is_vital=False))
    elif _is_archived(version) or (job.complete and _is_lost(facts.pods)) or asks_in_vain(job, base_at, versions):
        # Nobody will answer it, or its pod is gone with what it said: the next one measures again.
        actions.append(Delete("jobs", job.name, job.uid))
    return tuple(actions)


def evaluation_finding(
    version: ModelVersion, facts: EvaluationFacts, base_at: str | NotServed | None, versions: Versions
) -> Finding | Absent:
    """The condition `Evaluated`; a failure says what to change."""
    identity = evaluation_id(version.spec)
    if identity is None:
        return Absent(EVALUATED)
    if measured := current_evaluation(version):
        return Finding(EVALUATED, True, "Measured", f"{measured.examples} questions answered by {measured.engine}")
    job = _own_job(version, facts, identity)
    if job is None:
        if isinstance(base_at, str):
            return Finding(EVALUATED, False, "Starting", f"Job {evaluation_job_name(version, identity)} is being made")
        if base_at:
            return Finding(EVALUATED, False, *base_at)
        return Finding(EVALUATED, False, "NotLoaded", "waiting for an engine that has this version loaded")
    if asks_in_vain(job, base_at, versions):
        fact = f"{job.base_engine} has the base model no longer, {base_at} has"
        return Finding(EVALUATED, False, "Starting", f"Job {job.name} is being made anew: {fact}")
    if job.failed_reason is not None:
        return _failed(version, job, facts)
    if job.complete and any(pod.phase == "Succeeded" for pod in facts.pods):
        return Finding(EVALUATED, False, "EvaluatorFailed", f"{_FAILED}{NO_REPORT}; {_again(job)}")
    if job.suspended:
        return Finding(EVALUATED, False, *held_by_others(job))
    if problem := obstacle(facts.pods):
        told = find(version.status.conditions, EVALUATED)
        if told and keeps_its_cause(problem, told):
            return Finding(EVALUATED, False, told.reason, told.message)
        return Finding(EVALUATED, False, problem[0], f"the evaluator can't start: {problem[1]}")
    words = "asking the version and its base model"
    return Finding(EVALUATED, False, "Evaluating", f"{words}; Job {job.name}")


def evaluation_event(before: ModelVersion, status: ModelVersionStatus) -> tuple[Event, ...]:
    """Once, when an evaluation has ended well or badly."""
    present, past = find(status.conditions, EVALUATED), find(before.status.conditions, EVALUATED)
    if present is None or (past and (past.status, past.reason) == (present.status, present.reason)):
        return ()
    if present.reason == "Measured":
        return (Event("Normal", "Evaluated", f"{before.metadata.name} is evaluated: {_scores(status)}"),)
    if present.message.startswith(_FAILED):
        return (Event("Warning", present.reason, present.message),)
    return ()


def records(
    version: ModelVersion, facts: EvaluationFacts, config: OperatorConfig
) -> tuple[tuple[Action, ...], tuple[str, ...] | None]:
    """What the database is yet to be told, and the ids of what it has, if it has any."""
    wanted: dict[str, RecordEvaluation] = {}
    if trained := training_record(version):
        identity = record_id(version, TRAINING)
        wanted[identity] = RecordEvaluation(identity, trained)
    if measured := version.status.evaluation:
        identity = record_id(version, measured.id)
        wanted[identity] = RecordEvaluation(identity, served_record(version, measured))
    remembered = version.status.recorded_evaluations or ()
    known = {
        identity
        for identity, action in wanted.items()
        if identity in remembered or (identity, action.evaluation.measured_at) in facts.recorded
    }
    missing = tuple(action for identity, action in wanted.items() if identity not in known)
    return missing if config.api_url else (), tuple(sorted(known)) or None


def record_id(version: ModelVersion, identity: str) -> str:
    """Of an evaluation among those of all versions; the lineage is free text, two versions may have the same."""
    return f"{version.metadata.uid}-{identity}"


def _with(version: ModelVersion, evaluation: ServedEvaluationStatus | None) -> ModelVersion:
    return version.model_copy(update={"status": version.status.model_copy(update={"evaluation": evaluation})})


def _own_job(version: ModelVersion, facts: EvaluationFacts, identity: str) -> JobFacts | None:
    name = evaluation_job_name(version, identity)
    return next((job for job in facts.jobs if job.name == name and version.metadata.uid in job.owner_uids), None)


def _is_complete(job: JobFacts | None) -> bool:
    return job is not None and job.complete


def _is_lost(pods: Iterable[PodFacts]) -> bool:
    """Of a complete Job, whose event may come before its pod's: whether no pod told, or is yet to tell, its result."""
    return {pod.phase for pod in pods} <= {"Failed"}


def _is_archived(version: ModelVersion) -> bool:
    return version.spec.state is RequestedState.ARCHIVED


_FAILED = "the evaluation failed: "


def _failed(version: ModelVersion, job: JobFacts, facts: EvaluationFacts) -> Finding:
    """Final for this Job; a new one is made of another evaluation, or when this one is deleted."""
    again = _again(job)
    outcome = told_by(EVALUATOR_CONTAINER, facts.pods, EvaluationReport)
    if isinstance(outcome, Failure):
        return Finding(EVALUATED, False, outcome.reason.value, f"{_FAILED}{outcome.message}: {outcome.remedy}; {again}")
    told = find(version.status.conditions, EVALUATED)
    is_told = told is not None and told.message.startswith(_FAILED) and told.message.endswith(again)
    if told and is_told and not any(pod.container(EVALUATOR_CONTAINER).exit_code for pod in facts.pods):
        # The pod that told the cause may be gone, but not the cause.
        return Finding(EVALUATED, False, told.reason, told.message)
    if job.failed_reason == DEADLINE_EXCEEDED:
        words = f"{_FAILED}it took longer than it may: raise spec.evaluation.timeoutSeconds, or ask less"
        return Finding(EVALUATED, False, DEADLINE_EXCEEDED, f"{words}; {again}")
    words = last_words_of(EVALUATOR_CONTAINER, facts.pods, MEMORY_REMEDY)
    return Finding(EVALUATED, False, "EvaluatorFailed", f"{_FAILED}{words}; {again}")


def _again(job: JobFacts) -> str:
    return f"kubectl delete job {job.name} has it tried again"


def _scores(status: ModelVersionStatus) -> str:
    values: Iterable[str] = (
        f"{value.name.value} {value.fine_tuned} (base {value.base})"
        for value in (status.evaluation.metrics if status.evaluation else ())
    )
    return ", ".join(values) or (status.evaluation and status.evaluation.message) or "no scores"
