"""When an ABTest is decided by its votes, and what ends it without a decision."""

from datetime import timedelta
from typing import Any, ClassVar

import pytest

from finetune_operator.contract.experiments import AbTestTally
from finetune_operator.core.conditions import is_true
from finetune_operator.reconcile.abtest import Observed, is_running, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import TestPhase, Verdict
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, NOON, after, condition, make_test, make_version
from tests.unit.reconcile.comparisons import RUNNING, V1, V2, decide, status_of, tally, world


def failed(reason: str) -> dict[str, Any]:
    return {"state": "Failed", "conditions": [condition("Stalled", reason=reason)]}


VERDICTS: dict[str, tuple[dict[str, Any], AbTestTally, Verdict | None, str]] = {
    "the candidate is better": ({}, tally(40, 10, 5), Verdict.WON, "plato-v2 is preferred: 40 votes against 10"),
    "the baseline is better": ({}, tally(10, 40), Verdict.LOST, "plato-v1 is preferred"),
    "not yet": ({}, tally(12, 5, 3), None, "more votes"),
    "nobody leads": ({}, tally(20, 20), None, "no leader yet"),
    "no votes": ({}, tally(), None, "no leader yet"),
    "too few votes, however clear": ({"minVotes": 60}, tally(40, 0), None, "about 20 more"),
    "a stricter alpha": ({"alpha": "0.000001"}, tally(40, 10), None, "more votes"),
    "enough votes without a winner": ({"maxVotes": 40}, tally(20, 20), Verdict.INCONCLUSIVE, "after 40 votes"),
    "the last vote decides": ({"maxVotes": 50}, tally(40, 10), Verdict.WON, "plato-v2 is preferred"),
    "enough time without a winner": (
        {"maxDurationSeconds": 3600},
        tally(2, 1),
        Verdict.INCONCLUSIVE,
        "after 3600 s",
    ),
    "a second before": ({"maxDurationSeconds": 3601}, tally(2, 1), None, "more votes"),
}


class TestVerdict:
    @pytest.mark.parametrize(("decision", "votes", "verdict", "hint"), VERDICTS.values(), ids=VERDICTS.keys())
    def test_the_rule(self, decision: dict[str, Any], votes: AbTestTally, verdict: Verdict | None, hint: str) -> None:
        plan = decide(make_test({"decision": decision}, status=RUNNING), world(votes))
        status = status_of(plan)
        assert status.verdict is verdict
        assert status.phase is (TestPhase.CONCLUDED if verdict else TestPhase.RUNNING)
        assert hint in (status.message or "")
        assert status.concluded_at == (NOON if verdict else None)
        assert is_true(status.conditions, "Concluded") is (verdict is not None)
        assert is_true(status.conditions, "TrafficConfigured") is (verdict is None)
        assert (plan.requeue_after_seconds is None) is (verdict is not None)
        assert [event.reason for event in plan.events] == ([verdict.value] if verdict else [])

    @pytest.mark.parametrize(
        ("versions", "fact"),
        [
            ((V1,), "plato-v2 is gone"),
            ((V1, make_version(2, status={"state": "Archived"})), "plato-v2 is Archived"),
            ((make_version(1, status=failed("AdapterRefused")), V2), "plato-v1 is Failed"),
        ],
    )
    def test_a_version_that_can_not_serve_ends_a_test_that_had_begun(
        self, versions: tuple[ModelVersion, ...], fact: str
    ) -> None:
        plan = decide(make_test(status=RUNNING), world(tally(40, 0), versions=versions))
        status = status_of(plan)
        assert (status.phase, status.verdict) == (TestPhase.CONCLUDED, Verdict.ABORTED)
        assert fact in (status.message or "")
        assert "create a new ABTest" in (status.message or "")
        assert is_true(status.conditions, "Stalled")
        assert not is_true(status.conditions, "Ready")
        assert [(event.type, event.reason) for event in plan.events] == [("Warning", "Aborted")]

    @pytest.mark.parametrize("status", [RUNNING, {}], ids=["running", "not begun"])
    def test_who_cancels_ends_it_without_a_winner_and_without_alarm(self, status: dict[str, Any]) -> None:
        plan = decide(make_test({"cancel": True}, status=status), world(tally(40, 10)))
        found = status_of(plan)
        assert (found.phase, found.verdict, found.concluded_at) == (TestPhase.CONCLUDED, Verdict.ABORTED, NOON)
        assert found.votes is not None
        assert found.votes.total == 50
        assert "create a new ABTest" in (found.message or "")
        assert not is_true(found.conditions, "Stalled")
        assert not is_true(found.conditions, "Ready")
        assert [(event.type, event.reason) for event in plan.events] == [("Normal", "Cancelled")]

    def test_a_verdict_is_not_cancelled(self) -> None:
        won = after(make_test(status=RUNNING), decide(make_test(status=RUNNING), world(tally(40, 10))))
        cancelled = make_test({"cancel": True}, status=won.status.to_dict())
        assert status_of(decide(cancelled, world(tally(40, 10)))).verdict is Verdict.WON

    def test_an_engine_that_is_late_does_not_end_it(self) -> None:
        late = make_version(1, status=failed("ProgressDeadlineExceeded"))
        status = status_of(decide(make_test(status=RUNNING), world(tally(3, 0), versions=(late, V2))))
        assert (status.phase, status.verdict) == (TestPhase.RUNNING, None)

    @pytest.mark.parametrize(
        "seen",
        [world(tally(10, 400)), world(tally()), world(None), world(versions=())],
        ids=["late votes", "votes withdrawn", "no api", "versions gone"],
    )
    def test_a_verdict_is_final(self, seen: Observed) -> None:
        test = make_test(status=RUNNING)
        won = after(test, decide(test, world(tally(40, 10))))
        assert won.status.verdict is Verdict.WON
        assert not is_running(won)
        assert reconcile(won, seen, NOON + timedelta(days=30), CONFIG) == Plan(status=won.status.to_dict())


