"""What a FineTuneJob's status says: phase, conditions, progress, checkpoint, cost and the last failure."""

import math
from collections.abc import Iterable
from datetime import datetime

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import Progress, TrainingResult
from finetune_operator.core import allocations
from finetune_operator.core.conditions import Absent, Finding, course_findings, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import NoPrice, cost_status, hourly_rate, provider_basis, provider_cost
from finetune_operator.core.durations import short_duration
from finetune_operator.core.endings import ended_at, latest_ending
from finetune_operator.core.evaluation import status_of
from finetune_operator.core.workloads import DEADLINE_EXCEEDED, dataset_report
from finetune_operator.manifests.preparation import preparation_job_name, wants_device
from finetune_operator.manifests.training import training_job_name
from finetune_operator.reconcile.starting_point import begun_from
from finetune_operator.reconcile.training_budget import budget_finding
from finetune_operator.reconcile.training_observed import Observed
from finetune_operator.reconcile.training_outlook import Outlook
from finetune_operator.reconcile.training_outputs import artifacts_status, exported
from finetune_operator.reconcile.training_preflight import preflight_status
from finetune_operator.reconcile.training_shortfalls import shortfalls
from finetune_operator.resources.cost import AllocationStatus, CostStatus
from finetune_operator.resources.evaluation import EvaluationStatus
from finetune_operator.resources.finetunejob import (
    CheckpointStatus,
    DatasetStatus,
    FineTuneJob,
    FineTuneJobStatus,
    LastFailure,
    Phase,
    ProgressStatus,
    ResultStatus,
)

DATASET_REASONS = frozenset(
    {
        FailureReason.DATASET_EMPTY,
        FailureReason.DATASET_INVALID,
        FailureReason.DATASET_TOO_SMALL,
        FailureReason.DATABASE_UNREACHABLE,
    }
)
FINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})


def training_status(
    job: FineTuneJob,
    seen: Observed,
    outlook: Outlook,
    now: datetime,
    config: OperatorConfig,
    result: TrainingResult | None = None,
) -> FineTuneJobStatus:
    """The whole status. What only the clock moves, such as cost, is written when something else is."""
    old = job.status
    status = _with_facts(job, seen, outlook, now, config)
    if outlook.phase in FINAL_PHASES:
        status = status.model_copy(update={"completion_time": now})
    if result:
        status = status.model_copy(update=_outcome_fields(job, result, now, config))
        findings = (*exported(job, result), *shortfalls(job, result))
        conditions = with_findings(status.conditions, findings, job.metadata.generation, now)
        status = status.model_copy(update={"artifacts": artifacts_status(result), "conditions": conditions})
    known = old.allocation or AllocationStatus()
    if status == old and not allocations.would_be_lost(known, seen.pods):
        return old
    count = allocations.closed if outlook.phase in FINAL_PHASES else allocations.observed
    allocation = count(known, seen.pods, seen.job, now)
    cost = _cost(job, status, outlook, allocation, now, config, result)
    return status.model_copy(update={"allocation": allocation, "cost": cost})


def is_unprepared(job: FineTuneJob, seen: Observed) -> bool:
    """Whether dataset and base model are to be made ready before there is a pod that takes a GPU."""
    is_ready = seen.preparation is not None and seen.preparation.complete
    return seen.job is None and wants_device(job.spec) and not is_ready


def _job_name(job: FineTuneJob, seen: Observed) -> str:
    return preparation_job_name(job) if is_unprepared(job, seen) else training_job_name(job)


