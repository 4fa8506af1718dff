"""Who has suspended a training's Job: its user through us, Kueue by its queue, or somebody else without a word.

Kueue with `manageJobsWithoutQueueName` suspends Jobs without its label, too, at their creation and whenever they run
unadmitted, and marks none of that: https://github.com/kubernetes-sigs/kueue, pkg/controller/jobframework, defaults.go
and reconciler.go. So we mark what we suspend, and start nothing else.
"""

from finetune_operator.core.workloads import QUEUE_LABEL, SUSPENDED_ANNOTATION, JobFacts
from finetune_operator.manifests.training import queue_name
from finetune_operator.reconcile.plan import Action, Delete, Patch
from finetune_operator.resources.finetunejob import FineTuneJob, Phase


def suspension_actions(job: FineTuneJob, found: JobFacts) -> tuple[Action, ...]:
    """A Job that is somebody else's to start is started again by that one, if anybody suspends it.

    To suspend such a training, its Job goes, and with it its place in the quota; resumed, it queues again.
    """
    queue, is_theirs = queue_name(job), found.queue is not None or (found.suspended and not is_ours(job, found))
    if is_theirs:
        if job.spec.suspend:
            return (Delete("jobs", found.name, found.uid),)
        if found.suspended and queue and queue != found.queue:
            return (Patch("jobs", found.name, {"metadata": {"labels": {QUEUE_LABEL: queue}}}),)
        return ()
    if found.suspended != job.spec.suspend:
        mark = {SUSPENDED_ANNOTATION: "true" if job.spec.suspend else None}
        body = {"metadata": {"annotations": mark}, "spec": {"suspend": job.spec.suspend}}
        return (Patch("jobs", found.name, body),)
    return ()


def is_ours(job: FineTuneJob, found: JobFacts) -> bool:
    """Whether we have suspended it; an earlier release left no mark, but a status that says so."""
    return found.suspended_by_us or job.status.phase is Phase.SUSPENDED


def is_held(job: FineTuneJob, found: JobFacts) -> bool:
    """By somebody who names no queue."""
    return found.suspended and found.queue is None and not is_ours(job, found)
