"""What the cluster should do next for one FineTuneJob."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER, TRAINER_CONTAINER, adapter_uri
from finetune_operator.contract.training import Progress, TrainingResult
from finetune_operator.core.conditions import Absent, Finding, is_true, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.durations import short_duration
from finetune_operator.core.evaluation import judgement, status_of
from finetune_operator.core.workloads import (
    JobFacts,
    PodFacts,
    dataset_report,
    last_words,
    obstacle,
    training_outcome,
)
from finetune_operator.manifests.training import training_config, training_job, training_job_name
from finetune_operator.manifests.versions import model_version, next_version
from finetune_operator.reconcile.plan import Action, Create, Delete, Event, Patch, Plan
from finetune_operator.resources.finetunejob import (
    DatasetStatus,
    FineTuneJob,
    FineTuneJobStatus,
    Phase,
    ProgressStatus,
    ResultStatus,
)
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec

DATASET_REASONS = frozenset(
    {
        FailureReason.DATASET_EMPTY,
        FailureReason.DATASET_INVALID,
        FailureReason.DATASET_TOO_SMALL,
        FailureReason.DATABASE_UNREACHABLE,
    }
)


# Most datasets are prepared sooner than that, and each phase told costs a write.
PREPARING_UNTOLD_SECONDS = 5.0
NO_RESULT = Failure(
    reason=FailureReason.TRAINER_FAILED,
    message="the trainer ended without an error, but also without a readable result",
    remedy="use a trainer image of the operator's own release",
)


@dataclass(frozen=True)
class Observed:
    """What a reconcile may know of the world besides the resource itself."""

    job: JobFacts | None = None
    pods: tuple[PodFacts, ...] = ()
    versions: tuple[ModelVersion, ...] = ()
    progress: Progress | None = None
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outlook:
    """Where the training stands, before it becomes a status."""

    phase: Phase
    reason: str
    message: str
    failure: Failure | None = None
    version: str | None = None


def reconcile(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan. A finished job is never touched again, whatever happens to its pods."""
    if job.deleting:
        return Plan()
    if is_finished(job):
        return _acknowledge(job)
    version = _published(job, seen.versions)
    if seen.job is None and version is None:
        return _start(job, now, config)
    if seen.job is not None and job.metadata.uid not in seen.job.owner_uids:
        return _concluded(job, seen, _failed(_name_taken(seen.job.name)), now)
    outcome = training_outcome(seen.pods)
    if version or (seen.job and seen.job.complete):
        return _publish(job, seen, outcome, version, now, config)
    if seen.job and seen.job.failed_reason:
        failure = _failure(seen.job, outcome, seen.pods)
        return _concluded(job, seen, _failed(failure), now) if failure else Plan()
    return _follow(job, seen, now, config)


def refused(job: FineTuneJob, message: str, now: datetime) -> Plan:
    """The API server takes no Job of such a spec; the schema can't tell all of what makes a pod invalid."""
    failure = Failure(
        reason=FailureReason.INVALID_CONFIG,
        message=f"the API server refused the Job: {message}",
        remedy="create a new FineTuneJob without what it names",
    )
    return _concluded(job, Observed(), _failed(failure), now)


def is_finished(job: FineTuneJob) -> bool:
    """Succeeded or Stalled: final."""
    return is_true(job.status.conditions, "Succeeded") or is_true(job.status.conditions, "Stalled")


def wants_progress(job: FineTuneJob) -> bool:
    """Whether the trainer may have something new to say."""
    return not job.deleting and job.status.phase is Phase.TRAINING


def _acknowledge(job: FineTuneJob) -> Plan:
    status = job.status.model_copy(update={"observed_generation": job.metadata.generation})
    return Plan(status=status.to_dict())


def _start(job: FineTuneJob, now: datetime, config: OperatorConfig) -> Plan:
    manifest = training_job(job, config)
    status = _status(job, Observed(), _outlook(job, ()), now)
    return Plan(
        actions=(Create("jobs", manifest, job.metadata.uid),),
        status=status.to_dict(),
        events=(Event("Normal", "JobCreated", f"created Job {manifest['metadata']['name']}"),),
    )


