"""What makes a version the active one and what ends that: its spec, another version, a test that is won or lost."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.reconcile.modelversion import reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.modelversion import HISTORY_MAX_ENTRIES, ModelVersion, State
from tests.builders import CONFIG, NOON, after, make_test, make_version
from tests.unit.reconcile.comparisons import LOST, WON
from tests.unit.reconcile.engines import decide, engine_pod, loaded, status_of, world

HOUR = timedelta(hours=1)


def answering(version: ModelVersion, *others: ModelVersion, tests: tuple[ABTest, ...] = ()) -> Plan:
    """The decision on a version in an engine that has all of them loaded."""
    names = [v.metadata.name for v in (version, *others)]
    return decide(version, world(version, *others, pods=(engine_pod(*names),), tests=tests))


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
