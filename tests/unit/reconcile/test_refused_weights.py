"""Merged weights that one pod of an engine refuses, while others answer or may yet do so."""

from dataclasses import replace

import pytest

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import directory_in
from finetune_operator.reconcile.abtest import reconcile
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Probe
from finetune_operator.resources.abtest import ABTestStatus, TestPhase
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import CONFIG, NOON, Object, after, make_test, make_version, pod_body, running, terminated, waiting
from tests.unit.reconcile import comparisons
from tests.unit.reconcile.engines import (
    ENGINE,
    READY,
    decide,
    engine,
    engine_pod,
    loaded,
    reason_of,
    removal,
    status_of,
    world,
)
from tests.unit.reconcile.test_merged_rollout import (
    ADAPTER,
    MERGED,
    MERGED_ENGINE,
    asking_for,
    merged,
    merged_pod,
    refusing_pod,
)

TWO: Object = merged(MERGED, {"serving": {"replicas": 2}})
LIVE = loaded(1, TWO, active=True)
REASON, WORDS = "DigestMismatch", "the files changed: merge anew"


def again(pod: EnginePod, state: Object, *, ready: bool = False) -> EnginePod:
    """The pod after its container has been started once more, or waits for that."""
    refused = terminated(49, pod.pod.container("vllm").message)
    body = pod_body(pod.pod.name, main={"vllm": state}, conditions=READY if ready else ())
    body["status"]["containerStatuses"][0]["lastState"] = refused
    known = {"plato-v1": directory_in(make_version(1, MERGED), MERGED_ENGINE)}
    return EnginePod(pod_facts(body), known if ready else None)


BACK_OFF = again(refusing_pod(), waiting("CrashLoopBackOff"))


@pytest.mark.parametrize(
    "refusing",
    [refusing_pod(), BACK_OFF, again(refusing_pod(), running())],
    ids=["ended", "waiting for its next try", "trying again"],
)
def test_one_pod_of_a_live_version_takes_nothing_from_those_that_answer(refusing: EnginePod) -> None:
    """A second replica, or the first pod of a newer image."""
    pods = (merged_pod(probed=True), refusing)
    plan = decide(LIVE, world(LIVE, pods=pods))
    assert plan.actions == ()
    status = status_of(plan)
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, MERGED_ENGINE, None)
    assert (is_true(status.conditions, "Loaded"), reason_of(status, "Loaded")) == (True, "Loaded")
    stalled = find(status.conditions, "Stalled")
    assert stalled is not None
    assert (stalled.reason, stalled.message) == (REASON, WORDS)
    assert status.message == f"every engine pod that is ready answers for it; another one refuses it: {WORDS}"
    assert [event.reason for event in plan.events] == [REASON]
    told = after(LIVE, plan)
    second = decide(told, world(told, pods=pods))
    assert (second.actions, second.status, second.events) == ((), plan.status, ())
    for other in (refusing_pod(), BACK_OFF, again(refusing_pod(), running())):
        trying = decide(told, world(told, pods=(pods[0], other)))
        assert (trying.status, trying.events) == (plan.status, ()), "told once, not with each try"
    healed = status_of(decide(told, world(told, pods=(merged_pod(probed=True),))))
    assert find(healed.conditions, "Stalled") is None


def test_a_new_version_is_served_by_the_pods_that_take_it() -> None:
    version = make_version(1, TWO)
    pods = (merged_pod(), refusing_pod())
    assert decide(version, world(version, pods=pods)).actions == (Probe("uid-of-merged", "10.0.0.1", "plato-v1"),)
    pods = (merged_pod(probed=True), refusing_pod())
    status = status_of(decide(version, world(version, pods=pods)))
    assert (status.state, reason_of(status, "Stalled")) == (State.READY, REASON)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"vllm": running()}, id="starts yet, or is not ready for a moment"),
        pytest.param({"vllm": terminated(137, reason="OOMKilled")}, id="ended of something else"),
    ],
)
def test_while_another_pod_may_answer_again_nothing_is_final(other: Object) -> None:
    pods = (EnginePod(pod_facts(pod_body("other", main=other)), None), refusing_pod())
    lost = after(LIVE, decide(LIVE, world(LIVE, pods=pods)))
    for _ in range(2):
        assert (lost.status.state, reason_of(lost.status)) == (State.PENDING, REASON)
        assert find(lost.status.conditions, "Stalled") is None
        plan = decide(lost, world(lost, pods=pods))
        assert plan.actions == ()
        lost = after(lost, plan)


