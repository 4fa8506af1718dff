"""What the cluster should do next for one BatchInference: one Job, whose report becomes the status."""

from dataclasses import dataclass, replace
from datetime import datetime

from finetune_operator.contract.batch_inference import BatchReport
from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import BATCH_CONTAINER, batch_uri
from finetune_operator.contract.training import Progress
from finetune_operator.core.conditions import course_findings, find, shortened, with_findings
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.durations import short_duration
from finetune_operator.core.workloads import (
    DEADLINE_EXCEEDED,
    JobFacts,
    PodFacts,
    keeps_its_cause,
    last_words_of,
    obstacle,
    told_by,
)
from finetune_operator.manifests.batch_inference import asked_models, batch_job, batch_job_name
from finetune_operator.reconcile.batch_costs import WITHOUT_RESULTS, asked, batch_cost
from finetune_operator.reconcile.batch_needs import asked_versions, asks_base_model, base_of, no_vote, not_served
from finetune_operator.reconcile.plan import Create, Delete, Event, Plan
from finetune_operator.reconcile.served_version import asks_in_vain, version_named
from finetune_operator.reconcile.suspension import held_by_others, retention, wanted_suspension
from finetune_operator.reconcile.training_outlook import OBSTACLE_REMEDIES, leaving_seconds, name_taken, still_alive
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import (
    KIND,
    BatchInference,
    BatchInferenceStatus,
    BatchPhase,
    BatchProgress,
    BatchResults,
    BatchTokens,
    ModelAnswers,
)
from finetune_operator.resources.common import Condition
from finetune_operator.resources.modelversion import ModelVersion

LEAVING_SECONDS = 40.0
"""Of a pod that was told to end: Kubernetes' 30 s, and a while for the kubelet to say so."""
CAUSE_MAX_CHARACTERS = 3000
"""Of a failure's message, so that what follows it has room."""
MEMORY_REMEDY = "lower spec.limit in a new BatchInference"
POD_FAILED = "PodFailed"
"""Without a message of ours."""
NO_REPORT = (
    "the pod ended without an error, but also without a readable report: run the operator and its images from the same "
    "release"
)
FINAL_PHASES = (BatchPhase.SUCCEEDED, BatchPhase.FAILED, BatchPhase.CANCELLED)


@dataclass(frozen=True)
class Observed:
    """What a reconcile may know of the world besides the resource itself; the pods are those of its Job."""

    versions: tuple[ModelVersion, ...] = ()
    test: ABTest | None = None
    job: JobFacts | None = None
    pods: tuple[PodFacts, ...] = ()
    progress: Progress | None = None


@dataclass(frozen=True)
class Outlook:
    """Where the batch stands, before it becomes a status."""

    phase: BatchPhase
    reason: str
    message: str


