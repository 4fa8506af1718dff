"""The table of how a training pod ends: whether another follows, whether it counts, and what the user is told.

The Job's podFailurePolicy is evaluated by Kubernetes' rules, so that what we tell is what Kubernetes does.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.core.endings import ended_at, ending_of, latest_ending
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.training import BACKOFF_LIMIT, training_job
from tests.builders import CONFIG, NOON, Object, make_failure, make_job, running, terminated, training_pod, wire


def disruption(reason: str) -> tuple[Object, ...]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    return (condition | {"lastTransitionTime": "2026-01-01T11:58:00Z"},)


def failed(**options: Any) -> Object:
    return training_pod(phase="Failed", **options)


@dataclass(frozen=True)
class Row:
    """One way to end; `say` are words that the user reads."""

    title: str
    pod: Object
    reason: str
    retried: bool
    counted: bool
    say: tuple[str, ...] = field(default=())
    nodes: int = 1


LOW_MEMORY = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi."
LOW_DISK = "The node was low on resource: ephemeral-storage."
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
TABLE = [
    Row(
        "its node is drained, and the trainer has checkpointed",
        failed(trainer=terminated(143), conditions=disruption("EvictionByEvictionAPI")),
        "NodeDrained", True, False, ("drain", "last checkpoint"),
    ),
    Row(
        "its node is drained, and the trainer was too slow",
        failed(trainer=terminated(137), conditions=disruption("EvictionByEvictionAPI")),
        "NodeDrained", True, False,
    ),
    Row(
        "preempted by the scheduler",
        failed(trainer=terminated(143), conditions=disruption("PreemptionByScheduler")),
        "Preempted", True, False, ("higher priority", "spec.scheduling.priorityClassName"),
    ),
    Row(
        "its node is unreachable, or a spot instance is reclaimed",
        failed(trainer=terminated(137), conditions=disruption("DeletionByTaintManager")),
        "NodeTainted", True, False, ("taint",),
    ),
    Row(
        "a spot instance is gone, with its node",
        failed(trainer=running(), conditions=disruption("DeletionByPodGC")),
        "NodeLost", True, False, ("node no longer exists",),
    ),
    Row(
        "the node is short of memory",
        failed(
            trainer=terminated(137),
            conditions=disruption("TerminationByKubelet"),
            reason="Evicted",
            message=LOW_MEMORY,
        ),
        "EvictedByKubelet", True, False, (LOW_MEMORY, "spec.resources.requests.memory"),
    ),
    Row(
        "the node is short of disk",
        failed(
            trainer=terminated(137), conditions=disruption("TerminationByKubelet"), reason="Evicted", message=LOW_DISK
        ),
        "EvictedByKubelet", True, False, (LOW_DISK,),
    ),
    Row(
        "the node shuts down in order",
        failed(
            trainer=terminated(143),
            conditions=disruption("TerminationByKubelet"),
            reason="Terminated",
            message=SHUTDOWN,
        ),
        "NodeShutdown", True, False, (SHUTDOWN,),
    ),
    Row(
        "a disruption of a kind that a later Kubernetes knows",
        failed(trainer=terminated(137), conditions=disruption("SomethingNew")),
        "Disrupted", True, False,
    ),
    Row(
        "asked to leave by whoever deleted the pod, or as its node goes down without a word",
        failed(trainer=terminated(143)),
        "AskedToLeave", True, False, ("SIGTERM", "last checkpoint"),
    ),
    Row(
        "out of its memory limit",
        failed(trainer=terminated(137, reason="OOMKilled")),
        "OutOfMemory", True, True, ("spec.resources.limits.memory", "training.batchSize", "four times"),
    ),
    Row(
        "a process of the trainer, not the first one, is out of memory",
        failed(trainer=terminated(1, reason="OOMKilled")),
        "OutOfMemory", True, True, ("spec.resources.limits.memory",),
    ),
    Row(
        "killed without a reason",
        failed(trainer=terminated(137)),
        "Killed", True, True, ("137", "spec.resources.requests.memory", "last checkpoint"),
    ),
    Row(
        "evicted for its own local storage, which is no disruption",
        failed(trainer=terminated(137), reason="Evicted", message="Pod ephemeral local storage usage"),
        "StorageExceeded", True, True, ("ephemeral local storage", "spec.resources.limits.ephemeral-storage"),
    ),
    *(
        Row(
            f"exit code {code} with {reason}",
            failed(trainer=terminated(code, wire(make_failure(reason, "the fact", "the remedy")))),
            reason.value, False, True, ("the fact", "the remedy"),
        )
        for reason, code in EXIT_CODES.items()
    ),
    Row(
        "a final exit code without a message of ours",
        failed(trainer=terminated(42, "Traceback\nImportError: no module")),
        "TrainerFailed", False, True, ("ImportError: no module", "log"),
    ),
    Row(
        "the preparation gives up",
        failed(prepare=terminated(44, wire(make_failure(FailureReason.DATASET_EMPTY)))),
        "DatasetEmpty", False, True,
    ),
    Row(
        "another attempt of the job still trains",
        failed(trainer=terminated(75)),
        "AttemptRunning", True, True, ("still training",),
    ),
    Row(
        "of several nodes, another one's pod has ended",
        failed(trainer=terminated(69)),
        "PeersLost", True, False, ("another pod", "last checkpoint", "NetworkPolicy"), nodes=2,
    ),
    Row(
        "the preparation could not reach its store",
        failed(prepare=terminated(1, wire(make_failure(FailureReason.DATASET_UNAVAILABLE)))),
        "DatasetUnavailable", True, True, ("four times",),
    ),
    Row(
        "a crash",
        failed(trainer=terminated(1, "Traceback\nRuntimeError: CUDA error")),
        "Crashed", True, True, ("RuntimeError: CUDA error", "four times"),
    ),
    Row(
        "refused by the kubelet",
        failed(reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices"),
        "Crashed", True, True, ("no healthy devices",),
    ),
]  # fmt: skip
each_row = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)


@each_row
def test_what_the_user_is_told(row: Row) -> None:
    ending = ending_of(pod_facts(row.pod))
    assert ending is not None
    assert (ending.reason, ending.retried, ending.counted) == (row.reason, row.retried, row.counted)
    for words in row.say:
        assert words in ending.message


@each_row
def test_kubernetes_does_what_the_table_says(row: Row) -> None:
    action = policy_action(
        training_job(make_job({"nodes": row.nodes}), CONFIG)["spec"]["podFailurePolicy"]["rules"], row.pod["status"]
    )
    expected = {(True, False): "Ignore", (True, True): "Count", (False, True): "FailJob"}
    assert action == expected[row.retried, row.counted]


def test_of_pods_that_end_together_the_one_that_was_the_cause_is_told() -> None:
    cause = failed(name="pod-0", created="2026-01-01T11:30:00Z", trainer=terminated(1, "Traceback\nIndexError: 7"))
    lost = [failed(name=name, created="2026-01-01T11:30:01Z", trainer=terminated(69)) for name in ("pod-1", "pod-2")]
    found = latest_ending(map(pod_facts, [cause, *lost]))
    assert found is not None
    assert (found[0].name, found[1].reason) == ("pod-0", "Crashed")
    only_lost = latest_ending(map(pod_facts, lost))
    assert only_lost is not None
    assert only_lost[1].reason == "PeersLost"


def test_four_tries_are_the_jobs_limit() -> None:
    assert BACKOFF_LIMIT == 3


def policy_action(rules: list[Object], status: Object) -> str:
    """The first rule that matches, as the Job controller finds it; else the failure counts against the limit.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    ends = [
        entry["state"]["terminated"]["exitCode"]
        for entry in (*status["initContainerStatuses"], *status["containerStatuses"])
        if "terminated" in entry["state"]
    ]
    conditions = {(entry["type"], entry["status"]) for entry in status["conditions"]}
    for rule in rules:
        codes = rule.get("onExitCodes", {})
        assert codes.get("operator", "In") == "In"
        if any(code != 0 and code in codes.get("values", []) for code in ends):
            return str(rule["action"])
        if any((wanted["type"], wanted["status"]) in conditions for wanted in rule.get("onPodConditions", [])):
            return str(rule["action"])
    return "Count"


