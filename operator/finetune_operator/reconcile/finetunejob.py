"""What the cluster should do next for one FineTuneJob."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.contract.failures import Failure, FailureReason
from finetune_operator.contract.places import PREPARE_CONTAINER, adapter_uri
from finetune_operator.contract.training import StartingAdapter, TrainingResult
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.workloads import JobFacts, PodFacts, training_outcome
from finetune_operator.manifests.nodes import rendezvous_service
from finetune_operator.manifests.preparation import preparation_job
from finetune_operator.manifests.training import (
    TERMINATION_GRACE_SECONDS,
    queue_name,
    training_config,
    training_job,
    training_job_name,
    training_labels,
)
from finetune_operator.manifests.versions import model_version, next_version
from finetune_operator.reconcile.plan import Apply, Create, Delete, Event, Plan
from finetune_operator.reconcile.provider_ending import (
    UNTOLD_REASONS,
    cancelling_at_provider,
    has_ended,
    may_go_on,
    unconfirmed,
)
from finetune_operator.reconcile.starting_point import NoSuchVersion, begun_from, starting_adapter
from finetune_operator.reconcile.suspension import is_held, retention, suspension_actions
from finetune_operator.reconcile.training_budget import budget_events, by_budget, sooner, why_suspended
from finetune_operator.reconcile.training_observed import Observed
from finetune_operator.reconcile.training_outlook import (
    NO_COMMIT,
    NO_RESULT,
    Outlook,
    after_the_last_step,
    cancelled,
    cancelling,
    failed,
    failure_of,
    held,
    leaving_seconds,
    name_taken,
    outlook_of,
    queued,
    still_alive,
    stopping,
    succeeded,
    waiting_for_predecessor,
    waiting_for_version,
)
from finetune_operator.reconcile.training_outputs import export_events
from finetune_operator.reconcile.training_preflight import preflight_events
from finetune_operator.reconcile.training_shortfalls import shortfall_events
from finetune_operator.reconcile.training_status import (
    is_at_the_end,
    is_unprepared,
    progress_is_due,
    training_status,
)
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec

# Most datasets are prepared sooner than that, and each phase told costs a write.
PREPARING_UNTOLD_SECONDS = 5.0
# Of a pod that was told to end: its grace period, and a while for the kubelet to say so.
LEAVING_SECONDS = TERMINATION_GRACE_SECONDS + 10.0
# In what the watches brought, for a version that is not there yet.
LOOK_AGAIN_SECONDS = 5.0

__all__ = ["Observed", "abandoned", "is_finished", "reconcile", "refused", "unpublished", "wants_progress"]


def reconcile(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Pure: same input, same plan. A finished job is never touched again, whatever happens to its pods."""
    if job.deleting:
        return Plan()
    if is_finished(job):
        return _acknowledge(job, seen)
    version = _published(job, seen.versions)
    if job.spec.cancel and version is None:
        return _cancel(job, seen, now, config)
    if seen.job is None and version is None:
        return _start(by_budget(job, seen, now, config), seen, now, config)
    if seen.job is not None and not _is_ours(job, seen.job):
        return _concluded(job, seen, failed(name_taken(seen.job.name)), now, config)
    outcome = training_outcome(seen.pods)
    if version or (seen.job and seen.job.complete):
        return _publish(job, seen, outcome, version, now, config)
    if seen.job and seen.job.failed_reason:
        seconds_left = _leaving_seconds(seen.job, seen.pods, now)
        if isinstance(outcome, TrainingResult) and seconds_left <= 0:
            # It was ended after it had published, while it measured or exported.
            return _publish(job, seen, outcome, version, now, config)
        failure = failure_of(seen.job, outcome, seen.pods, may_tell_more=seconds_left > 0)
        return _failed(job, seen, failure, now, config) if failure else Plan(requeue_after_seconds=seconds_left)
    return _follow(by_budget(job, seen, now, config), seen, now, config)


def refused(job: FineTuneJob, message: str, now: datetime, config: OperatorConfig) -> Plan:
    """The API server takes no Job of such a spec; the schema can't tell all of what makes a pod invalid."""
    failure = Failure(
        reason=FailureReason.INVALID_CONFIG,
        message=f"the API server refused the Job: {message}",
        remedy="create a new FineTuneJob without what it names",
    )
    return _concluded(job, Observed(), failed(failure), now, config)


