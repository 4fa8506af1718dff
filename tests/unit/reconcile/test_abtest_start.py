"""When an ABTest starts, and what it waits for."""

from typing import Any

import pytest

from finetune_operator.core.conditions import find, is_true
from finetune_operator.reconcile.abtest import Observed
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest, TestPhase
from tests.builders import CONFIG, NOON, make_test, make_version
from tests.unit.reconcile.comparisons import LOADED, OTHER, RUNNING, V1, V2, decide, status_of, tally, world

AN_HOUR_AGO = "2026-01-01T11:00:00Z"
LOADED_IN_AN_ENGINE = LOADED | {"engine": "vllm-a"}


class TestStart:
    def test_it_starts_once_both_versions_are_loaded(self) -> None:
        plan = decide(make_test(), world(tally()))
        status = status_of(plan)
        assert (status.phase, status.start_time, status.split) == (TestPhase.RUNNING, NOON, "80/20")
        assert is_true(status.conditions, "TrafficConfigured")
        assert is_true(status.conditions, "Ready")
        assert find(status.conditions, "Reconciling") is None
        assert [(event.reason, event.message) for event in plan.events] == [
            ("Started", "comparing plato-v2 with plato-v1")
        ]
        assert plan.requeue_after_seconds == CONFIG.poll_seconds

    def test_the_base_model_needs_only_the_candidate(self) -> None:
        test = make_test({"baseline": {"modelVersion": None, "base": True}})
        plan = decide(test, world(tally(), versions=(V2,)))
        status = status_of(plan)
        assert status.phase is TestPhase.RUNNING
        assert status.arms is not None
        assert (status.arms.baseline.served_name, status.arms.candidate.served_name) == ("tiny-llama", "plato-v2")
        assert plan.events[0].message == "comparing plato-v2 with the base model"

    def test_votes_only_leave_the_traffic_alone(self) -> None:
        status = status_of(decide(make_test({"traffic": {"candidatePercent": 0}}), world(tally())))
        assert status.phase is TestPhase.RUNNING
        configured = find(status.conditions, "TrafficConfigured")
        assert configured is not None
        assert (configured.status.value, configured.reason) == ("False", "NoSplit")

    @pytest.mark.parametrize(
        ("promoted", "configured", "reason"),
        [(1, "True", "Shadow"), (2, "False", "BaselineNotActive"), (None, "False", "BaselineNotActive")],
        ids=["the baseline is active", "the candidate is active", "nothing is active"],
    )
    def test_copies_alone_are_taken_of_what_is_active_anyway(
        self, promoted: int | None, configured: str, reason: str
    ) -> None:
        versions = tuple(
            make_version(
                number, status=LOADED_IN_AN_ENGINE | ({"promotedAt": AN_HOUR_AGO} if number == promoted else {})
            )
            for number in (1, 2)
        )
        test = make_test({"traffic": {"candidatePercent": 0, "shadowPercent": 10}})
        status = status_of(decide(test, world(tally(), versions=versions)))
        found = find(status.conditions, "TrafficConfigured")
        assert found is not None
        assert (found.status.value, found.reason, status.split) == (configured, reason, "100/0")
        if promoted == 2:
            assert found.message == "nothing is copied: plato-v2 answers to plato, not plato-v1"

    @pytest.mark.parametrize(
        ("pinned_at", "reason"),
        [("2026-01-01T11:59:00Z", "VersionPinned"), (AN_HOUR_AGO, "Split")],
        ids=["after it began", "before"],
    )
    def test_a_pin_that_is_younger_takes_the_traffic(self, pinned_at: str, reason: str) -> None:
        pin = LOADED_IN_AN_ENGINE | {"promotedAt": pinned_at, "observedState": "Deployed"}
        versions = (make_version(1, {"state": "Deployed"}, status=pin), V2)
        running = make_test(status=RUNNING | {"startTime": "2026-01-01T11:30:00Z"})
        status = status_of(decide(running, world(tally(), versions=versions)))
        found = find(status.conditions, "TrafficConfigured")
        assert found is not None
        assert (found.reason, status.phase) == (reason, TestPhase.RUNNING)
        just_begun = status_of(decide(make_test(), world(tally(), versions=versions)))
        assert is_true(just_begun.conditions, "TrafficConfigured")

    def test_it_needs_no_api_to_start(self) -> None:
        status = status_of(decide(make_test(), world(None)))
        assert (status.phase, status.votes, status.p_value) == (TestPhase.RUNNING, None, None)

    def test_deleting_plans_nothing(self) -> None:
        assert decide(make_test(deleting=True), world(tally(50, 0))) == Plan()


