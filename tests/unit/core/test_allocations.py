"""Pods' time on nodes, counted although pods and operators come and go."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_operator.core.allocations import (
    GRACE,
    LISTED_PODS,
    observed,
    pods_so_far,
    running,
    seconds,
    would_be_lost,
)
from finetune_operator.core.workloads import PodFacts, job_facts, pod_facts
from finetune_operator.resources.cost import ALLOCATIONS_MAX, AllocationStatus
from finetune_operator.resources.finetunejob import MAX_NODES
from tests.builders import NOON, job_body, terminated, training_pod

NOTHING = AllocationStatus()
JOB = job_facts(job_body("uid"))


def pod(name: str, start_minute: int, end_minute: int | None = None) -> PodFacts:
    """On a node from one minute past eleven to another."""
    body = training_pod(name, phase="Running" if end_minute is None else "Failed")
    body["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": f"2026-01-01T11:{start_minute:02}:00Z"}
    ]
    facts = pod_facts(body)
    if end_minute is None:
        return facts
    ended = pod_facts(training_pod(trainer=terminated(143, finished=f"2026-01-01T11:{end_minute:02}:00Z")))
    return replace(facts, containers=ended.containers)


def test_an_open_pod_counts_until_now() -> None:
    known = observed(NOTHING, [pod("a", 30)], JOB, NOON)
    assert (seconds(known, NOON), running(known)) == (1800, 1)
    assert seconds(known, NOON + timedelta(minutes=1)) == 1860


def test_an_ended_pod_counts_until_its_end() -> None:
    known = observed(NOTHING, [pod("a", 30, 40)], JOB, NOON)
    assert (seconds(known, NOON), running(known)) == (600, 0)


def test_a_pod_without_a_node_holds_nothing_yet() -> None:
    waiting = pod_facts(training_pod("a", phase="Pending"))
    known = observed(NOTHING, [waiting], JOB, NOON)
    assert (seconds(known, NOON), pods_so_far(known, [waiting])) == (0, 1)


def test_pods_that_are_gone_stay_counted() -> None:
    known = observed(NOTHING, [pod("a", 10, 20)], JOB, NOON)
    known = observed(known, [pod("b", 30)], JOB, NOON)
    assert seconds(known, NOON) == 600 + 1800
    assert pods_so_far(known, [pod("b", 30)]) == 2


def test_a_pod_that_has_gone_counts_until_that_is_seen() -> None:
    known = observed(NOTHING, [pod("a", 30)], JOB, NOON)
    assert would_be_lost(known, [])
    closed = observed(known, [], JOB, NOON + timedelta(seconds=5))
    assert seconds(closed, NOON + timedelta(hours=9)) == 1805
    assert not would_be_lost(closed, [])


def test_gone_while_the_operator_was_away_it_counts_no_longer_than_its_job_let_it() -> None:
    known = observed(NOTHING, [pod("a", 30)], JOB, NOON)
    suspended = {"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T12:10:00Z"}
    job = job_facts(job_body("uid", suspended=True, conditions=(suspended,)))
    closed = observed(known, [], job, NOON + timedelta(hours=9))
    assert seconds(closed, NOON + timedelta(hours=9)) == 40 * 60 + GRACE.total_seconds()


def test_a_pod_that_goes_before_it_was_listed_is_written_at_once() -> None:
    going = replace(pod("a", 30), deleting=True)
    assert would_be_lost(NOTHING, [going])
    assert not would_be_lost(observed(NOTHING, [going], JOB, NOON), [going])
    assert not would_be_lost(NOTHING, [replace(going, scheduled_at=None)])


def test_a_pod_that_lost_its_node_ends_with_its_disruption() -> None:
    lost = replace(
        pod("a", 30),
        phase="Failed",
        disruption="DeletionByPodGC",
        disrupted_at=datetime.fromisoformat("2026-01-01T11:45:00Z"),
    )
    assert seconds(observed(NOTHING, [lost], JOB, NOON), NOON) == 900


def test_a_pod_that_failed_without_a_time_ends_as_that_is_seen() -> None:
    running_before = observed(NOTHING, [pod("a", 30)], JOB, NOON)
    failed = replace(pod("a", 30), phase="Failed")
    assert seconds(observed(running_before, [failed], JOB, NOON), NOON + timedelta(hours=9)) == 1800


def test_a_pod_that_the_kubelet_refused_has_cost_nothing() -> None:
    refused = replace(pod("a", 30), phase="Failed", reason="UnexpectedAdmissionError")
    assert seconds(observed(NOTHING, [refused], JOB, NOON), NOON) == 0


@given(st.integers(1, 45), st.booleans())
def test_any_number_of_attempts_is_counted_once_in_bounded_space(count: int, seen_for_ever: bool) -> None:
    """Failed pods of disruptions are kept by Kubernetes, or not; the list stays short and the sum right."""
    known, pods = NOTHING, list[PodFacts]()
    for number in range(count):
        attempt = pod(f"pod-{number:03}", number, number + 1)
        pods = [*pods, attempt] if seen_for_ever else [attempt]
        known = observed(known, shuffled(pods), JOB, NOON)
        known = AllocationStatus.model_validate(known.to_dict())
    assert seconds(known, NOON) == count * 60
    assert pods_so_far(known, pods) == count
    assert len(known.pods) == min(count, LISTED_PODS) <= ALLOCATIONS_MAX


@settings(max_examples=30)
@given(st.integers(0, MAX_NODES), st.integers(1, 20), st.booleans())
def test_pods_that_never_end_keep_no_others_listed(stuck: int, attempts: int, seen_for_ever: bool) -> None:
    """As on nodes that are unreachable, or whose kubelet hangs, while the other pods come and go."""
    dead = [pod(f"dead-{number:02}", 0) for number in range(stuck)]
    known, others = NOTHING, list[PodFacts]()
    for minute in range(1, attempts + 1):
        attempt = [pod(f"pod-{minute:02}-{index:02}", minute) for index in range(MAX_NODES - stuck)]
        known = observed(known, [*dead, *others, *attempt], JOB, NOON)
        ended = [pod(f"pod-{minute:02}-{index:02}", minute, minute + 1) for index in range(MAX_NODES - stuck)]
        others = [*others, *ended] if seen_for_ever else ended
        known = observed(known, shuffled([*dead, *others]), JOB, NOON)
        known = AllocationStatus.model_validate(known.to_dict())
    count = attempts * (MAX_NODES - stuck)
    assert seconds(known, NOON) == stuck * 3600 + count * 60
    assert pods_so_far(known, dead) == stuck + count
    assert running(known) == stuck
    assert len(known.pods) <= LISTED_PODS <= ALLOCATIONS_MAX
    late = [replace(one, phase="Failed") for one in dead]
    known = observed(known, [*late, *others], JOB, NOON + timedelta(hours=1))
    assert (running(known), pods_so_far(known, [])) == (0, stuck + count)


def shuffled(pods: Sequence[PodFacts]) -> list[PodFacts]:
    return [*pods[::2], *pods[1::2]]