def unpublished(
    job: FineTuneJob, seen: Observed, version: Mapping[str, Any], message: str, now: datetime, config: OperatorConfig
) -> Plan:
    """The API server takes no ModelVersion like `version`; what was trained stays where it is, and its result known."""
    name, uri = version["metadata"]["name"], version["spec"]["artifact"]["uri"]
    failure = Failure(
        reason=FailureReason.INVALID_CONFIG,
        message=f"trained, but the API server refused ModelVersion {name}: {message}",
        remedy=f"its artifact is {uri}; create that ModelVersion without what is refused, or a new FineTuneJob",
    )
    outcome = training_outcome(seen.pods)
    result = outcome if isinstance(outcome, TrainingResult) else None
    return _concluded(job, seen, failed(failure), now, config, result)


def is_finished(job: FineTuneJob) -> bool:
    """Succeeded, failed or cancelled: final."""
    succeeded_or_not = find(job.status.conditions, "Succeeded")
    is_decided = succeeded_or_not is not None and succeeded_or_not.status is not ConditionStatus.UNKNOWN
    return is_decided or is_true(job.status.conditions, "Stalled")


def wants_progress(job: FineTuneJob) -> bool:
    """Whether the trainer may have something new to say."""
    return not job.deleting and job.status.phase is Phase.TRAINING


def _acknowledge(job: FineTuneJob, seen: Observed) -> Plan:
    status = job.status.model_copy(update={"observed_generation": job.metadata.generation})
    jobs = (seen.job, seen.preparation)
    actions = retention(job, jobs, job.spec.ttl_seconds_after_finished, job.status.observed_generation)
    return Plan(actions=actions, status=status.to_dict())


def _is_ours(job: FineTuneJob, found: JobFacts) -> bool:
    return job.metadata.uid in found.owner_uids


