"""A changed spec.serving: a second engine is made, and until it answers the version stays in the first."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import adapter_of, wanted_engine
from finetune_operator.reconcile.engine_sharing import Engine, EnginePod, Refusal
from finetune_operator.reconcile.modelversion import Observed, refused
from finetune_operator.reconcile.plan import ApplyEngine, Create, Delete, LoadAdapter, Plan, UnloadAdapter
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import CONFIG, NOON, Object, after, make_version, merged, pod_body, terminated
from tests.unit.reconcile.engines import (
    ENGINE,
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

LONGER: Object = {"serving": {"maxModelLen": 1024}}
LONGEST: Object = {"serving": {"maxModelLen": 2048}}
SLOW = ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},)
REFUSAL = Refusal("RankTooLarge", "rank 64 is beyond the engine's 16: raise spec.serving.maxLoraRank")


def edited(of: ModelVersion, changes: Object) -> ModelVersion:
    """The version after its user has changed its spec."""
    spec = merged(of.spec.to_dict(), changes)
    body = of.to_dict() | {"spec": spec}
    body["metadata"] = of.metadata.to_dict() | {"generation": of.metadata.generation + 1}
    return ModelVersion.parse(body)


def name_of(version: ModelVersion) -> str:
    name = wanted_engine(version)
    assert name is not None
    return name


BEFORE = loaded(1, active=True)
MOVED = edited(BEFORE, LONGER)
NEXT = name_of(MOVED)
OLD_POD = engine_pod("plato-v1", name="old")
OLD = engine(ENGINE, OLD_POD)
GONE = removal(ENGINE, OLD_POD)


def moving(version: ModelVersion = MOVED, *others: ModelVersion, old: Engine = OLD, **options: Any) -> Observed:
    """What is seen of a version whose former engine is still there; `options` as of `world`, of the next one."""
    return world(version, *others, left=(old,), **options)


def kinds(plan: Plan) -> list[type]:
    return [type(action) for action in plan.actions]


def test_a_change_makes_a_second_engine_and_takes_nothing_from_the_first() -> None:
    plan = decide(MOVED, moving(applied=False))
    assert kinds(plan) == [ApplyEngine]
    assert {child["metadata"]["name"] for child in applied(plan).values()} == {NEXT}
    status = status_of(plan)
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, NEXT)
    assert (status.replicas, status.selector) == ("1/1", f"finetune.dev/engine={ENGINE}")
    assert plan.events == ()


@dataclass(frozen=True)
class There:
    """How the next engine is, what the version says of it, and what else is done."""

    seen: Observed
    type: str
    reason: str
    message: str = ""
    loads: int = 0


BEGUN = after(MOVED, decide(MOVED, moving()))
THERE = {
    "no pod yet": There(moving(), "Reconciling", "EngineStarting", "no engine pod is ready yet"),
    "a pod that starts": There(moving(pods=(engine_pod(name="new", ready=False),)), "Reconciling", "EngineStarting"),
    "ready, without the adapter": There(moving(pods=(engine_pod(name="new"),)), "Reconciling", "Loading", loads=1),
    "listed, but never asked": There(
        moving(pods=(engine_pod("plato-v1", name="new", probed=False),)), "Reconciling", "Loading", loads=1
    ),
    "a pod that does not tell": There(
        moving(pods=(engine_pod(name="new", unknown=True),)), "Reconciling", "Loading", loads=1
    ),
    "in one pod of two": There(
        moving(pods=(engine_pod("plato-v1", name="new"), engine_pod(name="newer"))),
        "Reconciling",
        "Loading",
        "loaded in 1 of 2 engine pods",
        loads=1,
    ),
    "refused there": There(
        moving(BEGUN, pods=(engine_pod(name="new", refused={"plato-v1": REFUSAL}),)),
        "Stalled",
        "RankTooLarge",
        REFUSAL.message,
    ),
    "not ready in time": There(
        moving(deployment_conditions=SLOW),
        "Stalled",
        "ProgressDeadlineExceeded",
        f"engine {NEXT} was not ready within progressDeadlineSeconds (600 s): EngineStarting: no engine pod is ready "
        "yet: it is tried on; mend that, or change spec.serving; where there is no room for both engines, spec.state "
        "Archived frees that of the former one",
    ),
}


@pytest.mark.parametrize("case", THERE.values(), ids=THERE.keys())
def test_until_the_next_engine_answers_the_former_does(case: There) -> None:
    version = case.seen.versions[0]
    plan = decide(version, case.seen)
    status = status_of(plan)
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, NEXT)
    assert is_true(status.conditions, "Loaded")
    assert is_true(status.conditions, "Ready")
    assert reason_of(status, case.type) == case.reason
    assert find(status.conditions, "Stalled" if case.type == "Reconciling" else "Reconciling") is None
    goal = find(status.conditions, case.type)
    assert goal is not None
    assert case.message in goal.message
    assert f"still served with its former parameters: {goal.message}" in (status.message or "")
    assert len([action for action in plan.actions if isinstance(action, LoadAdapter)]) == case.loads
    assert not any(isinstance(action, Delete | UnloadAdapter) for action in plan.actions)
    again = decide(after(version, plan), replace(case.seen, versions=(after(version, plan),)))
    assert again.status == plan.status
    assert again.events == ()


def test_once_it_answers_there_routes_move_and_only_then_the_former_goes() -> None:
    there = moving(pods=(engine_pod("plato-v1", name="new"),))
    plan = decide(MOVED, there)
    assert plan.actions == ()
    assert [(event.reason, event.message) for event in plan.events] == [
        ("Moved", f"plato-v1 is served by {NEXT}, as spec.serving asks for now")
    ]
    arrived = after(MOVED, plan)
    assert (arrived.status.state, arrived.status.engine, arrived.status.next_engine) == (State.DEPLOYED, NEXT, None)
    assert find(arrived.status.conditions, "Reconciling") is None
    assert arrived.status.history == BEFORE.status.history
    assert decide(arrived, replace(there, versions=(arrived,))).actions == (GONE,)


def test_pods_that_a_former_deployment_left_are_no_arrival() -> None:
    """They answer until the garbage collector comes."""
    seen = moving(pods=(engine_pod("plato-v1", name="left"),))
    status = status_of(decide(MOVED, replace(seen, deployment=None)))
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, NEXT)


def test_it_moves_when_as_many_pods_answer_as_there_are_to_be() -> None:
    """Unless nothing answers from the former engine, where any pod is better than none."""
    seen = moving(pods=(engine_pod("plato-v1", name="new"),))
    assert seen.deployment is not None
    wide = replace(seen, deployment=replace(seen.deployment, wanted_replicas=2))
    waiting = status_of(decide(MOVED, wide))
    assert (waiting.engine, waiting.next_engine) == (ENGINE, NEXT)
    reconciling = find(waiting.conditions, "Reconciling")
    assert reconciling is not None
    assert reconciling.message == "1 of 2 engine pods answer for it"
    assert status_of(decide(MOVED, replace(wide, left=(engine(ENGINE),)))).engine == NEXT
    both = (*seen.pods, engine_pod("plato-v1", name="newer"))
    assert status_of(decide(MOVED, replace(wide, pods=both))).engine == NEXT


def test_a_former_pod_that_is_lost_gets_the_version_back_while_the_next_engine_starts() -> None:
    """The one that had answered is the better bet, and keeps its place until the other one has."""
    lost = after(BEGUN, decide(BEGUN, moving(BEGUN, old=engine(ENGINE))))
    assert not is_true(lost.status.conditions, "Loaded")
    assert (lost.status.state, lost.status.engine, lost.status.next_engine) == (State.PENDING, ENGINE, NEXT)
    empty = engine(ENGINE, engine_pod(name="replaced"))
    back = decide(lost, moving(lost, old=empty))
    assert back.actions == (LoadAdapter("uid-of-replaced", "10.0.0.1", adapter_of(lost)),)
    again = status_of(decide(lost, moving(lost, old=engine(ENGINE, engine_pod("plato-v1", name="replaced")))))
    assert (again.state, again.engine) == (State.DEPLOYED, ENGINE)


def test_a_version_that_never_answered_stays_nowhere() -> None:
    """What was wrong with its first engine is what the user mends."""
    fresh = make_version(1, status={"engine": ENGINE, "observedGeneration": 1, "state": "Pending"})
    plan = decide(edited(fresh, LONGER), moving(edited(fresh, LONGER), old=engine(ENGINE), applied=False))
    assert (status_of(plan).engine, status_of(plan).next_engine) == (NEXT, None)
    assert plan.actions[0] == removal(ENGINE)


def test_a_second_change_drops_what_the_first_had_begun() -> None:
    again = edited(BEGUN, LONGEST)
    plan = decide(again, replace(world(again, applied=False), left=(OLD, engine(NEXT))))
    assert removal(NEXT) in plan.actions
    assert GONE not in plan.actions
    assert (status_of(plan).engine, status_of(plan).next_engine) == (ENGINE, name_of(again))


def test_a_change_taken_back_leaves_everything_as_it_was() -> None:
    back = edited(BEGUN, {"serving": BEFORE.spec.to_dict()["serving"]})
    plan = decide(back, world(back, pods=(OLD_POD,), left=(engine(NEXT, engine_pod(name="new")),)))
    assert plan.actions == (removal(NEXT, engine_pod(name="new")),)
    status = status_of(plan)
    assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, None)
    assert find(status.conditions, "Reconciling") is None


@pytest.mark.parametrize("change", [{"state": "Archived"}, {"serving": None}], ids=["archived", "no longer served"])
def test_who_is_taken_down_meanwhile_leaves_both_engines_once_no_route_leads_there(change: Object) -> None:
    down = edited(BEGUN, change)
    both = (OLD, engine(NEXT)) if wanted_engine(down) is None else (OLD,)
    plan = decide(down, world(down, left=both))
    assert GONE not in plan.actions
    retired = after(down, plan)
    assert not is_true(retired.status.conditions, "Loaded")
    left = {action.name for action in decide(retired, world(retired, left=both)).actions if isinstance(action, Delete)}
    assert left == {ENGINE, NEXT}


class TestNeighbours:
    """Of a version that moves out of an engine that others stay in."""

    SECOND = loaded(2)

    def test_they_keep_the_engine(self) -> None:
        arrived = after(MOVED, decide(MOVED, moving(MOVED, self.SECOND, pods=(engine_pod("plato-v1"),))))
        assert arrived.status.engine == NEXT
        assert decide(arrived, moving(arrived, self.SECOND, pods=(engine_pod("plato-v1"),))).actions == ()

    def test_they_keep_the_one_that_moves_until_it_has_moved(self) -> None:
        pods = (engine_pod("plato-v1", "plato-v2"),)
        plan = decide(self.SECOND, replace(world(self.SECOND, pods=pods), versions=(MOVED, self.SECOND)))
        assert not any(isinstance(action, UnloadAdapter) for action in plan.actions)
        children = applied(plan)
        assert "plato-v1" in children["configmaps"]["data"]["adapters.json"]
        arguments = children["deployments"]["spec"]["template"]["spec"]["containers"][0]["args"]
        assert arguments[arguments.index("--max-model-len") + 1] == "512", "the parameters are of those who stay"
        arrived = after(MOVED, decide(MOVED, moving(MOVED, self.SECOND, pods=(engine_pod("plato-v1"),))))
        plan = decide(self.SECOND, replace(world(self.SECOND, pods=pods), versions=(arrived, self.SECOND)))
        assert UnloadAdapter("uid-of-pod-1", "10.0.0.1", "plato-v1") in plan.actions

    def test_an_archived_one_does_not_take_the_engine_along(self) -> None:
        """The one that moves is still answered there, though nobody else asks for it."""
        archived = make_version(2, {"state": "Archived"})
        plan = decide(archived, replace(world(archived), versions=(MOVED, archived)))
        assert not any(isinstance(action, Delete) for action in plan.actions)

    def test_a_next_engine_that_is_full_says_so(self) -> None:
        one = merged(LONGER, {"serving": {"maxLoras": 1}})
        there, late = loaded(2, one, active=True), edited(loaded(1), one)
        there = there.model_copy(update={"spec": there.spec.model_copy(update={"model": "kant"})})
        status = status_of(decide(late, moving(late, there)))
        assert (status.engine, status.next_engine) == (ENGINE, name_of(late))
        assert reason_of(status, "Reconciling") == "EngineFull"
        assert is_true(status.conditions, "Loaded")


class TestDeadline:
    """A Deployment that is not ready in time goes on trying, and so does the operator."""

    def overdue(self, version: ModelVersion, **options: Any) -> Plan:
        return decide(version, world(version, deployment_conditions=SLOW, **options))

    def test_a_new_version_has_failed_by_its_cause_and_is_tried_on(self) -> None:
        crash = pod_body("new", main={"vllm": terminated(1, "OSError: no tiny-llama")}, phase="Failed")
        pod = EnginePod(pod_facts(crash))
        version = make_version(1)
        late = after(version, self.overdue(version, pods=(pod,)))
        assert (late.status.state, reason_of(late.status, "Stalled")) == (State.FAILED, "ProgressDeadlineExceeded")
        assert "EngineCrashing: vLLM exited with 1 (Error): OSError: no tiny-llama" in (late.status.message or "")
        assert not any(isinstance(action, Delete) for action in self.overdue(late, pods=(pod,)).actions)
        ready = engine_pod("plato-v1", name="new")
        assert status_of(decide(late, world(late, pods=(ready,)))).state is State.READY

    def test_it_is_told_once(self) -> None:
        version = make_version(1)
        plan = self.overdue(version)
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "ProgressDeadlineExceeded")]
        again = self.overdue(after(version, plan))
        assert (again.status, again.events) == (plan.status, ())

    def test_a_quota_is_no_deadline(self) -> None:
        quota = ({"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "quota"},)
        version = make_version(1)
        status = status_of(decide(version, world(version, deployment_conditions=quota)))
        assert (status.state, reason_of(status)) == (State.PENDING, "EngineNotProgressing")

    @pytest.mark.parametrize("wish", [{"state": "Deployed"}, {"promotion": "Always"}], ids=["pinned", "Always"])
    def test_what_was_to_go_live_is_recorded_and_the_last_good_version_goes_on(self, wish: Object) -> None:
        version, good = make_version(2, wish | LONGER), loaded(1, active=True)
        plan = decide(version, world(version, good, deployment_conditions=SLOW))
        (entry,) = status_of(plan).history
        assert (entry.state, entry.who) == (State.FAILED, "finetune-operator")
        assert entry.why.startswith(f"plato-v1 goes on answering: engine {name_of(version)} was not ready within")
        good_status = status_of(decide(good, world(good, after(version, plan), pods=(engine_pod("plato-v1"),))))
        assert (good_status.state, good_status.history) == (State.DEPLOYED, good.status.history)

    def test_a_failed_change_of_the_active_version_is_recorded_and_it_stays_active(self) -> None:
        status = status_of(decide(MOVED, moving(deployment_conditions=SLOW)))
        assert status.state is State.DEPLOYED
        assert [entry.state for entry in status.history] == [State.DEPLOYED, State.DEPLOYED]
        assert status.history[-1].why.startswith("plato-v1 goes on answering as before: engine ")

    def test_who_is_not_wanted_live_has_no_such_history(self) -> None:
        assert status_of(self.overdue(make_version(1))).history == ()


def test_an_engine_that_the_api_server_refuses_leaves_the_former_answering() -> None:
    plan = refused(MOVED, moving(), "must be less than memory limit", NOON, CONFIG)
    assert plan is not None
    stalled = after(MOVED, plan)
    assert (stalled.status.state, stalled.status.engine) == (State.DEPLOYED, ENGINE)
    assert is_true(stalled.status.conditions, "Loaded")
    assert reason_of(stalled.status, "Stalled") == "EngineRefused"
    again = decide(stalled, replace(moving(stalled), deployment=None))
    assert again.actions == ()
    assert again.status == plan.status


def test_a_version_that_moves_is_measured_when_it_has_arrived() -> None:
    measured = edited(BEFORE, merged(LONGER, {"evaluation": {"metrics": ["F1"]}}))
    assert Create not in kinds(decide(measured, moving(measured)))
    assert Create in kinds(decide(measured, moving(measured, pods=(engine_pod("plato-v1", name="new"),))))


ONE_SLOT: Object = {"serving": {"maxLoras": 1}}


class TestSlots:
    """More versions than `maxLoras`: those beyond wait by name, and vLLM is never made to evict one."""

    def test_an_active_version_keeps_its_slot_whoever_is_pinned(self) -> None:
        active, pinned = loaded(1, ONE_SLOT, active=True), make_version(2, merged(ONE_SLOT, {"state": "Deployed"}))
        other = make_version(3, merged(ONE_SLOT, {"state": "Deployed", "model": "kant"}))
        for late in (pinned, other):
            status = status_of(decide(late, Observed(versions=(active, pinned, other))))
            assert reason_of(status) == "EngineFull"
            assert status.message == ("all 1 slots are taken by plato-v1: archive one, or raise spec.serving.maxLoras")
        assert reason_of(status_of(decide(active, Observed(versions=(active, pinned, other))))) != "EngineFull"

    def test_a_pod_is_given_no_more_than_it_has_slots(self) -> None:
        """The one that goes is unloaded when no route leads to it, and only then the next one is loaded."""
        going, coming = loaded(1, merged(ONE_SLOT, {"state": "Archived"})), make_version(2, ONE_SLOT)
        pods = (engine_pod("plato-v1"),)
        assert not {LoadAdapter, UnloadAdapter} & set(kinds(decide(coming, world(coming, going, pods=pods))))
        gone = after(going, decide(going, world(going, coming, pods=pods)))
        plan = decide(coming, world(coming, gone, pods=pods))
        assert [kind for kind in kinds(plan) if kind in (LoadAdapter, UnloadAdapter)] == [UnloadAdapter, LoadAdapter]
