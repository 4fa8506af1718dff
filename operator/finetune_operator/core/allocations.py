"""How long pods have held a node's resources, from observations that come and go.

Kubernetes deletes pods when a Job is suspended, drained or deleted; a status that remembers their times is the only
place that outlives both them and the operator. Bounded: beyond `LISTED_PODS`, ended ones are added up.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from finetune_operator.core.workloads import JobFacts, PodFacts
from finetune_operator.resources.cost import AllocationStatus, PodAllocation
from finetune_operator.resources.finetunejob import MAX_NODES

LISTED_PODS = 2 * MAX_NODES
"""Those of the present attempt, and as many of nodes that no longer tell of an end."""
GRACE = timedelta(seconds=60)
"""How long a pod of a Job that was stopped may still have run: its termination grace period."""


def observed(
    known: AllocationStatus, pods: Iterable[PodFacts], job: JobFacts | None, now: datetime
) -> AllocationStatus:
    """What is known, after another look."""
    seen = {pod.uid: pod for pod in pods}
    entries = [_updated(entry, seen.get(entry.pod), job, now) for entry in known.pods]
    listed = {entry.pod for entry in known.pods}
    for pod in seen.values():
        if pod.uid in listed or pod.scheduled_at is None or _is_settled(pod.scheduled_at, known):
            continue
        entries.append(PodAllocation(pod=pod.uid, start=pod.scheduled_at, end=_end(pod, pod.scheduled_at)))
    entries.sort(key=lambda entry: (entry.start, entry.pod))
    return _settled(known.model_copy(update={"pods": tuple(entries)}))


def closed(known: AllocationStatus, pods: Iterable[PodFacts], job: JobFacts | None, now: datetime) -> AllocationStatus:
    """What is known, after the last look: a pod that has not been seen to end is taken as gone."""
    return observed(observed(known, pods, job, now), (), job, now)


def seconds(allocations: AllocationStatus, now: datetime) -> int:
    """Time of all pods together."""
    return allocations.settled_seconds + sum(_length(entry, now) for entry in allocations.pods)


def running(allocations: AllocationStatus) -> int:
    """Pods that hold resources now."""
    return sum(entry.end is None for entry in allocations.pods)


def pods_so_far(allocations: AllocationStatus, pods: Iterable[PodFacts]) -> int:
    """All pods that there ever were, those without a node included."""
    waiting = {pod.uid for pod in pods if pod.scheduled_at is None}
    return allocations.settled_pods + len({entry.pod for entry in allocations.pods} | waiting)


def would_be_lost(known: AllocationStatus, pods: Iterable[PodFacts]) -> bool:
    """Whether to write at once: a listed pod has gone, or one that is not listed is about to go."""
    seen = {pod.uid: pod for pod in pods}
    listed = {entry.pod for entry in known.pods}
    gone = any(entry.end is None and entry.pod not in seen for entry in known.pods)
    going = any(
        pod.deleting and pod.scheduled_at and uid not in listed and not _is_settled(pod.scheduled_at, known)
        for uid, pod in seen.items()
    )
    return gone or going


def _updated(entry: PodAllocation, pod: PodFacts | None, job: JobFacts | None, now: datetime) -> PodAllocation:
    if entry.end is not None:
        return entry
    if pod is not None:
        return entry.model_copy(update={"end": _end(pod, now)})
    # Gone while nobody looked: not later than now, nor than its Job let it.
    stopped = job.stopped_at + GRACE if job and job.stopped_at and job.stopped_at >= entry.start else now
    return entry.model_copy(update={"end": max(entry.start, min(now, stopped))})


def _end(pod: PodFacts, otherwise: datetime) -> datetime | None:
    """A pod that the kubelet refused may have no container that tells of an end, nor a disruption."""
    if pod.phase not in ("Succeeded", "Failed"):
        return None
    return pod.ended_at or pod.disrupted_at or otherwise


def _is_settled(start: datetime, known: AllocationStatus) -> bool:
    return known.settled_until is not None and start <= known.settled_until


def _settled(allocations: AllocationStatus) -> AllocationStatus:
    """The oldest that have ended are added up, as far as there are too many; one of a dead node may never end."""
    surplus = max(0, len(allocations.pods) - LISTED_PODS)
    ended = [entry for entry in allocations.pods if entry.end is not None][:surplus]
    if not ended:
        return allocations
    settled = {entry.pod for entry in ended}
    return AllocationStatus(
        settled_pods=allocations.settled_pods + len(ended),
        settled_seconds=allocations.settled_seconds + sum(_length(entry, entry.start) for entry in ended),
        # One that was open for long may have begun before others that are settled.
        settled_until=max(filter(None, (allocations.settled_until, ended[-1].start))),
        pods=tuple(entry for entry in allocations.pods if entry.pod not in settled),
    )


def _length(entry: PodAllocation, now: datetime) -> int:
    return max(0, int(((entry.end or now) - entry.start).total_seconds()))