UNFAILED = {
    "runs": training_pod(trainer=running()),
    "succeeded": training_pod(phase="Succeeded", trainer=terminated(0)),
    "waits": training_pod(phase="Pending"),
}


@pytest.mark.parametrize("pod", UNFAILED.values(), ids=UNFAILED.keys())
def test_what_has_not_failed_has_no_ending(pod: Object) -> None:
    assert ending_of(pod_facts(pod)) is None


def test_the_newest_failure_is_the_latest() -> None:
    old = failed(name="pod-1", created="2026-01-01T11:00:00Z", trainer=terminated(1))
    new = failed(name="pod-2", created="2026-01-01T11:10:00Z", trainer=terminated(143))
    alive = training_pod("pod-3", created="2026-01-01T11:20:00Z", trainer=running())
    found = latest_ending([pod_facts(body) for body in (old, alive, new)])
    assert found is not None
    assert (found[0].name, found[1].reason) == ("pod-2", "AskedToLeave")
    assert latest_ending([pod_facts(alive)]) is None


@pytest.mark.parametrize(
    ("pod", "time"),
    [
        (failed(trainer=terminated(1, finished="2026-01-01T11:50:00Z")), "11:50"),
        (failed(trainer=running(), conditions=disruption("DeletionByPodGC")), "11:58"),
        (failed(), "12:00"),
    ],
    ids=["its container", "its disruption", "nobody tells"],
)
def test_when_it_ended(pod: Object, time: str) -> None:
    assert ended_at(pod_facts(pod), NOON).strftime("%H:%M") == time
