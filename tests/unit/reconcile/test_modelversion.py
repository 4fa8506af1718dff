"""The life of a ModelVersion: sharing an engine, being loaded, becoming and ceasing to be the active one."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import adapter_of, engine_manifests
from finetune_operator.reconcile.engine_sharing import EnginePod, Refusal
from finetune_operator.reconcile.modelversion import Observed, reconcile, refused
from finetune_operator.reconcile.plan import Apply, LoadAdapter, Plan, UnloadAdapter
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import HISTORY_MAX_ENTRIES, ModelVersion, State
from tests.builders import (
    CONFIG,
    NOON,
    Object,
    after,
    condition,
    make_test,
    make_version,
    merged,
    pod_body,
    running,
    terminated,
    waiting,
)
from tests.unit.reconcile.engines import (
    ENGINE,
    READY,
    V1,
    decide,
    engine,
    engine_pod,
    loaded,
    reason_of,
    removal,
    status_of,
    world,
)

HOUR = timedelta(hours=1)


class TestEngine:
    def test_a_new_version_gets_an_engine(self) -> None:
        plan = decide(V1, Observed(versions=(V1,)))
        config_map, service, deployment = engine_manifests(ENGINE, [V1], [V1], CONFIG)
        assert plan.actions == (
            Apply("configmaps", config_map),
            Apply("services", service),
            Apply("deployments", deployment),
        )
        status = status_of(plan)
        assert (status.state, status.engine, status.served_name) == (State.PENDING, ENGINE, "plato-v1")
        assert (status.replicas, status.selector) == ("0/1", f"finetune.dev/engine={ENGINE}")
        assert reason_of(status) == "EngineStarting"

    def test_an_engine_that_is_as_it_should_be_is_left_alone(self) -> None:
        assert decide(V1, world(V1)).actions == ()

    def test_versions_that_agree_in_parameters_share_one(self) -> None:
        second = make_version(2, {"serving": {"replicas": 3}})
        (config_map, _, deployment) = (
            action.body
            for action in decide(second, world(second, V1, applied=False)).actions
            if isinstance(action, Apply)
        )
        assert deployment["metadata"]["name"] == ENGINE
        assert deployment["spec"]["replicas"] == 3
        assert "plato-v1" in config_map["data"]["adapters.json"]
        assert "plato-v2" in config_map["data"]["adapters.json"]

    def test_other_parameters_get_another(self) -> None:
        second = make_version(2, {"serving": {"maxModelLen": 1024}})
        assert status_of(decide(second, world(second, V1))).engine != ENGINE

    @pytest.mark.parametrize("serving", [{"maxModelLen": 1024}, None], ids=["served otherwise", "no longer served"])
    def test_the_one_that_a_version_never_answered_from_goes_unless_others_ask_for_it(
        self, serving: Object | None
    ) -> None:
        edited, other = make_version(1, {"serving": serving}), make_version(2)
        gone = removal(ENGINE)
        assert gone in decide(edited, world(edited, left=(engine(ENGINE),))).actions
        assert gone not in decide(edited, world(edited, other, left=(engine(ENGINE),))).actions

    def test_a_registered_version_needs_none(self) -> None:
        registered = make_version(1, {"serving": None})
        plan = decide(registered, Observed(versions=(registered,)))
        status = status_of(plan)
        assert plan.actions == ()
        assert (status.state, status.engine, status.served_name, status.replicas) == (State.READY, None, None, None)
        assert reason_of(status) == "Registered"

    def test_deleting_plans_nothing(self) -> None:
        gone = make_version(1, deleting=True)
        assert decide(gone, world(gone, pods=(engine_pod("plato-v1"),))) == Plan()

    def test_a_deleted_version_is_taken_out_by_those_that_stay(self) -> None:
        gone = make_version(1, deleting=True)
        second = loaded(2)
        plan = decide(second, world(second, gone, pods=(engine_pod("plato-v1", "plato-v2"),)))
        assert UnloadAdapter("uid-of-pod-1", "10.0.0.1", "plato-v1") in plan.actions
        assert not any("plato-v1" in str(action.body) for action in plan.actions if isinstance(action, Apply))

    def test_the_last_one_that_is_archived_takes_the_engine_along(self) -> None:
        archived = make_version(1, {"state": "Archived"})
        plan = decide(archived, world(archived))
        assert plan.actions == (removal(ENGINE),)


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


REFUSAL = Refusal("RankTooLarge", "rank 64 is beyond the engine's 16: raise spec.serving.maxLoraRank")


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
        plan = decide(second, Observed(versions=(second, refused)))
        config_map = plan.actions[0]
        assert isinstance(config_map, Apply)
        assert "plato-v1" not in config_map.body["data"]["adapters.json"]

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


class TestEngineRefused:
    def test_an_engine_that_the_api_server_refuses_is_final_until_the_spec_changes(self) -> None:
        plan = refused(V1, Observed(versions=(V1,)), "Invalid value: must be less than memory limit", NOON, CONFIG)
        assert plan is not None
        stalled = after(V1, plan)
        assert (stalled.status.state, reason_of(stalled.status, "Stalled")) == (State.FAILED, "EngineRefused")
        assert "change spec.serving" in (stalled.status.message or "")
        assert decide(stalled, Observed(versions=(stalled,))).actions == ()
        edited = make_version(1, {"serving": {"replicas": 2}}, generation=2, status=stalled.status.to_dict())
        assert len(decide(edited, Observed(versions=(edited,))).actions) == 3

    def test_what_answers_already_goes_on(self) -> None:
        assert refused(loaded(1, active=True), Observed(), "Invalid value", NOON, CONFIG) is None


TWO_SLOTS = {"serving": {"maxLoras": 2}}


class TestSlots:
    def test_who_finds_no_slot_waits_by_name(self) -> None:
        held = (loaded(1, TWO_SLOTS), loaded(2, TWO_SLOTS))
        third = make_version(3, TWO_SLOTS)
        status = status_of(decide(third, Observed(versions=(*held, third))))
        assert (status.state, reason_of(status)) == (State.PENDING, "EngineFull")
        assert status.message == (
            "all 2 slots are taken by plato-v1, plato-v2: archive one, or raise spec.serving.maxLoras"
        )

    @pytest.mark.parametrize(
        "third",
        [
            make_version(3, merged(TWO_SLOTS, {"state": "Deployed"})),
            make_version(3, TWO_SLOTS, status={"promotedAt": "2026-01-01T11:00:00Z"}),
        ],
        ids=["pinned", "promoted"],
    )
    def test_who_is_wanted_takes_the_slot_of_who_is_not(self, third: ModelVersion) -> None:
        held = (loaded(1, TWO_SLOTS), loaded(2, TWO_SLOTS))
        assert reason_of(status_of(decide(third, Observed(versions=(*held, third))))) != "EngineFull"
        assert reason_of(status_of(decide(held[0], Observed(versions=(*held, third))))) == "EngineFull"

    def test_the_active_version_never_loses_its_slot_to_a_new_one(self) -> None:
        held = (loaded(1, TWO_SLOTS, active=True), loaded(2, TWO_SLOTS))
        third = make_version(3, TWO_SLOTS)
        for version in held:
            assert reason_of(status_of(decide(version, Observed(versions=(*held, third))))) != "EngineFull"

    def test_an_archived_or_refused_version_frees_its_slot(self) -> None:
        archived = loaded(1, merged(TWO_SLOTS, {"state": "Archived"}))
        refused = make_version(2, TWO_SLOTS, status={"conditions": [condition("Stalled")], "observedGeneration": 1})
        third = make_version(3, TWO_SLOTS)
        status = status_of(decide(third, Observed(versions=(archived, refused, third))))
        assert reason_of(status) == "EngineStarting"


def answering(version: ModelVersion, *others: ModelVersion, tests: tuple[ABTest, ...] = ()) -> Plan:
    """The decision on a version in an engine that has all of them loaded."""
    names = [v.metadata.name for v in (version, *others)]
    return decide(version, world(version, *others, pods=(engine_pod(*names),), tests=tests))


WON = make_test(status={"phase": "Concluded", "verdict": "Won", "concludedAt": "2026-01-01T11:30:00Z"})
LOST = make_test(status={"phase": "Concluded", "verdict": "Lost", "concludedAt": "2026-01-01T11:30:00Z"})
NOTIFY = make_test(
    {"onWin": "Notify"}, status={"phase": "Concluded", "verdict": "Won", "concludedAt": "2026-01-01T11:30:00Z"}
)

PROMOTIONS: dict[str, tuple[ModelVersion, tuple[ABTest, ...], str | None]] = {
    "Manual, just loaded": (make_version(2), (), None),
    "Always, just loaded": (make_version(2, {"promotion": "Always"}), (), "spec.promotion is Always"),
    "Always, but promoted before": (
        loaded(2, {"promotion": "Always"}, promotedAt="2026-01-01T10:00:00.000000Z"),
        (),
        None,
    ),
    "Always, but held back": (make_version(2, {"promotion": "Always", "state": "Ready"}), (), None),
    "pinned": (make_version(2, {"state": "Deployed"}), (), "spec.state is Deployed"),
    "pinned again after it was released": (
        loaded(2, {"state": "Deployed"}, observedState="Ready", promotedAt="2026-01-01T10:00:00.000000Z"),
        (),
        "spec.state is Deployed",
    ),
    "pinned as before": (
        loaded(2, {"state": "Deployed"}, observedState="Deployed", promotedAt="2026-01-01T10:00:00.000000Z"),
        (),
        None,
    ),
    "won": (loaded(2), (WON,), "won ABTest duel"),
    "won, after an earlier promotion": (
        loaded(2, promotedAt="2026-01-01T10:00:00.000000Z"),
        (WON,),
        "won ABTest duel",
    ),
    "won, and promoted for it": (loaded(2, promotedAt="2026-01-01T11:30:00.500000Z"), (WON,), None),
    "won, but held back": (loaded(2, {"state": "Ready"}), (WON,), None),
    "won, only to be told": (loaded(2), (NOTIFY,), None),
    "lost": (loaded(2), (LOST,), None),
    "another one won": (loaded(3), (WON,), None),
}


def lost(concluded: str = "2026-01-01T11:30:00.000000Z", **spec: Any) -> ABTest:
    status = {"phase": "Concluded", "verdict": "Lost", "concludedAt": concluded}
    return make_test({"onLoss": "Rollback"} | spec, status=status)


BEFORE, AFTER = "2026-01-01T11:00:00.000000Z", "2026-01-01T11:45:00.000000Z"
EARLIER = loaded(1, promotedAt="2026-01-01T10:00:00.000000Z")
CANDIDATE = loaded(2, promotedAt=BEFORE)
ROLLED_BACK = "candidate plato-v2 lost ABTest duel"

ROLLBACKS: dict[str, tuple[ModelVersion, tuple[ModelVersion, ...], ABTest, str | None]] = {
    "the active candidate lost": (EARLIER, (CANDIDATE,), lost(), ROLLED_BACK),
    "to a baseline that was never promoted": (loaded(1), (CANDIDATE,), lost(), ROLLED_BACK),
    "only to be kept": (EARLIER, (CANDIDATE,), lost(onLoss="Keep"), None),
    "not the loser itself": (CANDIDATE, (EARLIER,), lost(), None),
    "not a bystander": (loaded(3), (EARLIER, CANDIDATE), lost(), None),
    "the candidate was not active": (EARLIER, (loaded(2), loaded(3, promotedAt=BEFORE)), lost(), None),
    "the baseline is active": (loaded(1, promotedAt=BEFORE), (loaded(2),), lost(), None),
    "the candidate was promoted again afterwards": (EARLIER, (loaded(2, promotedAt=AFTER),), lost(), None),
    "already rolled back": (loaded(1, promotedAt="2026-01-01T11:30:00.000001Z"), (CANDIDATE,), lost(), None),
    "the candidate is pinned": (
        EARLIER,
        (loaded(2, {"state": "Deployed"}, observedState="Deployed", promotedAt=BEFORE),),
        lost(),
        None,
    ),
    "the baseline is held back by its spec": (loaded(1, {"state": "Ready"}), (CANDIDATE,), lost(), None),
    "a win is no loss": (
        EARLIER,
        (CANDIDATE,),
        make_test({"onLoss": "Rollback"}, status={"verdict": "Won", "concludedAt": BEFORE}),
        None,
    ),
}


class TestRollback:
    @pytest.mark.parametrize(("version", "others", "test", "why"), ROLLBACKS.values(), ids=ROLLBACKS.keys())
    def test_a_lost_test_takes_the_candidate_back(
        self, version: ModelVersion, others: tuple[ModelVersion, ...], test: ABTest, why: str | None
    ) -> None:
        plan = answering(version, *others, tests=(test,))
        status = status_of(plan)
        assert status.promoted_at == (NOON if why else version.status.promoted_at)
        if why:
            assert (status.state, status.history[-1].why) == (State.DEPLOYED, why)
            assert [event.message for event in plan.events] == [f"plato-v1 is active: {why}"]

    def test_it_happens_once(self) -> None:
        restored = after(EARLIER, answering(EARLIER, CANDIDATE, tests=(lost(),)))
        again = answering(restored, CANDIDATE, tests=(lost(),))
        assert (again.status, again.events) == (restored.status.to_dict(), ())
        promoted_again = loaded(2, promotedAt="2026-01-01T12:30:00.000000Z")
        assert status_of(answering(restored, promoted_again, tests=(lost(),))).promoted_at == NOON

    def test_a_pin_that_is_taken_off_gives_way_to_the_verdict(self) -> None:
        pinned = loaded(2, {"state": "Deployed"}, observedState="Deployed", promotedAt=BEFORE)
        assert status_of(answering(EARLIER, pinned, tests=(lost(),))).promoted_at == EARLIER.status.promoted_at
        assert status_of(answering(EARLIER, CANDIDATE, tests=(lost(),))).promoted_at == NOON


class TestPromotion:
    @pytest.mark.parametrize(("version", "tests", "why"), PROMOTIONS.values(), ids=PROMOTIONS.keys())
    def test_what_makes_a_version_the_most_recently_promoted(
        self, version: ModelVersion, tests: tuple[ABTest, ...], why: str | None
    ) -> None:
        rival = loaded(1, active=True)
        plan = answering(version, rival, tests=tests)
        status = status_of(plan)
        assert status.promoted_at == (NOON if why else version.status.promoted_at)
        if why and version.spec.version == 2:
            assert status.state is State.DEPLOYED
            entry = status.history[-1]
            assert (entry.time, entry.state, entry.why, entry.previous) == (NOON, State.DEPLOYED, why, "plato-v1")
            assert [event.reason for event in plan.events] == ["Deployed"]

    @pytest.mark.parametrize(
        ("version", "tests"),
        [
            (make_version(2, {"promotion": "Always"}), ()),
            (make_version(2, {"state": "Deployed"}), ()),
            (loaded(2), (WON,)),
        ],
        ids=["Always", "pinned", "won"],
    )
    def test_it_happens_once(self, version: ModelVersion, tests: tuple[ABTest, ...]) -> None:
        promoted = after(version, answering(version, tests=tests))
        again = reconcile(promoted, world(promoted, pods=(engine_pod("plato-v2"),), tests=tests), NOON + HOUR, CONFIG)
        assert again.status == promoted.status.to_dict()
        assert again.events == ()

    def test_nothing_is_promoted_before_it_answers(self) -> None:
        for spec in ({"promotion": "Always"}, {"state": "Deployed"}):
            version = make_version(2, spec)
            status = status_of(decide(version, world(version, pods=(engine_pod(),))))
            assert (status.promoted_at, status.observed_state) == (None, None)

    def test_the_replaced_version_says_by_whom(self) -> None:
        first = loaded(1, active=True)
        second = loaded(2, active=True)
        plan = answering(first, second)
        status = status_of(plan)
        assert status.state is State.READY
        assert status.history[-1].to_dict() == {
            "time": "2026-01-01T12:00:00Z",
            "state": "Ready",
            "why": "plato-v2 is active",
        }
        assert [event.reason for event in plan.events] == ["Replaced"]

    def test_rollback_by_pinning_the_earlier_version(self) -> None:
        first = after(loaded(1), answering(loaded(1, {"state": "Deployed"}), loaded(2, active=True)))
        assert first.status.state is State.DEPLOYED
        pinned = loaded(1, {"state": "Deployed"}).model_copy(update={"status": first.status})
        assert status_of(answering(loaded(2, active=True), pinned)).state is State.READY

    def test_rollback_and_forth_and_back_again(self) -> None:
        """The latest pin wins, though the earlier ones are still there, and though it was archived in between."""
        first, second = loaded(1, {"state": "Deployed"}), loaded(2, {"state": "Deployed"})
        first = after(first, reconcile(first, world(first, pods=(engine_pod("plato-v1"),)), NOON, CONFIG))
        names = engine_pod("plato-v1", "plato-v2")
        second = after(second, reconcile(second, world(second, first, pods=(names,)), NOON + HOUR, CONFIG))
        archived = make_version(1, {"state": "Archived"}, generation=2, status=first.status.to_dict())
        archived = after(archived, reconcile(archived, world(archived, second), NOON + 2 * HOUR, CONFIG))
        pinned = make_version(1, {"state": "Deployed"}, generation=3, status=archived.status.to_dict())
        plan = reconcile(pinned, world(pinned, second, pods=(names,)), NOON + 3 * HOUR, CONFIG)
        assert status_of(plan).state is State.DEPLOYED
        assert status_of(answering(second, after(pinned, plan))).state is State.READY

    def test_ready_demotes_and_the_one_before_takes_over(self) -> None:
        second = loaded(2, {"state": "Ready"}, active=True)
        first = loaded(1, promotedAt="2026-01-01T10:00:00.000000Z")
        plan = answering(second, first)
        assert (status_of(plan).state, status_of(plan).history[-1].why) == (State.READY, "spec.state is Ready")
        takes_over = status_of(answering(first, after(second, plan)))
        assert takes_over.state is State.DEPLOYED
        assert takes_over.history[-1].why == "spec.state of plato-v2 is Ready"

    def test_a_restart_of_the_engine_is_no_history(self) -> None:
        version = loaded(1, active=True)
        plan = decide(version, world(version))
        restarting = after(version, plan)
        assert restarting.status.state is State.PENDING
        assert plan.events == ()
        back = status_of(answering(restarting))
        assert back.state is State.DEPLOYED
        assert back.history == version.status.history

    def test_history_is_bounded(self) -> None:
        entries = [
            {"time": "2026-01-01T10:00:00Z", "state": "Ready", "why": str(n)} for n in range(HISTORY_MAX_ENTRIES)
        ]
        version = make_version(1, {"promotion": "Always"}, status={"history": entries})
        history = status_of(answering(version)).history
        assert len(history) == HISTORY_MAX_ENTRIES
        assert (history[0].why, history[-1].why) == ("1", "spec.promotion is Always")


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


NAMES = ["plato-v1", "plato-v2", "plato-v3"]
STATES = st.sampled_from([None, "Ready", "Deployed", "Archived"])
PROMOTED = st.sampled_from([None, "2026-01-01T10:00:00.000000Z", "2026-01-01T11:45:00.000000Z"])
SPECS = st.fixed_dictionaries(
    {"state": STATES, "promotion": st.sampled_from(["Manual", "Always"]), "serving": st.just({"maxLoras": 2})}
)
ENGINE_PODS = st.builds(
    lambda listed, name, ready, probed, refused, unknown: engine_pod(
        *listed, name=name, ready=ready, probed=probed, refused=refused, unknown=unknown
    ),
    st.sets(st.sampled_from(NAMES)),
    st.sampled_from(["pod-1", "pod-2"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([{}, {"plato-v2": REFUSAL}]),
    st.booleans(),
)
OTHERS = st.builds(
    lambda n, spec, promoted: loaded(n, spec, promotedAt=promoted), st.sampled_from([1, 3]), SPECS, PROMOTED
)
STEPS = st.lists(
    st.tuples(
        SPECS,
        st.lists(OTHERS, max_size=2, unique_by=lambda version: version.metadata.name),
        st.lists(ENGINE_PODS, max_size=2, unique_by=lambda entry: entry.pod.uid),
        st.sampled_from([(), (WON,), (LOST,)]),
        st.integers(min_value=1, max_value=3600),
    ),
    min_size=1,
    max_size=4,
)


@given(STEPS)
def test_nothing_changes_means_no_write_and_times_move_with_status_only(
    steps: list[tuple[Object, list[ModelVersion], list[EnginePod], tuple[ABTest, ...], int]],
) -> None:
    status: Object = {}
    now = NOON
    # What has failed proves itself by the mere passing of time.
    config = replace(CONFIG, steady_seconds=10**6)
    for generation, (spec, others, pods, tests, seconds) in enumerate(steps, start=1):
        now += timedelta(seconds=seconds)
        version = make_version(2, spec, generation=generation, status=status)
        seen = world(version, *others, pods=tuple(pods), tests=tests)
        once = after(version, reconcile(version, seen, now, config))
        for entry in once.status.conditions:
            old = find(version.status.conditions, entry.type)
            assert entry.last_transition_time == now or (old is not None and old.status is entry.status)
        # What was refused is known once the version has been tried in its present form, hence two rounds to settle.
        settled = after(once, reconcile(once, seen, now, config))
        again = reconcile(settled, seen, now + timedelta(seconds=5), config)
        assert again.status == settled.status.to_dict()
        assert again.events == ()
        status = settled.status.to_dict()


@given(
    SPECS,
    st.lists(OTHERS, max_size=2, unique_by=lambda version: version.metadata.name),
    st.lists(ENGINE_PODS, max_size=2),
)
def test_only_what_the_engine_should_not_have_is_unloaded(
    spec: Object, others: list[ModelVersion], pods: list[EnginePod]
) -> None:
    version = make_version(2, spec)
    plan = decide(version, world(version, *others, pods=tuple(pods)))
    unloaded = {action.name for action in plan.actions if isinstance(action, UnloadAdapter)}
    loading = {action.adapter.name for action in plan.actions if isinstance(action, LoadAdapter)}
    assert not unloaded & loading
    if spec["state"] == "Archived":
        assert loading == set()
    for other in others:
        if other.spec.state == "Deployed" and other.spec.serving == version.spec.serving:
            pinned = [v for v in (version, *others) if v.spec.state == "Deployed"]
            assert other.metadata.name not in unloaded or len(pinned) > 2