def _with_facts(
    job: FineTuneJob, seen: Observed, outlook: Outlook, now: datetime, config: OperatorConfig
) -> FineTuneJobStatus:
    old = job.status
    report = dataset_report((*seen.pods, *seen.preparation_pods))
    dataset = (
        DatasetStatus(rows=report.rows, test_rows=report.test_rows, digest=report.digest) if report else old.dataset
    )
    progress, checkpoint = old.progress, old.checkpoint
    if outlook.phase is Phase.TRAINING:
        # What the trainer does after its last step is written in any case.
        is_news = outlook.at_the_end and not is_at_the_end(old)
        progress, checkpoint = _progress(old, seen.progress, now, 0.0 if is_news else config.progress_write_seconds)
    elif progress:
        progress = progress.model_copy(update={"eta": None, "eta_seconds": None})
    findings = [
        *_findings(outlook, has_dataset=dataset is not None),
        _cost_known(job, config),
        budget_finding(job, seen, now, config),
    ]
    foreign = seen.job is not None and job.metadata.uid not in seen.job.owner_uids
    return old.model_copy(
        update={
            "observed_generation": job.metadata.generation,
            "phase": outlook.phase,
            "message": shortened(outlook.message),
            "job_name": old.job_name if foreign or job.spec.suspend else _job_name(job, seen),
            "start_time": old.start_time or now,
            "attempts": max(old.attempts or 0, 0 if foreign else _attempts(job, seen, outlook, now)) or None,
            "progress": progress,
            "checkpoint": checkpoint,
            "dataset": dataset,
            "init_from": begun_from(job, seen.versions, config) if seen.job and not foreign else old.init_from,
            "preflight": preflight_status(job, report.preflight, config)
            if report and report.preflight
            else old.preflight,
            "model_version": outlook.version or old.model_version,
            "last_failure": _last_failure(job, seen, now),
            "conditions": with_findings(old.conditions, findings, job.metadata.generation, now),
        }
    )


def _attempts(job: FineTuneJob, seen: Observed, outlook: Outlook, now: datetime) -> int:
    """The Job controller makes the first pod at once, so that its appearance is not worth a status of its own."""
    has_no_pod_yet = job.spec.suspend or outlook.phase in (Phase.QUEUED, Phase.CANCELLED) or is_unprepared(job, seen)
    counted = allocations.observed(job.status.allocation or AllocationStatus(), seen.pods, seen.job, now)
    groups = math.ceil(allocations.pods_so_far(counted, seen.pods) / job.spec.nodes)
    return max(0 if has_no_pod_yet else 1, groups)


def _findings(outlook: Outlook, *, has_dataset: bool) -> Iterable[Finding | Absent]:
    reason, message, failure = outlook.reason, outlook.message, outlook.failure
    done = outlook.phase is Phase.SUCCEEDED
    verdict = True if done else (False if failure or outlook.phase is Phase.CANCELLED else None)
    dataset_failed = failure is not None and failure.reason in DATASET_REASONS
    if dataset_failed:
        yield Finding("DatasetReady", False, reason, message)
    elif has_dataset or outlook.phase in (Phase.TRAINING, Phase.SUCCEEDED):
        yield Finding("DatasetReady", True, "Prepared")
    else:
        yield Finding("DatasetReady", None, reason, message)
    yield Finding("Trained", verdict, reason, message)
    yield Finding("Published", done, reason, message)
    suspended = outlook.phase is Phase.SUSPENDED
    yield from course_findings(reason, message, succeeded=verdict, suspended=suspended, failed=failure is not None)


def progress_is_due(old: FineTuneJobStatus, now: datetime, write_seconds: float) -> bool:
    """Whether the last measurement was written long enough ago."""
    written = old.progress.last_update_time if old.progress else None
    return written is None or (now - written).total_seconds() >= write_seconds


def is_at_the_end(status: FineTuneJobStatus) -> bool:
    """Whether it tells of the last step."""
    return status.progress is not None and status.progress.percent == 100


