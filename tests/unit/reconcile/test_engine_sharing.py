"""Which engine a version gets and with whom it shares it, who finds a slot there, and when the engine goes."""

import pytest

from finetune_operator.manifests.serving import engine_manifests
from finetune_operator.reconcile.modelversion import Observed, refused
from finetune_operator.reconcile.plan import Apply, ApplyEngine, Plan, UnloadAdapter
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import CONFIG, NOON, Object, after, condition, make_version, merged
from tests.unit.reconcile.engines import (
    ENGINE,
    V1,
    applied,
    decide,
    engine,
    engine_pod,
    loaded,
    reason_of,
    removal,
    status_of,
    world,
)


class TestEngine:
    def test_a_new_version_gets_an_engine(self) -> None:
        plan = decide(V1, Observed(versions=(V1,)))
        config_map, service, deployment = engine_manifests(ENGINE, [V1], [V1], CONFIG)
        children = (Apply("configmaps", config_map), Apply("services", service), Apply("deployments", deployment))
        revision = deployment["metadata"]["annotations"]["finetune.dev/revision"]
        assert plan.actions == (ApplyEngine(ENGINE, revision, children),)
        status = status_of(plan)
        assert (status.state, status.engine, status.served_name) == (State.PENDING, ENGINE, "plato-v1")
        assert (status.replicas, status.selector) == ("0/1", f"finetune.dev/engine={ENGINE}")
        assert reason_of(status) == "EngineStarting"

    def test_an_engine_that_is_as_it_should_be_is_left_alone(self) -> None:
        assert decide(V1, world(V1)).actions == ()

    def test_versions_that_agree_in_parameters_share_one(self) -> None:
        second = make_version(2, {"serving": {"replicas": 3}})
        children = applied(decide(second, world(second, V1, applied=False)))
        assert children["deployments"]["metadata"]["name"] == ENGINE
        assert children["deployments"]["spec"]["replicas"] == 3
        assert "plato-v1" in children["configmaps"]["data"]["adapters.json"]
        assert "plato-v2" in children["configmaps"]["data"]["adapters.json"]

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
        children = applied(plan)
        assert "plato-v2" in str(children["configmaps"])
        assert "plato-v1" not in str(children)

    def test_the_last_one_that_is_archived_takes_the_engine_along(self) -> None:
        archived = make_version(1, {"state": "Archived"})
        plan = decide(archived, world(archived))
        assert plan.actions == (removal(ENGINE),)


class TestEngineRefused:
    def test_an_engine_that_the_api_server_refuses_is_final_until_the_spec_changes(self) -> None:
        plan = refused(V1, Observed(versions=(V1,)), "Invalid value: must be less than memory limit", NOON, CONFIG)
        assert plan is not None
        stalled = after(V1, plan)
        assert (stalled.status.state, reason_of(stalled.status, "Stalled")) == (State.FAILED, "EngineRefused")
        assert "change spec.serving" in (stalled.status.message or "")
        assert decide(stalled, Observed(versions=(stalled,))).actions == ()
        edited = make_version(1, {"serving": {"replicas": 2}}, generation=2, status=stalled.status.to_dict())
        assert len(decide(edited, Observed(versions=(edited,))).actions) == 1

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