def test_all_pods_refusing_is_final_in_the_end() -> None:
    pods = (refusing_pod(), replace(refusing_pod(), pod=replace(refusing_pod().pod, name="b", uid="uid-of-b")))
    first = decide(LIVE, world(LIVE, pods=pods))
    assert first.actions == ()
    lost = after(LIVE, first)
    assert not is_true(lost.status.conditions, "Loaded")
    refused = after(lost, decide(lost, world(lost, pods=pods)))
    assert (refused.status.state, reason_of(refused.status, "Stalled")) == (State.FAILED, REASON)
    assert decide(refused, world(refused, pods=pods)).actions == (removal(MERGED_ENGINE, *pods),)


def test_a_pod_that_is_deleted_keeps_nobody_from_giving_up() -> None:
    version = make_version(1, MERGED)
    leaving = merged_pod(name="leaving", probed=True)
    pods = (replace(leaving, pod=replace(leaving.pod, deleting=True)), refusing_pod())
    assert status_of(decide(version, world(version, pods=pods))).state is State.FAILED


@pytest.mark.parametrize("ready", [True, False])
def test_what_runs_again_has_not_refused(ready: bool) -> None:
    """The refusal is in its last state still."""
    version = make_version(1, MERGED)
    pod = again(refusing_pod(), running(), ready=ready)
    plan = decide(version, world(version, pods=(pod,)))
    assert [type(action) for action in plan.actions] == ([Probe] if ready else [])
    assert (status_of(plan).state, find(status_of(plan).conditions, "Stalled")) == (State.PENDING, None)


def test_a_move_waits_for_all_pods_and_says_which_one_is_in_the_way() -> None:
    moving = asking_for(loaded(1, merged(ADAPTER, {"serving": {"replicas": 2}}), active=True), MERGED)
    left = (engine(ENGINE, engine_pod("plato-v1")),)
    seen = world(moving, pods=(merged_pod(probed=True), refusing_pod()), left=left)
    assert seen.deployment is not None
    seen = replace(seen, deployment=replace(seen.deployment, wanted_replicas=2))
    begun = after(moving, decide(moving, seen))
    status = status_of(decide(begun, seen))
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, MERGED_ENGINE)
    reconciling = find(status.conditions, "Reconciling")
    assert reconciling is not None
    assert (reconciling.reason, reconciling.message) == (
        REASON,
        f"1 of 2 engine pods answer for it, one refuses it: {WORDS}",
    )
    assert find(status.conditions, "Stalled") is None


def test_a_refused_move_ends_no_test_of_a_version_that_answers() -> None:
    moving = asking_for(loaded(1, ADAPTER, active=True), MERGED)
    left = (engine(ENGINE, engine_pod("plato-v1")),)
    begun = after(moving, decide(moving, world(moving, left=left)))
    refused: ModelVersion = after(begun, decide(begun, world(begun, pods=(refusing_pod(),), left=left)))
    assert reason_of(refused.status, "Stalled") == REASON
    test = make_test(status=comparisons.RUNNING)
    seen = comparisons.world(comparisons.tally(), versions=(refused, comparisons.V2))
    plan = reconcile(test, seen, NOON, CONFIG)
    assert ABTestStatus.model_validate(plan.status).phase is TestPhase.RUNNING
