"""Who has suspended a Job of ours: its user through us, Kueue by its queue, or somebody else without a word; and when
a finished one goes.

Kueue with `manageJobsWithoutQueueName` suspends Jobs without its label, too, at their creation and whenever they run
unadmitted, and marks none of that: https://github.com/kubernetes-sigs/kueue, pkg/controller/jobframework, defaults.go
and reconciler.go. So we mark what we suspend, and start nothing else.
"""

from collections.abc import Iterable

from finetune_operator.core.workloads import QUEUE_LABEL, SUSPENDED_ANNOTATION, JobFacts
from finetune_operator.manifests.training import queue_name
from finetune_operator.reconcile.plan import Action, Delete, Patch
from finetune_operator.resources.common import Resource
from finetune_operator.resources.finetunejob import FineTuneJob, Phase


def suspension_actions(job: FineTuneJob, found: JobFacts) -> tuple[Action, ...]:
    """As of `wanted_suspension`."""
    return wanted_suspension(found, suspend=job.spec.suspend, ours=is_ours(job, found), queue=queue_name(job))


def wanted_suspension(found: JobFacts, *, suspend: bool, ours: bool, queue: str | None = None) -> tuple[Action, ...]:
    """A Job that is somebody else's to start is started again by that one, if anybody suspends it; `ours` we suspended.

    To suspend such a training, its Job goes, and with it its place in the quota; resumed, it queues again.
    """
    if found.queue is not None or (found.suspended and not ours):
        if suspend:
            return (Delete("jobs", found.name, found.uid),)
        if found.suspended and queue and queue != found.queue:
            return (Patch("jobs", found.name, {"metadata": {"labels": {QUEUE_LABEL: queue}}}),)
        return ()
    if found.suspended != suspend:
        mark = {SUSPENDED_ANNOTATION: "true" if suspend else None}
        body = {"metadata": {"annotations": mark}, "spec": {"suspend": suspend}}
        return (Patch("jobs", found.name, body),)
    return ()


def held_by_others(found: JobFacts) -> tuple[str, str]:
    """Reason and message of a Job that the operator never suspends: somebody else has, and is to start it."""
    if found.queue:
        return "Queued", f"Job {found.name} waits in the queue {found.queue}"
    message = (
        f"Job {found.name} is kept suspended by another controller; if that is Kueue, which waits for a queue of Jobs "
        f"without one: kubectl label job {found.name} {QUEUE_LABEL}=<a LocalQueue>"
    )
    return "Held", message


def retention(
    owner: Resource, jobs: Iterable[JobFacts | None], ttl_seconds: int | None, observed_generation: int | None
) -> tuple[Action, ...]:
    """Tells the finished Jobs when to go; earlier one would be made, and run, again before its end is known."""
    is_edited = observed_generation != owner.metadata.generation
    return tuple(
        Patch("jobs", found.name, {"spec": {"ttlSecondsAfterFinished": ttl_seconds}})
        for found in jobs
        if found
        and owner.metadata.uid in found.owner_uids
        and found.ttl_seconds != ttl_seconds
        # A policy of the cluster has the last word; to insist would be a dispute without an end.
        and (found.ttl_seconds is None or is_edited)
    )


def is_ours(job: FineTuneJob, found: JobFacts) -> bool:
    """Whether we have suspended it; an earlier release left no mark, but a status that says so."""
    return found.suspended_by_us or job.status.phase is Phase.SUSPENDED


def is_held(job: FineTuneJob, found: JobFacts) -> bool:
    """By somebody who names no queue."""
    return found.suspended and found.queue is None and not is_ours(job, found)