def _follow(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """The Job is there and not at its end: honour `suspend`, and report."""
    actions: tuple[Action, ...] = ()
    if seen.job and seen.job.suspended != job.spec.suspend:
        actions = (Patch("jobs", seen.job.name, {"spec": {"suspend": job.spec.suspend}}),)
    outlook = _outlook(job, seen.pods)
    if outlook.phase is Phase.PREPARING and job.status.phase is Phase.PENDING:
        seconds_left = PREPARING_UNTOLD_SECONDS - _preparing_seconds(seen.pods, now)
        if seconds_left > 0:
            return Plan(actions=actions, requeue_after_seconds=seconds_left)
    status = _status(job, seen, outlook, now, config.progress_write_seconds)
    started = job.status.phase is not Phase.TRAINING and outlook.phase is Phase.TRAINING
    return Plan(
        actions=actions,
        status=status.to_dict(),
        events=(Event("Normal", "TrainingStarted", outlook.message),) if started else (),
        requeue_after_seconds=config.poll_seconds if outlook.phase is Phase.TRAINING else None,
    )


def _preparing_seconds(pods: tuple[PodFacts, ...], now: datetime) -> float:
    """How long the newest dataset preparation has been going on."""
    starts = [at for pod in _alive(pods) if (at := pod.container(PREPARE_CONTAINER).started_at)]
    return (now - max(starts)).total_seconds() if starts else PREPARING_UNTOLD_SECONDS


def _outlook(job: FineTuneJob, pods: tuple[PodFacts, ...]) -> Outlook:
    if job.spec.suspend:
        return _suspended()
    alive = _alive(pods)
    if any(_runs_or_ended_well(pod, TRAINER_CONTAINER) for pod in pods):
        return Outlook(Phase.TRAINING, "Training", "the trainer is running")
    if problem := obstacle(alive):
        return Outlook(Phase.PENDING, problem[0], problem[1])
    if any(_runs_or_ended_well(pod, PREPARE_CONTAINER) for pod in alive):
        return Outlook(Phase.PREPARING, "Preparing", "the dataset is being prepared")
    if failed := last_words(pods):
        return Outlook(Phase.PENDING, "Retrying", f"will be tried again: {failed}")
    return Outlook(Phase.PENDING, "Starting", "waiting for the pod to start")


def _alive(pods: tuple[PodFacts, ...]) -> tuple[PodFacts, ...]:
    return tuple(pod for pod in pods if pod.phase in ("Pending", "Running"))


def _runs_or_ended_well(pod: PodFacts, container: str) -> bool:
    """The moment between a container's end and what follows is not worth a status of its own."""
    facts = pod.container(container)
    return facts.running or facts.exit_code == 0


def _publish(
    job: FineTuneJob,
    seen: Observed,
    outcome: TrainingResult | Failure | None,
    version: ModelVersion | None,
    now: datetime,
    config: OperatorConfig,
) -> Plan:
    """Make the ModelVersion once; found again by the job's uid, whoever died in between."""
    if version:
        result = outcome if isinstance(outcome, TrainingResult) else None
        return _concluded(job, seen, _succeeded(version.metadata.name, version.spec), now, result)
    if not isinstance(outcome, TrainingResult):
        return _without_result(job, seen, now)
    number = next_version(job.spec.model, seen.versions, seen.published)
    uri = adapter_uri(config.artifacts_claim, job.metadata.namespace, job.spec.model, job.metadata.uid)
    body = model_version(job, number, uri, outcome, training_config(job, config), config.trainer_image)
    outlook = _succeeded(body["metadata"]["name"], ModelVersionSpec.model_validate(body["spec"]))
    plan = _concluded(job, seen, outlook, now, outcome)
    create = Create("modelversions", body, job.metadata.uid)
    return Plan(actions=(create,), status=plan.status, events=plan.events)


def _without_result(job: FineTuneJob, seen: Observed, now: datetime) -> Plan:
    """The Job is complete, but what its trainer said was never seen, is still on its way, or is gone with the pod."""
    phases = {pod.phase for pod in seen.pods}
    if "Succeeded" in phases:
        return _concluded(job, seen, _failed(NO_RESULT), now)
    if phases - {"Failed"} or seen.job is None:
        return Plan()
    # A new Job finds `result.json` on the volume and tells it again.
    return Plan(actions=(Delete("jobs", seen.job.name, seen.job.uid),))


def _concluded(
    job: FineTuneJob, seen: Observed, outlook: Outlook, now: datetime, result: TrainingResult | None = None
) -> Plan:
    status = _status(job, seen, outlook, now).model_copy(update={"completion_time": now})
    if result:
        status = status.model_copy(update=_outcome_fields(status, result, now))
    event = Event("Warning" if outlook.failure else "Normal", outlook.reason, outlook.message)
    return Plan(status=status.to_dict(), events=(event,))


def _status(
    job: FineTuneJob, seen: Observed, outlook: Outlook, now: datetime, progress_write_seconds: float = 0.0
) -> FineTuneJobStatus:
    old = job.status
    report = dataset_report(seen.pods)
    dataset = (
        DatasetStatus(rows=report.rows, test_rows=report.test_rows, digest=report.digest) if report else old.dataset
    )
    if outlook.phase is Phase.TRAINING:
        progress = _progress(old.progress, seen.progress, now, progress_write_seconds)
    else:
        progress = old.progress and old.progress.model_copy(update={"eta": None, "eta_seconds": None})
    findings = _findings(outlook, has_dataset=dataset is not None)
    foreign = seen.job is not None and job.metadata.uid not in seen.job.owner_uids
    # The Job controller makes the first pod at once, so that its appearance is not worth a status of its own.
    attempts = 0 if foreign or job.spec.suspend else max(1, len(seen.pods))
    return old.model_copy(
        update={
            "observed_generation": job.metadata.generation,
            "phase": outlook.phase,
            "message": shortened(outlook.message),
            "job_name": old.job_name if foreign else training_job_name(job),
            "start_time": old.start_time or now,
            "attempts": max(old.attempts or 0, attempts) or None,
            "progress": progress,
            "dataset": dataset,
            "model_version": outlook.version or old.model_version,
            "conditions": with_findings(old.conditions, findings, job.metadata.generation, now),
        }
    )


def _findings(outlook: Outlook, *, has_dataset: bool) -> Iterable[Finding | Absent]:
    reason, message, failure = outlook.reason, outlook.message, outlook.failure
    done = outlook.phase is Phase.SUCCEEDED
    dataset_failed = failure is not None and failure.reason in DATASET_REASONS
    if dataset_failed:
        yield Finding("DatasetReady", False, reason, message)
    elif has_dataset or outlook.phase in (Phase.TRAINING, Phase.SUCCEEDED):
        yield Finding("DatasetReady", True, "Prepared")
    else:
        yield Finding("DatasetReady", None, reason, message)
    yield Finding("Trained", True if done else (False if failure else None), reason, message)
    yield Finding("Published", done, reason, message)
    yield Finding("Succeeded", True if done else (False if failure else None), reason, message)
    yield Finding("Ready", done, reason, message)
    suspended = outlook.phase is Phase.SUSPENDED
    yield Finding("Suspended", True, reason, message) if suspended else Absent("Suspended")
    yield Finding("Stalled", True, reason, message) if failure else Absent("Stalled")
    working = not done and not failure and not suspended
    yield Finding("Reconciling", True, reason, message) if working else Absent("Reconciling")


def _progress(
    old: ProgressStatus | None, latest: Progress | None, now: datetime, write_seconds: float
) -> ProgressStatus | None:
    """A newer measurement, unless the last one was written too short a while ago."""
    if latest is None:
        return old
    if old and old.last_update_time and (now - old.last_update_time).total_seconds() < write_seconds:
        return old
    fresh = ProgressStatus(
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
    unchanged = old is not None and fresh == old.model_copy(update={"last_update_time": now})
    return old if unchanged else fresh


def _outcome_fields(status: FineTuneJobStatus, result: TrainingResult, now: datetime) -> dict[str, object]:
    report = result.dataset
    return {
        "dataset": DatasetStatus(rows=report.rows, test_rows=report.test_rows, digest=report.digest),
        "result": ResultStatus(
            final_loss=_decimal(result.final_loss),
            test_loss=_decimal(result.test_loss),
            base_test_loss=_decimal(result.base_test_loss),
            train_seconds=round(result.train_seconds),
        ),
        "evaluation": status_of(result.evaluation) if result.evaluation else None,
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


def _published(job: FineTuneJob, versions: Iterable[ModelVersion]) -> ModelVersion | None:
    return next((v for v in versions if v.spec.lineage.job_uid == job.metadata.uid), None)


def _failure(job: JobFacts, outcome: TrainingResult | Failure | None, pods: tuple[PodFacts, ...]) -> Failure | None:
    """Why the Job failed; None while the pod that knows is not seen to have ended."""
    if job.failed_reason == "DeadlineExceeded":
        # First, since the pods that it stops may look as if they had run out of memory.
        return Failure(
            reason=FailureReason.DEADLINE_EXCEEDED,
            message=job.failed_message or "the training took longer than spec.activeDeadlineSeconds",
            remedy="raise spec.activeDeadlineSeconds or train for fewer epochs",
        )
    if isinstance(outcome, Failure):
        return outcome
    if _alive(pods):
        return None
    return Failure(
        reason=FailureReason.TRAINER_FAILED,
        message=f"{job.failed_message or job.failed_reason}; {last_words(pods) or 'the pods are gone'}",
        remedy="see the log of the last pod",
    )


def _name_taken(name: str) -> Failure:
    return Failure(
        reason=FailureReason.NAME_TAKEN,
        message=f"a Job named {name} exists and belongs to somebody else",
        remedy="delete that Job, or give this FineTuneJob another name",
    )


def _failed(failure: Failure) -> Outlook:
    message = f"{failure.message}: {failure.remedy}"
    return Outlook(Phase.FAILED, failure.reason.value, message, failure=failure)


def _succeeded(version: str, spec: ModelVersionSpec) -> Outlook:
    message = f"published ModelVersion {version}"
    if (verdict := judgement(spec)) and not verdict.passed:
        message += f", held back from promotion: {verdict.message}"
    return Outlook(Phase.SUCCEEDED, "Published", message, version=version)


def _suspended() -> Outlook:
    return Outlook(Phase.SUSPENDED, "Suspended", "set spec.suspend to false to go on from the last checkpoint")


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
