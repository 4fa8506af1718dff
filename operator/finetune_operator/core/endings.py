"""How a training pod ended: whose doing it was, whether another one follows, and what the user can change.

Kubernetes decides by the Job's podFailurePolicy (manifests/training.py); this tells the user what it decided and why.
Both follow one table: tests/unit/core/test_endings.py.

Sources: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions
and https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.core.workloads import (
    CONTAINERS_LATEST_FIRST,
    PodFacts,
    killed,
    last_words,
    training_outcome,
)

TERMINATED_EXIT_CODE = 143
"""128 + SIGTERM: what the trainer ends with when it was asked to leave and has written its checkpoint."""
LOCKED_EXIT_CODE = 75
"""EX_TEMPFAIL: another attempt of the same job holds its lock."""
PEERS_LOST_EXIT_CODE = 69
"""EX_UNAVAILABLE: a process of the same training ended, or never came, without which this one can't go on."""
FINAL_EXIT_CODES = frozenset(EXIT_CODES.values())


@dataclass(frozen=True)
class Ending:
    """One pod's failure; a retry that is not counted may happen any number of times."""

    reason: str
    fact: str
    remedy: str
    retried: bool
    counted: bool

    @property
    def message(self) -> str:
        return f"{self.fact}: {self.remedy}"


@dataclass(frozen=True)
class Disruption:
    """What a reason of the pod condition DisruptionTarget means to a user."""

    reason: str
    fact: str
    remedy: str


GO_ON = "another pod goes on from the last checkpoint"
TRIED_AGAIN = "it is tried up to four times"
PEERS_LOST = "PeersLost"
PEERS_LOST_FACT = "another pod of this training has ended, or did not come in time"
PEERS_LOST_REMEDY = (
    "all go on together from the last checkpoint; if none gets going, see whether each pod has a node, a volume that "
    "can be mounted on it, and may be reached by the others (NetworkPolicy)"
)
DISRUPTIONS: Mapping[str, Disruption] = {
    "EvictionByEvictionAPI": Disruption(
        "NodeDrained", "the pod was evicted by the eviction API, as a drain does", GO_ON
    ),
    "PreemptionByScheduler": Disruption(
        "Preempted",
        "a pod of higher priority took its place",
        f"{GO_ON}; a higher spec.scheduling.priorityClassName protects from it",
    ),
    "DeletionByTaintManager": Disruption(
        "NodeTainted",
        "its node got a taint that the pod does not tolerate, as one that is unreachable or reclaimed does",
        GO_ON,
    ),
    "DeletionByPodGC": Disruption("NodeLost", "its node no longer exists, as after the loss of a spot instance", GO_ON),
    "TerminationByKubelet": Disruption(
        "EvictedByKubelet",
        "the kubelet ended the pod for the node's sake",
        f"{GO_ON}; if the node was short of memory, set spec.resources.requests.memory to what the training needs",
    ),
}
NODE_SHUTDOWN = Disruption("NodeShutdown", "its node was shut down", GO_ON)
OTHER_DISRUPTION = Disruption("Disrupted", "Kubernetes ended the pod for a cause that is not its own", GO_ON)
# Of the pod's status: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/nodeshutdown
SHUTDOWN_REASONS = frozenset({"Terminated", "NodeShutdown"})


def ending_of(pod: PodFacts) -> Ending | None:
    """Why this pod failed; None where it did not."""
    if pod.disruption is not None:
        return _disrupted(pod)
    if pod.phase != "Failed":
        return None
    if failure := _final(pod):
        return Ending(failure.reason.value, failure.message, failure.remedy, retried=False, counted=True)
    if failure := next(filter(None, (killed(pod, name) for name in CONTAINERS_LATEST_FIRST)), None):
        remedy = f"{TRIED_AGAIN}, each time from the last checkpoint; {failure.remedy}"
        return Ending(failure.reason.value, failure.message, remedy, retried=True, counted=True)
    codes = {code for name in CONTAINERS_LATEST_FIRST if (code := pod.container(name).exit_code)}
    if TERMINATED_EXIT_CODE in codes:
        return Ending("AskedToLeave", "the trainer was asked to leave (SIGTERM)", GO_ON, retried=True, counted=False)
    if PEERS_LOST_EXIT_CODE in codes:
        return Ending(PEERS_LOST, PEERS_LOST_FACT, PEERS_LOST_REMEDY, retried=True, counted=False)
    if LOCKED_EXIT_CODE in codes:
        fact = "another attempt of this job was still training"
        return Ending("AttemptRunning", fact, "another pod waits for it to end", retried=True, counted=True)
    if isinstance(told := training_outcome([pod]), Failure):
        return Ending(told.reason.value, told.message, f"{TRIED_AGAIN}; {told.remedy}", True, True)
    remedy = f"{TRIED_AGAIN}; see the pod's log"
    return Ending("Crashed", last_words([pod]) or pod.message or "the pod failed", remedy, retried=True, counted=True)


def latest_ending(pods: Iterable[PodFacts]) -> tuple[PodFacts, Ending] | None:
    """Of the pod that was made last among those that failed; one that only lost another says less than that one."""
    newest_first = sorted(pods, key=lambda pod: (pod.created, pod.name), reverse=True)
    found = [(pod, ending) for pod in newest_first if (ending := ending_of(pod))]
    return next((item for item in found if item[1].reason != PEERS_LOST), found[0] if found else None)


def ended_at(pod: PodFacts, now: datetime) -> datetime:
    """When it ended, as far as it is known."""
    return pod.ended_at or pod.disrupted_at or now


def _disrupted(pod: PodFacts) -> Ending:
    kind = DISRUPTIONS.get(pod.disruption or "", OTHER_DISRUPTION)
    if pod.disruption == "TerminationByKubelet" and pod.reason in SHUTDOWN_REASONS:
        kind = NODE_SHUTDOWN
    fact = f"{kind.fact} ({pod.message})" if pod.message else kind.fact
    return Ending(kind.reason, fact, kind.remedy, retried=True, counted=False)


def _final(pod: PodFacts) -> Failure | None:
    """What no second try would change; the exit code decides, as it does for Kubernetes."""
    for name in CONTAINERS_LATEST_FIRST:
        if pod.container(name).exit_code not in FINAL_EXIT_CODES:
            continue
        outcome = training_outcome([pod])
        return outcome if isinstance(outcome, Failure) else untold(last_words([pod]))
    return None


def untold(words: str) -> Failure:
    """A container gave up without a message of ours."""
    return Failure(reason=FailureReason.TRAINER_FAILED, message=words, remedy="see the log of the last pod")
