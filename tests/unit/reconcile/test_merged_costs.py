"""What merged weights cost others: a running test's base model, latencies of one engine, room for engines."""

from typing import Any

import pytest

from finetune_operator.core.conditions import find
from finetune_operator.core.workloads import pod_facts
from finetune_operator.manifests.serving import wanted_engine
from finetune_operator.reconcile.engine_sharing import EnginePod
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest, ABTestStatus
from finetune_operator.resources.modelversion import ModelVersion, State
from tests.builders import Object, make_test, make_version, merged, pod_body
from tests.unit.reconcile import comparisons
from tests.unit.reconcile.engines import ENGINE, decide, engine, engine_pod, loaded, status_of, world
from tests.unit.reconcile.test_merged_rollout import ADAPTER, MERGED, MERGED_ENGINE, asking_for, merged_pod

BESIDE_BASE: Object = {"baseline": {"modelVersion": None, "base": True}, "candidate": {"modelVersion": "plato-v1"}}
LONGER: Object = {"serving": {"maxModelLen": 1024}}
V1, V2, V3 = loaded(1, MERGED), loaded(2), loaded(3, LONGER)


def duel(spec: Object = BESIDE_BASE, **status: Any) -> ABTest:
    return make_test(spec, status=merged(comparisons.RUNNING, status))


class TestBaseModelOfATest:
    MOVING = asking_for(loaded(1, ADAPTER, active=True), MERGED)

    def decide(self, *others: ModelVersion, tests: tuple[ABTest, ...], lost: bool = False) -> Plan:
        left = (engine(ENGINE, engine_pod("plato-v1", ready=not lost)),)
        return decide(self.MOVING, world(self.MOVING, *others, pods=(merged_pod(probed=True),), left=left, tests=tests))

    @pytest.mark.parametrize("candidate", ["plato-v1", "plato-v2"])
    def test_the_former_engine_stays_while_a_test_needs_what_it_alone_serves(self, candidate: str) -> None:
        """Of its own model or of another version, by its merged weights, on the same base model."""
        others = (loaded(2, MERGED),) if candidate == "plato-v2" else ()
        plan = self.decide(*others, tests=(duel(merged(BESIDE_BASE, {"candidate": {"modelVersion": candidate}})),))
        status = status_of(plan)
        assert plan.actions == ()
        assert (status.state, status.engine, status.next_engine) == (State.DEPLOYED, ENGINE, MERGED_ENGINE)
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == "BaseModelNeeded"
        assert reconciling.message == (
            "ABTest duel needs its base model, which no other engine serves: plato-v1 moves once that has its verdict, "
            "or another version of tiny-llama is served as an adapter"
        )
        assert status.message is not None
        assert reconciling.message in status.message

    @pytest.mark.parametrize(
        ("others", "tests", "lost"),
        [
            pytest.param((), (), False, id="without a test"),
            pytest.param((V2,), (duel(),), False, id="another engine or version has it"),
            pytest.param((), (duel(verdict="Won"),), False, id="concluded"),
            pytest.param((), (make_test(BESIDE_BASE),), False, id="not begun"),
            pytest.param((V2,), (duel({"candidate": {"modelVersion": "plato-v1"}}),), False, id="of two versions"),
            pytest.param((), (duel(),), True, id="the former engine is lost"),
        ],
    )
    def test_otherwise_it_moves(self, others: tuple[ModelVersion, ...], tests: tuple[ABTest, ...], lost: bool) -> None:
        status = status_of(self.decide(*others, tests=tests, lost=lost))
        assert (status.engine, status.next_engine) == (MERGED_ENGINE, None)

    def test_between_engines_of_adapters_it_moves(self) -> None:
        moving = asking_for(loaded(1, active=True), LONGER)
        left = (engine(ENGINE, engine_pod("plato-v1")),)
        seen = world(moving, pods=(engine_pod("plato-v1", name="new"),), left=left, tests=(duel(),))
        assert status_of(decide(moving, seen)).engine == wanted_engine(moving) != ENGINE


@pytest.mark.parametrize(
    ("spec", "versions", "other"),
    [
        pytest.param(BESIDE_BASE, (V1, V2), ENGINE, id="merged weights and the base model"),
        pytest.param(BESIDE_BASE, (loaded(1), V2), None, id="an adapter and its base model"),
        pytest.param(
            {"candidate": {"modelVersion": "plato-v1"}, "baseline": {"modelVersion": "plato-v2"}},
            (V1, V2),
            ENGINE,
            id="merged weights and an adapter",
        ),
        pytest.param({}, (loaded(1), V2), None, id="two adapters of one engine"),
    ],
)
def test_a_test_tells_that_its_arms_are_in_different_engines(
    spec: Object, versions: tuple[ModelVersion, ...], other: str | None
) -> None:
    plan = comparisons.decide(duel(spec), comparisons.world(comparisons.tally(), versions=versions))
    configured = find(ABTestStatus.model_validate(plan.status).conditions, "TrafficConfigured")
    assert configured is not None
    assert (configured.status.value, configured.reason) == ("True", "Split")
    remark = f"the candidate is in engine {MERGED_ENGINE}, the baseline in {other}: latency compares these engines, too"
    assert configured.message == (remark if other else "")


class TestRoom:
    NEW = make_version(9, MERGED)

    def message(self, *others: ModelVersion, unschedulable: bool = True, tests: tuple[ABTest, ...] = ()) -> str:
        late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
        why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes have a GPU"}
        pod = EnginePod(pod_facts(pod_body(phase="Pending", conditions=(why,) if unschedulable else ())), None)
        seen = world(self.NEW, *others, pods=(pod,), tests=tests, deployment_conditions=(late,))
        stalled = find(status_of(decide(self.NEW, seen)).conditions, "Stalled")
        assert stalled is not None
        return stalled.message

    def test_an_engine_without_room_names_versions_that_might_make_some(self) -> None:
        third = loaded(3, MERGED)
        words = "; archiving plato-v1, plato-v3, active nowhere, frees an engine each"
        assert self.message(V1, V2, third).endswith(f"mend that, or change spec.serving{words}")

    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(loaded(1, MERGED, active=True), id="active"),
            pytest.param(loaded(1, merged(MERGED, {"state": "Deployed"})), id="pinned"),
            pytest.param(make_version(1, merged(MERGED, {"state": "Archived"})), id="archived"),
            pytest.param(V2, id="an adapter"),
        ],
    )
    def test_nobody_is_named_who_is_needed_or_has_no_engine_alone(self, other: ModelVersion) -> None:
        assert self.message(other).endswith("mend that, or change spec.serving")

    def test_arms_are_needed(self) -> None:
        assert self.message(V1, tests=(duel(),)).endswith("mend that, or change spec.serving")

    def test_where_room_is_not_the_cause_nobody_is_named(self) -> None:
        assert self.message(V1, unschedulable=False).endswith("mend that, or change spec.serving")
