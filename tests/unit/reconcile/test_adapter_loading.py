"""When a version's adapter is loaded into its engine, taken out or refused, and what is told until it answers."""

import pytest

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import adapter_of
from finetune_operator.reconcile.engine_sharing import EnginePod, Refusal
from finetune_operator.reconcile.modelversion import Observed, reconcile
from finetune_operator.reconcile.plan import LoadAdapter, UnloadAdapter
from finetune_operator.resources.modelversion import State
from tests.builders import CONFIG, NOON, after, make_version, pod_body, running, terminated, waiting
from tests.unit.reconcile.engines import (
    READY,
    REFUSAL,
    V1,
    applied,
    decide,
    engine_pod,
    loaded,
    reason_of,
    status_of,
    world,
)

STUCK = ({"type": "Progressing", "status": "False", "message": "exceeded quota"},)
CRASHED = EnginePod(
    pod_facts(pod_body(main={"vllm": terminated(1, "Traceback\nOSError: no tiny-llama")}, phase="Failed"))
)
NO_IMAGE = EnginePod(pod_facts(pod_body(main={"vllm": waiting("ErrImagePull", "not found")}, phase="Pending")))
STARTING = {
    "no pod": (world(V1), "EngineStarting", "no engine pod is ready yet"),
    "a pod that is not ready": (world(V1, pods=(engine_pod(ready=False),)), "EngineStarting", ""),
    "quota": (world(V1, deployment_conditions=STUCK), "EngineNotProgressing", "exceeded quota"),
    "no image": (world(V1, pods=(NO_IMAGE,)), "ErrImagePull", "not found"),
    "a crash": (world(V1, pods=(CRASHED,)), "EngineCrashing", "OSError: no tiny-llama"),
    "a ready pod without it": (world(V1, pods=(engine_pod(),)), "Loading", "loaded in 0 of 1 engine pods"),
    "listed, but never asked": (
        world(V1, pods=(engine_pod("plato-v1", probed=False),)),
        "Loading",
        "loaded in 0 of 1 engine pods",
    ),
    "in one pod of two": (
        world(V1, pods=(engine_pod("plato-v1"), engine_pod(name="pod-2"))),
        "Loading",
        "loaded in 1 of 2 engine pods",
    ),
    "a pod that does not tell": (world(V1, pods=(engine_pod(unknown=True),)), "Loading", ""),
}


class TestLoad:
    @pytest.mark.parametrize(("seen", "reason", "hint"), STARTING.values(), ids=STARTING.keys())
    def test_why_it_does_not_answer_yet(self, seen: Observed, reason: str, hint: str) -> None:
        status = status_of(decide(V1, seen))
        assert (status.state, reason_of(status)) == (State.PENDING, reason)
        assert hint in (status.message or "")
        assert not is_true(status.conditions, "Loaded")
        assert is_true(status.conditions, "Reconciling")

    @pytest.mark.parametrize("cause", ["", ": ErrImagePull: not found"], ids=["an older kubelet", "a newer kubelet"])
    def test_a_missing_image_is_told_once_however_often_it_is_pulled(self, cause: str) -> None:
        waits = waiting("ImagePullBackOff", f'Back-off pulling image "server:1"{cause}')
        back_off = world(V1, pods=(EnginePod(pod_facts(pod_body(main={"vllm": waits}, phase="Pending"))),))
        failed = world(V1, pods=(NO_IMAGE,))
        version = after(V1, decide(V1, failed))
        for seen in (back_off, failed, back_off):
            assert status_of(decide(version, seen)).to_dict() == version.status.to_dict()
        assert status_of(decide(V1, back_off)).message != "", "nothing was told before"

    def test_it_is_loaded_into_each_ready_pod_that_lacks_it(self) -> None:
        pods = (engine_pod("plato-v1"), engine_pod(name="pod-2"), engine_pod(name="pod-3", ready=False))
        plan = decide(V1, world(V1, pods=pods))
        assert plan.actions == (LoadAdapter("uid-of-pod-2", "10.0.0.1", adapter_of(V1)),)

    def test_once_every_ready_pod_answers_it_is_ready(self) -> None:
        pods = (engine_pod("plato-v1"), engine_pod("plato-v1", name="pod-2"), engine_pod(name="pod-3", ready=False))
        plan = decide(V1, world(V1, pods=pods))
        status = status_of(plan)
        assert plan.actions == ()
        assert (status.state, status.replicas, status.ready_replicas) == (State.READY, "2/1", 2)
        assert is_true(status.conditions, "Loaded")
        assert is_true(status.conditions, "Ready")
        assert find(status.conditions, "Reconciling") is None
        assert [event.reason for event in plan.events] == ["Loaded"]

    def test_what_an_earlier_operator_had_asked_is_believed(self) -> None:
        version = loaded(1)
        plan = decide(version, world(version, pods=(engine_pod("plato-v1", probed=False),)))
        assert plan.actions == ()
        assert is_true(status_of(plan).conditions, "Loaded")

    def test_an_engine_too_busy_to_answer_keeps_its_traffic(self) -> None:
        version = loaded(1, active=True)
        plan = decide(version, world(version, pods=(engine_pod(unknown=True),)))
        assert plan.actions == ()
        assert status_of(plan).state is State.DEPLOYED

    def test_an_adapter_that_vanished_is_loaded_again(self) -> None:
        version = loaded(1)
        plan = decide(version, world(version, pods=(engine_pod(),)))
        assert plan.actions == (LoadAdapter("uid-of-pod-1", "10.0.0.1", adapter_of(version)),)
        assert not is_true(status_of(plan).conditions, "Loaded")
        assert plan.requeue_after_seconds == 60.0

    def test_an_archived_version_is_unloaded_once_no_route_leads_to_it(self) -> None:
        archived = loaded(1, {"state": "Archived"}, active=True)
        second = loaded(2)
        pods = (engine_pod("plato-v1", "plato-v2"),)
        plan = decide(archived, world(archived, second, pods=pods))
        unload = UnloadAdapter("uid-of-pod-1", "10.0.0.1", "plato-v1")
        assert unload not in plan.actions
        retired = after(archived, plan)
        for version, other in ((retired, second), (second, retired)):
            assert unload in decide(version, world(version, other, pods=pods)).actions
        status = status_of(plan)
        assert (status.state, status.history[-1].why) == (State.ARCHIVED, "spec.state is Archived")
        assert not is_true(status.conditions, "Loaded")
        assert is_true(status.conditions, "Ready")