def reconcile(batch: BatchInference, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan. A finished batch is never touched again, whatever happens to its pods."""
    if batch.deleting:
        return Plan()
    if is_finished(batch):
        return _acknowledged(batch, seen)
    job = seen.job
    if job is None:
        return (_cancel if batch.spec.cancel else _start)(batch, seen, now, config)
    if batch.metadata.uid not in job.owner_uids:
        return _told(batch, _failed(name_taken(job.name, KIND)), seen, now, config)
    outcome = told_by(BATCH_CONTAINER, seen.pods, BatchReport)
    if job.complete:
        return _completed(batch, job, outcome, seen, now, config)
    if job.failed_reason:
        seconds_left = leaving_seconds(job, seen.pods, now, LEAVING_SECONDS)
        if seconds_left > 0:
            # A pod that may know why is not seen to have ended.
            return Plan(requeue_after_seconds=seconds_left)
        return _told(batch, _ended_badly(job, outcome, seen.pods), seen, now, config)
    if batch.spec.cancel:
        return _cancel(batch, seen, now, config)
    return _follow(batch, job, seen, now, config)


def refused(batch: BatchInference, message: str, now: datetime, config: OperatorConfig) -> Plan:
    """The API server takes no Job of such a spec."""
    failure = Failure(
        reason=FailureReason.INVALID_CONFIG,
        message=f"the API server refused the Job: {message}",
        remedy="create a new BatchInference without what it names",
    )
    return _told(batch, _failed(failure), Observed(), now, config)


def is_finished(batch: BatchInference) -> bool:
    """Succeeded, failed or cancelled: final."""
    return batch.status.phase in FINAL_PHASES


def wants_progress(batch: BatchInference) -> bool:
    """Whether its pod may have something new to say."""
    return not batch.deleting and batch.status.phase is BatchPhase.RUNNING


def needs(batch: BatchInference) -> set[tuple[str, str]]:
    """Plural and name of each resource whose change may concern it."""
    tests = {("abtests", batch.spec.ab_test.name)} if batch.spec.ab_test else set()
    return tests | {("modelversions", name) for name in asked_versions(batch)}


def _acknowledged(batch: BatchInference, seen: Observed) -> Plan:
    status = batch.status.model_copy(update={"observed_generation": batch.metadata.generation})
    actions = retention(batch, (seen.job,), batch.spec.ttl_seconds_after_finished, batch.status.observed_generation)
    return Plan(actions=actions, status=status.to_dict())


def _start(batch: BatchInference, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """No Job is made before all engines answer: its tries are for what goes wrong later."""
    if batch.spec.suspend:
        return _told(batch, _suspended(), seen, now, config)
    if lacking := not_served(batch, seen.versions) or no_vote(batch, seen.test, config):
        plan = _told(batch, Outlook(BatchPhase.PENDING, *lacking), seen, now, config)
        # Any version may bring its base model; only changes of those that it names bring the batch back by themselves.
        return replace(plan, requeue_after_seconds=config.poll_seconds if asks_base_model(batch) else None)
    starting = Outlook(BatchPhase.PENDING, "Starting", "waiting for the pod to start")
    plan = _told(batch, starting, seen, now, config)
    if still_alive(seen.pods):
        # Of a Job that was deleted.
        return plan
    version, *others = (version_named(name, seen.versions) for name in asked_versions(batch))
    if version is None:
        raise ValueError("a version that is served exists")
    base_at = base_of(batch, seen.versions)
    base_engine = base_at if isinstance(base_at, str) else None
    models = asked_models(batch, version, next(iter(others), None), base_engine)
    manifest = batch_job(batch, models, config, seen.test, base_engine)
    created = Event("Normal", "JobCreated", f"created Job {manifest['metadata']['name']}")
    create = Create("jobs", manifest, batch.metadata.uid)
    return Plan(actions=(create,), status=plan.status, events=(created,))


def _cancel(batch: BatchInference, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """The Job goes, and its pods with it: whatever was answered is on the volume already."""
    plan = _told(batch, Outlook(BatchPhase.CANCELLED, "Cancelled", "spec.cancel was set"), seen, now, config)
    job = seen.job
    return replace(plan, actions=(Delete("jobs", job.name, job.uid),) if job else ())


def _follow(batch: BatchInference, job: JobFacts, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """The Job is there and not at its end: honour `suspend`, and report."""
    if asks_in_vain(job, base_of(batch, seen.versions), seen.versions):
        # What was answered is kept; the next one asks for the rest.
        fact = f"{job.base_engine} has the base model no longer: Job {job.name} is made anew and asks another engine"
        plan = _told(batch, Outlook(BatchPhase.PENDING, "Starting", fact), seen, now, config)
        return replace(plan, actions=(Delete("jobs", job.name, job.uid),))
    ours = job.suspended_by_us or batch.status.phase is BatchPhase.SUSPENDED
    actions = wanted_suspension(job, suspend=batch.spec.suspend, ours=ours)
    plan = _told(batch, _present(batch, job, ours, seen), seen, now, config)
    running = plan.status is not None and plan.status["phase"] == BatchPhase.RUNNING
    return Plan(
        actions=actions,
        status=plan.status,
        events=plan.events,
        requeue_after_seconds=config.poll_seconds if running else None,
    )


def _present(batch: BatchInference, job: JobFacts, ours: bool, seen: Observed) -> Outlook:
    if batch.spec.suspend:
        return _suspended()
    if job.suspended and not ours:
        return Outlook(BatchPhase.PENDING, *held_by_others(job))
    alive = still_alive(seen.pods)
    if any(pod.container(BATCH_CONTAINER).running for pod in alive):
        lacking = not_served(batch, seen.versions)
        asking = f"asking {' and '.join(_asked_names(batch))}"
        if lacking:
            message = f"{lacking.message}; rows are asked again for a while, and what was answered is kept"
            return Outlook(BatchPhase.RUNNING, lacking.reason, message)
        return Outlook(BatchPhase.RUNNING, "Asking", asking)
    if problem := obstacle(alive):
        return _hindered(problem, find(batch.status.conditions, "Reconciling"))
    said = told_by(BATCH_CONTAINER, seen.pods, BatchReport)
    if isinstance(said, Failure):
        message = f"will be tried again: {said.message}: {said.remedy}"
        return Outlook(BatchPhase.PENDING, said.reason.value, message)
    if any(pod.phase == "Failed" and not pod.disrupted for pod in seen.pods):
        words = last_words_of(BATCH_CONTAINER, seen.pods, MEMORY_REMEDY)
        return Outlook(BatchPhase.PENDING, "Retrying", f"will be tried again: {words}")
    return Outlook(BatchPhase.PENDING, "Starting", "waiting for the pod to start")


def _asked_names(batch: BatchInference) -> tuple[str, ...]:
    return (*asked_versions(batch), *(("its base model",) if asks_base_model(batch) else ()))


def _hindered(problem: tuple[str, str], told: Condition | None) -> Outlook:
    reason, fact = problem
    if told and keeps_its_cause(problem, told):
        return Outlook(BatchPhase.PENDING, reason, told.message)
    return Outlook(BatchPhase.PENDING, reason, f"{fact}: {OBSTACLE_REMEDIES[reason]}")


def _suspended() -> Outlook:
    message = "set spec.suspend to false to go on; what was answered is kept"
    return Outlook(BatchPhase.SUSPENDED, "Suspended", message)


def _completed(
    batch: BatchInference,
    job: JobFacts,
    outcome: BatchReport | Failure | None,
    seen: Observed,
    now: datetime,
    config: OperatorConfig,
) -> Plan:
    if isinstance(outcome, BatchReport):
        return _told(batch, _succeeded(outcome), seen, now, config, outcome)
    phases = {pod.phase for pod in seen.pods}
    if "Succeeded" in phases:
        return _told(batch, Outlook(BatchPhase.FAILED, POD_FAILED, NO_REPORT), seen, now, config)
    if phases - {"Failed"}:
        # Its end comes next.
        return Plan()
    # The pod is gone with what it said: a new one finds the manifest on the volume, and says it again.
    return Plan(actions=(Delete("jobs", job.name, job.uid),))


def _succeeded(report: BatchReport) -> Outlook:
    names = " and ".join(file.served_name for file in report.files)
    failed = sum(file.failed for file in report.files)
    message = f"{report.rows} rows answered by {names}"
    if failed:
        first = next(file.first_error for file in report.files if file.failed)
        message += f", {failed} of them not, the first: {first}"
    return Outlook(BatchPhase.SUCCEEDED, "Answered", message)


def _failed(failure: Failure) -> Outlook:
    return Outlook(BatchPhase.FAILED, failure.reason.value, f"{failure.message}: {failure.remedy}")


def _ended_badly(job: JobFacts, outcome: BatchReport | Failure | None, pods: tuple[PodFacts, ...]) -> Outlook:
    if job.failed_reason == DEADLINE_EXCEEDED:
        fact = job.failed_message or "it took longer than spec.activeDeadlineSeconds"
        remedy = "create a new BatchInference with a longer spec.activeDeadlineSeconds, or ask less"
        return Outlook(BatchPhase.FAILED, DEADLINE_EXCEEDED, f"{fact}: {remedy}")
    if isinstance(outcome, Failure):
        return _failed(outcome)
    words = last_words_of(BATCH_CONTAINER, pods, MEMORY_REMEDY)
    fact = f"{job.failed_message or job.failed_reason}; {words}"
    return Outlook(BatchPhase.FAILED, POD_FAILED, f"{fact}: see the log of the last pod")


def _told(
    batch: BatchInference,
    outlook: Outlook,
    seen: Observed,
    now: datetime,
    config: OperatorConfig,
    report: BatchReport | None = None,
) -> Plan:
    """The status, and an event where the phase is another one."""
    old, phase = batch.status, outlook.phase
    is_over = phase in FINAL_PHASES
    findings = course_findings(
        outlook.reason,
        outlook.message,
        succeeded=phase is BatchPhase.SUCCEEDED if is_over else None,
        suspended=phase is BatchPhase.SUSPENDED,
        failed=phase is BatchPhase.FAILED,
    )
    ours = seen.job is not None and batch.metadata.uid in seen.job.owner_uids
    message = outlook.message
    if phase in (BatchPhase.FAILED, BatchPhase.CANCELLED) and (
        directory := old.directory or (ours and _directory(batch, config))
    ):
        message = f"{message[:CAUSE_MAX_CHARACTERS]}; answers so far, if any, are in {directory}"
    status = old.model_copy(
        update={
            "observed_generation": batch.metadata.generation,
            "phase": phase,
            "message": shortened(message),
            "job_name": batch_job_name(batch) if ours else old.job_name,
            "start_time": old.start_time or (now if ours else None),
            "directory": old.directory or (_directory(batch, config) if ours else None),
            "completion_time": now if is_over else None,
            "progress": _progress(old, outlook, seen.progress, now, config.progress_write_seconds),
            "conditions": with_findings(old.conditions, findings, batch.metadata.generation, now),
        }
    )
    if report:
        status = status.model_copy(update=_results(batch, report, seen, now, config))
    elif is_over and status.start_time:
        status = status.model_copy(update={"cost": WITHOUT_RESULTS})
    return Plan(status=status.to_dict(), events=_events(old, outlook))


def _events(old: BatchInferenceStatus, outlook: Outlook) -> tuple[Event, ...]:
    if old.phase is outlook.phase:
        return ()
    alarming = outlook.phase is BatchPhase.FAILED
    return (Event("Warning" if alarming else "Normal", outlook.reason, outlook.message),)


def _progress(
    old: BatchInferenceStatus, outlook: Outlook, latest: Progress | None, now: datetime, write_seconds: float
) -> BatchProgress | None:
    """A newer measurement, unless the last one was written too short a while ago."""
    known = old.progress
    if outlook.phase is not BatchPhase.RUNNING:
        return known.model_copy(update={"eta": None, "eta_seconds": None}) if known else None
    written = known.last_update_time if known else None
    if latest is None or (written and (now - written).total_seconds() < write_seconds):
        return known
    fresh = BatchProgress(
        summary=f"{latest.percent}%",
        percent=latest.percent,
        done=latest.step,
        total=latest.total_steps,
        failed=latest.failed_rows or 0,
        eta_seconds=latest.eta_seconds,
        eta=short_duration(latest.eta_seconds) if latest.eta_seconds is not None else None,
        last_update_time=now,
    )
    return known if known and fresh == known.model_copy(update={"last_update_time": now}) else fresh


def _directory(batch: BatchInference, config: OperatorConfig) -> str:
    return batch_uri(config.artifacts_claim, batch.metadata.namespace, batch.metadata.uid)


def _results(
    batch: BatchInference, report: BatchReport, seen: Observed, now: datetime, config: OperatorConfig
) -> dict[str, object]:
    files, models = report.files, asked(batch, report, seen.versions)
    failed, total = sum(file.failed for file in files), report.rows * len(files)
    return {
        "progress": BatchProgress(
            summary="100%", percent=100, done=total, total=total, failed=failed, last_update_time=now
        ),
        "results": BatchResults(
            uri=_directory(batch, config),
            rows=report.rows,
            failed=failed,
            digest=report.digest,
            pairs=report.pairs,
            models=tuple(
                ModelAnswers(
                    served_name=file.served_name,
                    file=file.name,
                    failed=file.failed,
                    first_error=file.first_error,
                    version_uid=model.version_uid,
                    prompt_tokens=file.prompt_tokens,
                    completion_tokens=file.completion_tokens,
                )
                for model, file in zip(models, files, strict=True)
            ),
        ),
        "tokens": BatchTokens(
            prompt=sum(file.prompt_tokens for file in files), completion=sum(file.completion_tokens for file in files)
        ),
        "cost": batch_cost(models, report, config.prices),
    }