COPYING = OTHER.model_copy(update={"spec": make_test({"traffic": {"candidatePercent": 0, "shadowPercent": 1}}).spec})
AT_PROVIDER: dict[str, Any] = {
    "baseModel": {"source": {"volume": None, "openai": {"model": "gpt-x"}}},
    "artifact": {"uri": "openai://ft:gpt-x", "digest": None, "baseUrl": "https://tuner.example/v1"},
    "serving": None,
}
WAITS: dict[str, tuple[Observed, str, str]] = {
    "no candidate": (world(versions=(V1,)), "VersionNotFound", "plato-v2 does not exist"),
    "no baseline": (world(versions=(V2,)), "VersionNotFound", "plato-v1 does not exist"),
    "candidate not loaded": (world(versions=(V1, make_version(2))), "VersionNotLoaded", "plato-v2"),
    "candidate only registered": (
        world(versions=(V1, make_version(2, {"serving": None}))),
        "VersionNotServed",
        "plato-v2 is only registered: set its spec.serving",
    ),
    "candidate at a provider": (
        world(versions=(V1, make_version(2, AT_PROVIDER))),
        "VersionNotServed",
        "plato-v2 answers at its provider, not in this cluster: create a new ABTest",
    ),
    "another test has the traffic": (world(tests=(OTHER,)), "AnotherTestRunning", "earlier"),
    "another test copies the traffic": (world(tests=(COPYING,)), "AnotherTestRunning", "earlier"),
}


class TestWait:
    @pytest.mark.parametrize(("seen", "reason", "hint"), WAITS.values(), ids=WAITS.keys())
    def test_why_it_does_not_start(self, seen: Observed, reason: str, hint: str) -> None:
        plan = decide(make_test(), seen)
        status = status_of(plan)
        assert (status.phase, status.start_time, status.verdict) == (TestPhase.PENDING, None, None)
        reconciling = find(status.conditions, "Reconciling")
        assert reconciling is not None
        assert reconciling.reason == reason
        assert hint in reconciling.message
        assert not is_true(status.conditions, "Ready")
        assert plan.requeue_after_seconds == CONFIG.poll_seconds

    @pytest.mark.parametrize(
        "other",
        [
            OTHER.model_copy(update={"spec": make_test({"model": "kant"}).spec}),
            OTHER.model_copy(update={"spec": make_test({"traffic": {"candidatePercent": 0}}).spec}),
            make_test(name="earlier", status={"phase": "Concluded", "verdict": "Won"}),
            make_test(name="earlier", status={"phase": "Pending"}),
            make_test(name="earlier", status=RUNNING, deleting=True),
        ],
        ids=["another model", "votes only", "concluded", "pending", "being deleted"],
    )
    def test_a_test_that_takes_no_traffic_is_not_in_the_way(self, other: ABTest) -> None:
        assert status_of(decide(make_test(), world(tests=(other,)))).phase is TestPhase.RUNNING

    def test_a_test_that_has_begun_is_not_stopped_by_another(self) -> None:
        assert status_of(decide(make_test(status=RUNNING), world(tests=(OTHER,)))).phase is TestPhase.RUNNING

    def test_a_running_test_outlives_an_engines_restart(self) -> None:
        seen = world(tally(3, 1), versions=(V1, make_version(2)))
        assert status_of(decide(make_test(status=RUNNING), seen)).phase is TestPhase.RUNNING