class TestRefusal:
    def test_a_refused_adapter_is_final_and_says_why(self) -> None:
        seen = world(V1, pods=(engine_pod(refused={"plato-v1": REFUSAL}),))
        plan = decide(V1, seen)
        status = status_of(plan)
        assert plan.actions == ()
        assert (status.state, status.message) == (State.FAILED, REFUSAL.message)
        assert reason_of(status, "Stalled") == "RankTooLarge"
        assert find(status.conditions, "Reconciling") is None
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "RankTooLarge")]

    def test_it_is_not_tried_again_by_another_pod_or_operator(self) -> None:
        refused = after(V1, decide(V1, world(V1, pods=(engine_pod(refused={"plato-v1": REFUSAL}),))))
        plan = decide(refused, world(refused, pods=(engine_pod(name="pod-2"),)))
        assert not any(isinstance(action, LoadAdapter) for action in plan.actions)
        assert status_of(plan).state is State.FAILED
        assert plan.events == ()

    def test_it_is_no_longer_in_the_engines_list(self) -> None:
        second = loaded(2)
        refused = after(
            V1, decide(V1, world(V1, second, pods=(engine_pod("plato-v2", refused={"plato-v1": REFUSAL}),)))
        )
        config_map = applied(decide(second, Observed(versions=(second, refused))))["configmaps"]
        assert "plato-v1" not in config_map["data"]["adapters.json"]

    def test_an_edited_spec_is_tried_again(self) -> None:
        pods = (engine_pod(refused={"plato-v1": REFUSAL}),)
        refused = after(V1, decide(V1, world(V1, pods=pods)))
        edited = make_version(1, {"notes": "the volume is back"}, generation=2, status=refused.status.to_dict())
        plan = decide(edited, world(edited, pods=pods))
        assert LoadAdapter("uid-of-pod-1", "10.0.0.1", adapter_of(edited)) in plan.actions
        assert find(status_of(plan).conditions, "Stalled") is None

    def test_a_message_of_any_length_fits_the_schema(self) -> None:
        long = Refusal("AdapterRejected", "x" * 5000)
        assert (
            len(status_of(decide(V1, world(V1, pods=(engine_pod(refused={"plato-v1": long}),)))).message or "") == 4096
        )


def test_an_adapter_of_an_earlier_version_of_that_name_is_replaced_and_does_not_answer() -> None:
    """Whoever deletes a version and makes another of the same name must not be answered by the old one."""
    stale = EnginePod(
        pod_facts(pod_body("pod-1", main={"vllm": running()}, conditions=READY)),
        {"plato-v1": "/artifacts/finetune/plato/job-of-old/adapter"},
        frozenset({"plato-v1"}),
    )
    version = make_version(1)
    plan = reconcile(version, world(version, pods=(stale,)), NOON, CONFIG)
    unloads = [action for action in plan.actions if isinstance(action, UnloadAdapter)]
    assert [action.name for action in unloads] == ["plato-v1"]
    assert not is_true(after(version, plan).status.conditions, "Loaded")


def test_an_engine_that_fails_to_load_says_why() -> None:
    failing = EnginePod(
        pod_facts(pod_body("pod-1", main={"vllm": running()}, conditions=READY)),
        failing={"plato-v1": "/v1/load_lora_adapter answered 500"},
    )
    version = make_version(1)
    status = after(version, reconcile(version, world(version, pods=(failing,)), NOON, CONFIG)).status
    loaded_condition = find(status.conditions, "Loaded")
    assert loaded_condition is not None
    assert (loaded_condition.reason, loaded_condition.message) == ("LoadFailing", "/v1/load_lora_adapter answered 500")