def _start(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Nothing is made while the job is suspended: Kueue starts every suspended Job that it has admitted."""
    if job.spec.suspend:
        status = training_status(job, seen, why_suspended(job, seen, now, config), now, config)
        return Plan(status=status.to_dict(), events=tuple(_news(job, status)))
    if still_alive(seen.pods):
        return Plan(status=training_status(job, seen, waiting_for_predecessor(), now, config).to_dict())
    start = starting_adapter(job, seen.versions, config)
    if isinstance(start, Failure):
        return _concluded(job, seen, failed(start), now, config)
    if isinstance(start, NoSuchVersion):
        status = training_status(job, seen, waiting_for_version(start.name), now, config)
        return Plan(status=status.to_dict(), requeue_after_seconds=LOOK_AGAIN_SECONDS)
    if is_unprepared(job, seen):
        return _prepare(job, seen, start, now, config)
    manifest = training_job(job, config, start)
    queue = queue_name(job)
    status = training_status(job, seen, queued(queue) if queue else outlook_of(seen.pods), now, config)
    status = status.model_copy(update={"init_from": begun_from(job, seen.versions, config)})
    service = rendezvous_service(job, training_job_name(job), training_labels(job))
    return Plan(
        actions=(
            *((Apply("services", service),) if job.spec.nodes > 1 else ()),
            Create("jobs", manifest, job.metadata.uid),
        ),
        status=status.to_dict(),
        events=(_created(manifest), *_news(job, status)),
    )


def _prepare(
    job: FineTuneJob, seen: Observed, start: StartingAdapter | None, now: datetime, config: OperatorConfig
) -> Plan:
    """No pod of the training is made, and no GPU taken, before its dataset and its base model are there."""
    found, pods, queue = seen.preparation, seen.preparation_pods, queue_name(job)
    if found is None:
        manifest = preparation_job(job, config, start)
        status = training_status(job, seen, queued(queue) if queue else outlook_of(pods), now, config)
        return Plan(
            actions=(Create("jobs", manifest, job.metadata.uid),), status=status.to_dict(), events=(_created(manifest),)
        )
    if not _is_ours(job, found):
        return _concluded(job, seen, failed(name_taken(found.name)), now, config)
    if found.failed_reason:
        seconds_left = _leaving_seconds(found, pods, now)
        failure = failure_of(found, training_outcome(pods), pods, may_tell_more=seconds_left > 0)
        if failure is None:
            return Plan(requeue_after_seconds=seconds_left)
        return _concluded(job, seen, failed(failure), now, config)
    if any(pod.phase == "Succeeded" for pod in pods):
        # The Job's own word comes next.
        return Plan()
    if found.suspended:
        outlook = queued(found.queue) if found.queue else held(found.name)
    else:
        outlook = outlook_of(pods, find(job.status.conditions, "Reconciling"))
    if (seconds_left := _untold_seconds(job, outlook, pods, now)) > 0:
        return Plan(requeue_after_seconds=seconds_left)
    status = training_status(job, seen, outlook, now, config)
    return Plan(actions=suspension_actions(job, found), status=status.to_dict(), events=tuple(_news(job, status)))


def _created(manifest: Mapping[str, Any]) -> Event:
    return Event("Normal", "JobCreated", f"created Job {manifest['metadata']['name']}")


def _cancel(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """Final only when the last pod has ended, so that its time is counted to the end."""
    own = [found for found in (seen.job, seen.preparation) if found and _is_ours(job, found)]
    if not own and not still_alive((*seen.pods, *seen.preparation_pods)):
        if may_go_on(job) and (plan := _cancel_at_provider(job, seen, now, config)):
            return plan
        return _concluded(job, seen, cancelled(unconfirmed(seen.cancellation)), now, config)
    status = training_status(job, seen, cancelling(job.status.phase), now, config)
    return Plan(actions=tuple(Delete("jobs", found.name, found.uid) for found in own), status=status.to_dict())


def _leaving_seconds(found: JobFacts | None, pods: tuple[PodFacts, ...], now: datetime) -> float:
    return leaving_seconds(found, pods, now, LEAVING_SECONDS)


def _failed(job: FineTuneJob, seen: Observed, failure: Failure, now: datetime, config: OperatorConfig) -> Plan:
    """Final only when the last pod has ended, or can't be running any more, so that its time is counted."""
    seconds_left = _leaving_seconds(seen.job, seen.pods, now)
    if seconds_left > 0:
        status = training_status(job, seen, stopping(job.status.phase, failure), now, config)
        return Plan(status=status.to_dict(), requeue_after_seconds=seconds_left)
    if may_go_on(job) and failure.reason in UNTOLD_REASONS:
        if plan := _cancel_at_provider(job, seen, now, config):
            return plan
        if remark := unconfirmed(seen.cancellation):
            failure = failure.model_copy(update={"remedy": f"{failure.remedy}; {remark}"})
    return _concluded(job, seen, failed(failure), now, config)


def _cancel_at_provider(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan | None:
    """Before a training is final that its provider may not know to be unwanted; None once that is done, or given up."""
    if seen.cancellation and has_ended(seen.cancellation):
        return None
    create, outlook = cancelling_at_provider(job, config)
    status = training_status(job, seen, outlook, now, config)
    return Plan(actions=() if seen.cancellation else (create,), status=status.to_dict())


def abandoned(job: FineTuneJob, config: OperatorConfig) -> Plan:
    """The FineTuneJob is gone; its provider may go on for nobody."""
    if is_finished(job) or not may_go_on(job):
        return Plan()
    create, _ = cancelling_at_provider(job, config)
    return Plan(actions=(create,))


def _follow(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """The Job is there and not at its end: honour `suspend`, and report."""
    actions = suspension_actions(job, seen.job) if seen.job else ()
    outlook = _present_outlook(job, seen, now, config)
    if (seconds_left := _untold_seconds(job, outlook, seen.pods, now)) > 0:
        return Plan(actions=actions, requeue_after_seconds=sooner(seconds_left, job, seen, now, config))
    status = training_status(job, seen, outlook, now, config)
    poll_seconds = config.poll_seconds if outlook.phase is Phase.TRAINING else None
    return Plan(
        actions=actions,
        status=status.to_dict(),
        events=tuple(_news(job, status)),
        requeue_after_seconds=sooner(poll_seconds, job, seen, now, config),
    )


def _present_outlook(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Outlook:
    if job.spec.suspend:
        return why_suspended(job, seen, now, config)
    if seen.job and seen.job.queue and seen.job.suspended:
        return queued(seen.job.queue)
    if seen.job and is_held(job, seen.job):
        return held(seen.job.name)
    ended_well = seen.job.pods_succeeded if seen.job else 0
    outlook = outlook_of(seen.pods, find(job.status.conditions, "Reconciling"), job.spec.nodes, ended_well)
    if outlook.phase is Phase.TRAINING and _tells_what_follows(job, seen, now, config):
        return after_the_last_step(job.spec)
    return outlook


def _tells_what_follows(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> bool:
    """After the last step: answers and outputs take minutes, the rest is told where progress is written anyway."""
    progress = seen.progress or job.status.progress
    if job.spec.openai or progress is None or progress.percent < 100:
        return False
    takes_long = bool(job.spec.outputs or (job.spec.evaluation and job.spec.evaluation.metrics))
    return takes_long or progress_is_due(job.status, now, config.progress_write_seconds) or is_at_the_end(job.status)


def _news(job: FineTuneJob, status: FineTuneJobStatus) -> Iterable[Event]:
    """Each occurrence once: what the status did not tell before."""
    failure = status.last_failure
    if failure and failure != job.status.last_failure:
        yield Event("Warning", failure.reason, f"{failure.pod}: {failure.message}")
    yield from preflight_events(job, status)
    yield from budget_events(job, status)
    if status.phase is Phase.TRAINING and job.status.phase is not Phase.TRAINING:
        yield Event("Normal", "TrainingStarted", status.message or "")


def _untold_seconds(job: FineTuneJob, outlook: Outlook, pods: tuple[PodFacts, ...], now: datetime) -> float:
    """How long it is not yet worth a write that the dataset is being prepared."""
    if outlook.phase is not Phase.PREPARING or job.status.phase not in (Phase.PENDING, Phase.QUEUED):
        return 0.0
    return PREPARING_UNTOLD_SECONDS - _preparing_seconds(pods, now)


def _preparing_seconds(pods: tuple[PodFacts, ...], now: datetime) -> float:
    """How long the newest dataset preparation has been going on."""
    starts = [at for pod in still_alive(pods) if (at := pod.container(PREPARE_CONTAINER).started_at)]
    return (now - max(starts)).total_seconds() if starts else PREPARING_UNTOLD_SECONDS


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
        return _concluded(job, seen, succeeded(version.metadata.name, version.spec), now, config, result)
    if not isinstance(outcome, TrainingResult):
        return _without_result(job, seen, now, config)
    if job.spec.base_model.source.hub and outcome.base_model_commit is None:
        return _concluded(job, seen, failed(NO_COMMIT), now, config)
    number = next_version(job.spec.model, seen.versions, seen.published)
    uri = adapter_uri(config.artifacts_claim, job.metadata.namespace, job.spec.model, job.metadata.uid)
    body = model_version(
        job, number, uri, outcome, training_config(job, config), config.trainer_image_of(job.spec.backend.value)
    )
    outlook = succeeded(body["metadata"]["name"], ModelVersionSpec.model_validate(body["spec"]))
    plan = _concluded(job, seen, outlook, now, config, outcome)
    create = Create("modelversions", body, job.metadata.uid)
    return Plan(actions=(create,), status=plan.status, events=plan.events)


def _without_result(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Plan:
    """The Job is complete, but what its trainer said was never seen, is still on its way, or is gone with the pod."""
    # Of several nodes, the first tells the result.
    phases = {pod.phase for pod in seen.pods if not pod.index}
    if "Succeeded" in phases:
        return _concluded(job, seen, failed(NO_RESULT), now, config)
    if phases - {"Failed"} or seen.job is None:
        return Plan()
    # A new Job finds `result.json` on the volume and tells it again.
    return Plan(actions=(Delete("jobs", seen.job.name, seen.job.uid),))


def _concluded(
    job: FineTuneJob,
    seen: Observed,
    outlook: Outlook,
    now: datetime,
    config: OperatorConfig,
    result: TrainingResult | None = None,
) -> Plan:
    status = training_status(job, seen, outlook, now, config, result)
    event = Event("Warning" if outlook.failure else "Normal", outlook.reason, outlook.message)
    return Plan(status=status.to_dict(), events=(event, *export_events(job, result), *shortfall_events(result)))


def _published(job: FineTuneJob, versions: Iterable[ModelVersion]) -> ModelVersion | None:
    return next((v for v in versions if v.spec.lineage.job_uid == job.metadata.uid), None)