class TestChiSquared:
    CASES: ClassVar[dict[str, tuple[AbTestTally, Verdict | None, str]]] = {
        "never earlier, however clear": (tally(99, 0), None, "1 more votes until ChiSquared decides"),
        "the candidate is better": (tally(61, 39), Verdict.WON, "61 votes against 39, 0 ties, chi-squared p 0.0358 <="),
        "the baseline is better": (tally(39, 61), Verdict.LOST, "plato-v1 is preferred"),
        "too close": (tally(60, 40), Verdict.INCONCLUSIVE, "no significant difference after 100 votes"),
        "ties are no evidence": (tally(10, 0, 90), Verdict.WON, "p 0.00443"),
        "all are ties": (tally(0, 0, 100), Verdict.INCONCLUSIVE, "no significant difference"),
    }

    @pytest.mark.parametrize(("votes", "verdict", "hint"), CASES.values(), ids=CASES.keys())
    def test_it_decides_once_at_the_last_vote(self, votes: AbTestTally, verdict: Verdict | None, hint: str) -> None:
        test = make_test({"decision": {"method": "ChiSquared", "maxVotes": 100}}, status=RUNNING)
        status = status_of(decide(test, world(votes)))
        assert status.verdict is verdict
        assert hint in (status.message or "")
        assert status.votes_still_needed == (None if verdict else 1)

    def test_it_is_told_for_the_other_method_without_deciding(self) -> None:
        """9 against 1 is significant to who looks once, not to who may look each time."""
        status = status_of(decide(make_test(status=RUNNING), world(tally(9, 1))))
        assert (status.verdict, status.chi_squared_p_value) == (None, "0.0269")
        assert float(status.p_value or "0") > 0.05

    def test_time_ends_it_too(self) -> None:
        decision = {"method": "ChiSquared", "maxDurationSeconds": 3600}
        status = status_of(decide(make_test({"decision": decision}, status=RUNNING), world(tally(90, 0))))
        assert status.verdict is Verdict.INCONCLUSIVE

    def test_strong_votes_that_faded_are_not_remembered(self) -> None:
        test = make_test({"decision": {"method": "ChiSquared", "maxVotes": 60}}, status=RUNNING)
        early = after(test, decide(test, world(tally(30, 0))))
        status = status_of(decide(early, world(tally(31, 29))))
        assert (status.verdict, status.chi_squared_p_value) == (Verdict.INCONCLUSIVE, "0.898")