def _progress(
    old: FineTuneJobStatus, latest: Progress | None, now: datetime, write_seconds: float
) -> tuple[ProgressStatus | None, CheckpointStatus | None]:
    """A newer measurement with its checkpoint, unless the last one was written too short a while ago."""
    if latest is None or not progress_is_due(old, now, write_seconds):
        return old.progress, old.checkpoint
    progress = ProgressStatus(
        summary=f"{latest.percent}%",
        percent=latest.percent,
        step=latest.step,
        total_steps=latest.total_steps,
        epoch=f"{latest.epoch:.1f}",
        total_epochs=f"{latest.total_epochs:.1f}",
        loss=_decimal(latest.loss),
        best_loss=_decimal(latest.best_loss),
        eta_seconds=latest.eta_seconds,
        eta=short_duration(latest.eta_seconds) if latest.eta_seconds is not None else None,
        last_update_time=now,
    )
    checkpoint = old.checkpoint
    if latest.checkpoint_step is not None and latest.checkpoint_time is not None:
        time = latest.checkpoint_time.replace(microsecond=0)
        checkpoint = CheckpointStatus(step=latest.checkpoint_step, time=time)
    is_known = old.progress is not None and progress == old.progress.model_copy(update={"last_update_time": now})
    if is_known and checkpoint == old.checkpoint:
        return old.progress, old.checkpoint
    return progress, checkpoint


def _last_failure(job: FineTuneJob, seen: Observed, now: datetime) -> LastFailure | None:
    """Of a pod after which another one follows; a pod that had to go with its suspended Job did not fail."""
    known = job.status.last_failure
    found = seen.job
    is_stopped = found is not None and (found.suspended or found.failed_reason == DEADLINE_EXCEEDED)
    meant_to_end = job.spec.suspend or job.spec.cancel or is_stopped
    latest = None if meant_to_end else latest_ending((*seen.preparation_pods, *seen.pods))
    if latest is None:
        return known
    pod, ending = latest
    if not ending.retried or (known and known.pod == pod.name):
        return known
    return LastFailure(reason=ending.reason, message=shortened(ending.message), time=ended_at(pod, now), pod=pod.name)


def _cost_known(job: FineTuneJob, config: OperatorConfig) -> Finding:
    if provided := job.spec.base_model.source.openai:
        found = provider_basis(provided.model, config.prices)
    else:
        rate = hourly_rate(job.spec.resources, job.spec.scheduling, config.prices)
        found = rate if isinstance(rate, NoPrice) else rate.basis
    if isinstance(found, NoPrice):
        return Finding("CostKnown", False, "NoPrice", found.message)
    return Finding("CostKnown", True, "Priced", found)


def _cost(
    job: FineTuneJob,
    status: FineTuneJobStatus,
    outlook: Outlook,
    allocation: AllocationStatus,
    now: datetime,
    config: OperatorConfig,
    result: TrainingResult | None,
) -> CostStatus:
    if provided := job.spec.base_model.source.openai:
        return provider_cost(provided.model, config.prices, result.remote if result else None, now)
    eta_seconds = status.progress.eta_seconds if status.progress and outlook.phase is Phase.TRAINING else None
    remaining = None if eta_seconds is None else eta_seconds * allocations.running(allocation)
    rate = hourly_rate(job.spec.resources, job.spec.scheduling, config.prices)
    return cost_status(rate, config.prices, allocations.seconds(allocation, now), remaining, now)


def _evaluation(job: FineTuneJob, report: EvaluationReport, config: OperatorConfig) -> EvaluationStatus:
    rate = hourly_rate(job.spec.resources, job.spec.scheduling, config.prices)
    return status_of(report, rate, config.prices.currency)


def _outcome_fields(
    job: FineTuneJob, result: TrainingResult, now: datetime, config: OperatorConfig
) -> dict[str, object]:
    report = result.dataset
    return {
        "dataset": DatasetStatus(rows=report.rows, test_rows=report.test_rows, digest=report.digest),
        "result": ResultStatus(
            final_loss=_decimal(result.final_loss),
            test_loss=_decimal(result.test_loss),
            base_test_loss=_decimal(result.base_test_loss),
            train_seconds=round(result.train_seconds),
        ),
        "evaluation": _evaluation(job, result.evaluation, config) if result.evaluation else None,
        "progress": ProgressStatus(
            summary="100%",
            percent=100,
            step=result.steps,
            total_steps=result.steps,
            epoch=f"{result.epochs:.1f}",
            total_epochs=f"{result.epochs:.1f}",
            loss=_decimal(result.final_loss),
            best_loss=_decimal(result.best_loss),
            eta_seconds=0,
            eta="0s",
            last_update_time=now,
        ),
    }


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