class TestMinimumEffect:
    DECISION: ClassVar[dict[str, Any]] = {"minEffect": "0.1", "maxVotes": 220, "minVotes": 1}
    CASES: ClassVar[dict[str, tuple[AbTestTally, Verdict | None, str]]] = {
        "before the first look, however clear": (
            tally(21, 0),
            None,
            "look 1 of 10 at vote 22, the last one at vote 220",
        ),
        "the candidate is better": (tally(70, 30, 10), Verdict.WON, "a lead of 40 at look 1 of 10, which needed "),
        "the baseline is better": (tally(30, 70, 10), Verdict.LOST, "plato-v1 is preferred"),
        "a lead that may be chance": (tally(60, 50), None, "look 2 of 10 at vote 132"),
        "enough votes without a winner": (tally(115, 105), Verdict.INCONCLUSIVE, "no significant difference after 220"),
        "all are ties": (tally(0, 0, 220), Verdict.INCONCLUSIVE, "no significant difference"),
    }

    @pytest.mark.parametrize(("votes", "verdict", "hint"), CASES.values(), ids=CASES.keys())
    def test_looks_decide(self, votes: AbTestTally, verdict: Verdict | None, hint: str) -> None:
        status = status_of(decide(make_test({"decision": self.DECISION}, status=RUNNING), world(votes)))
        assert status.verdict is verdict
        assert hint in (status.message or "")
        assert status.votes_still_needed == (None if verdict else 220 - votes.votes.total)

    def test_a_look_is_kept_and_not_taken_again(self) -> None:
        test = make_test({"decision": self.DECISION}, status=RUNNING)
        first = after(test, decide(test, world(tally(19, 3))))
        second = after(first, decide(first, world(tally(40, 3))))
        assert [look.votes for look in first.status.looks or ()] == [22]
        assert second.status.looks == first.status.looks
        assert second.status.verdict is None
        third = after(second, decide(second, world(tally(41, 3))))
        assert third.status.verdict is Verdict.WON

    def test_votes_before_the_start_decide_once_it_starts(self) -> None:
        """All that the test takes, cast before both versions were there: none come that could be due later."""
        test = make_test({"decision": {"minEffect": "0.3", "minVotes": 1}})
        waiting = after(test, decide(test, world(tally(18, 5), versions=(V1,))))
        assert (waiting.status.phase, waiting.status.looks) == (TestPhase.PENDING, None)
        status = status_of(decide(waiting, world(tally(18, 5))))
        assert status.verdict is Verdict.WON
        assert [look.votes for look in status.looks or ()] == [23]

    def test_votes_while_it_waits_are_looked_at_when_it_goes_on(self) -> None:
        earlier = make_test(
            name="earlier", uid="uid-of-earlier", status={**RUNNING, "startTime": "2026-01-01T10:00:00Z"}
        )
        test = make_test({"decision": self.DECISION}, status=RUNNING)
        begun = after(test, decide(test, world(tally(12, 10))))
        waiting = after(begun, decide(begun, world(tally(140, 80), tests=(earlier,))))
        assert waiting.status.phase is TestPhase.PENDING
        assert waiting.status.looks == begun.status.looks
        status = status_of(decide(waiting, world(tally(140, 80))))
        assert status.verdict is Verdict.WON
        assert [look.votes for look in status.looks or ()] == [22, 220]

    @pytest.mark.parametrize("waited", [False, True], ids=["running", "waiting"])
    def test_one_that_time_ends_takes_the_look_that_is_due(self, waited: bool) -> None:
        decision = {**self.DECISION, "maxDurationSeconds": 3600}
        test = make_test({"decision": decision}, status={**RUNNING, "phase": "Pending"} if waited else RUNNING)
        assert status_of(decide(test, world(tally(15, 6)))).verdict is Verdict.INCONCLUSIVE
        assert status_of(decide(test, world(tally(70, 30)))).verdict is Verdict.WON

    def test_without_most_votes_the_effect_says_how_many(self) -> None:
        decision = {"minEffect": "0.1"}
        status = status_of(decide(make_test({"decision": decision}, status=RUNNING), world(tally(5, 5))))
        assert "the last one at vote 214" in (status.message or "")

    def test_too_few_votes_for_the_effect_are_remarked(self) -> None:
        decision = {"minEffect": "0.1", "maxVotes": 100}
        status = status_of(decide(make_test({"decision": decision}, status=RUNNING), world(tally(3, 2))))
        assert "maxVotes 100 may miss minEffect 0.1, which takes about 214" in (status.message or "")
