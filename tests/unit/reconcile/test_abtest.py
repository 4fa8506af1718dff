"""The life of an ABTest, decided from votes, time and the state of both versions."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import AbTestTally, ArmTallies, ArmTally, VoteCounts
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.sequential import p_value
from finetune_operator.reconcile.abtest import Observed, is_running, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest, ABTestStatus, TestPhase, Verdict
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, NOON, after, condition, make_test, make_version

LOADED = {"state": "Ready", "conditions": [condition("Loaded")]}
V1, V2 = make_version(1, status=LOADED), make_version(2, status=LOADED)
STARTED = NOON - timedelta(hours=1)
RUNNING = {"phase": "Running", "startTime": "2026-01-01T11:00:00Z"}


def tally(fine_tuned: int = 0, base: int = 0, tie: int = 0) -> AbTestTally:
    return AbTestTally(votes=VoteCounts(fine_tuned=fine_tuned, base=base, tie=tie))


def world(
    votes: AbTestTally | None = None, *, versions: tuple[ModelVersion, ...] = (V1, V2), tests: tuple[ABTest, ...] = ()
) -> Observed:
    return Observed(versions=versions, tests=tests, tally=votes)


def decide(test: ABTest, seen: Observed) -> Plan:
    return reconcile(test, seen, NOON, CONFIG)


def status_of(plan: Plan) -> ABTestStatus:
    assert plan.status is not None
    return ABTestStatus.model_validate(plan.status)


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

    def test_it_needs_no_api_to_start(self) -> None:
        status = status_of(decide(make_test(), world(None)))
        assert (status.phase, status.votes, status.p_value) == (TestPhase.RUNNING, None, None)

    def test_deleting_plans_nothing(self) -> None:
        assert decide(make_test(deleting=True), world(tally(50, 0))) == Plan()


OTHER = make_test(name="earlier", uid="uid-of-earlier", status=RUNNING)
WAITS: dict[str, tuple[Observed, str, str]] = {
    "no candidate": (world(versions=(V1,)), "VersionNotFound", "plato-v2 does not exist"),
    "no baseline": (world(versions=(V2,)), "VersionNotFound", "plato-v1 does not exist"),
    "candidate not loaded": (world(versions=(V1, make_version(2))), "VersionNotLoaded", "plato-v2"),
    "another test has the traffic": (world(tests=(OTHER,)), "AnotherTestRunning", "earlier"),
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


class TestCount:
    def test_what_votes_look_like(self) -> None:
        arms = ArmTallies(baseline=ArmTally(samples=80, errors=1, mean_latency_ms=120), candidate=ArmTally(samples=20))
        seen = world(AbTestTally(votes=VoteCounts(fine_tuned=12, base=5, tie=3), arms=arms))
        status = status_of(decide(make_test(status=RUNNING), seen))
        assert status.votes is not None
        assert status.votes.to_dict() == {
            "fineTuned": 12,
            "base": 5,
            "tie": 3,
            "total": 20,
            "winRate": "0.675",
            "winRatePercent": "67.5%",
        }
        assert status.arms is not None
        assert status.arms.to_dict() == {
            "baseline": {"servedName": "plato-v1", "samples": 80, "errors": 1, "meanLatencyMs": 120},
            "candidate": {"servedName": "plato-v2", "samples": 20, "errors": 0},
            "lastUpdateTime": "2026-01-01T12:00:00Z",
        }
        assert status.leader == "plato-v2"
        assert status.p_value is not None
        assert float(status.p_value) >= p_value(seen.tally.votes if seen.tally else VoteCounts())
        assert status.votes_still_needed == 43
        assert status.message == "about 43 more votes at the present win rate"

    @pytest.mark.parametrize(
        ("seconds", "more_votes", "samples"),
        [(10, 0, 80), (4, 1, 95), (12, 0, 95)],
        ids=["traffic alone waits", "a vote takes it along", "after twelve seconds it is written"],
    )
    def test_traffic_alone_is_written_once_in_ten_seconds(self, seconds: int, more_votes: int, samples: int) -> None:
        def counts(wins: int, count: int) -> AbTestTally:
            arms = ArmTallies(baseline=ArmTally(samples=count), candidate=ArmTally(samples=20))
            return AbTestTally(votes=VoteCounts(fine_tuned=wins), arms=arms)

        first = make_test(status=RUNNING)
        second = after(first, decide(first, world(counts(3, 80))))
        later = NOON + timedelta(seconds=seconds)
        status = status_of(reconcile(second, world(counts(3 + more_votes, 95)), later, CONFIG))
        assert status.arms is not None
        assert status.arms.baseline.samples == samples

    def test_while_the_api_is_away_the_last_counts_stay(self) -> None:
        test = make_test(status=RUNNING)
        counted = after(test, decide(test, world(tally(12, 5, 3))))
        assert decide(counted, world(None)).status == counted.status.to_dict()

    def test_evidence_once_seen_stays(self) -> None:
        test = make_test({"decision": {"minVotes": 1000}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        weaker = status_of(decide(strong, world(tally(31, 15))))
        assert weaker.p_value == strong.status.p_value

    def test_but_not_for_the_other_arm(self) -> None:
        """A strong start of one arm must not make the other one win later."""
        test = make_test({"decision": {"minVotes": 40}}, status=RUNNING)
        strong = after(test, decide(test, world(tally(30, 5))))
        for later in (tally(30, 30), tally(30, 31)):
            status = status_of(decide(strong, world(later)))
            assert (status.verdict, status.p_value) == (None, "1")

    def test_the_estimate_knows_the_least_number_of_votes(self) -> None:
        test = make_test({"decision": {"minVotes": 100}}, status=RUNNING)
        assert status_of(decide(test, world(tally(30, 5)))).votes_still_needed == 65


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
            ((make_version(1, status={"state": "Failed"}), V2), "plato-v1 is Failed"),
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


COUNTS = st.integers(min_value=0, max_value=60)
VERSION_STATES = st.sampled_from(
    [LOADED, {}, {"state": "Pending"}, {"state": "Failed"}, {"state": "Archived"}],
)
WORLDS = st.builds(
    lambda votes, first, second, tests: Observed(
        versions=(make_version(1, status=first), make_version(2, status=second)), tests=tests, tally=votes
    ),
    st.one_of(st.none(), st.builds(tally, COUNTS, COUNTS, COUNTS)),
    VERSION_STATES,
    VERSION_STATES,
    st.sampled_from([(), (OTHER,)]),
)
STEPS = st.lists(st.tuples(WORLDS, st.integers(min_value=1, max_value=400_000)), min_size=1, max_size=5)


@given(STEPS)
def test_nothing_changes_means_no_write_and_a_verdict_never_changes(steps: list[tuple[Observed, int]]) -> None:
    test, now, verdict = make_test(), NOON, None
    for seen, seconds in steps:
        now += timedelta(seconds=seconds)
        test, before = after(test, reconcile(test, seen, now, CONFIG)), test
        if verdict:
            assert test.status == before.status
        verdict = verdict or test.status.verdict
        assert test.status.verdict is verdict
        for entry in test.status.conditions:
            old = find(before.status.conditions, entry.type)
            assert entry.last_transition_time == now or (old is not None and old.status is entry.status)
        again = reconcile(test, seen, now, CONFIG)
        assert again.status == test.status.to_dict()
        assert again.events == ()


@given(STEPS)
def test_significance_is_only_claimed_for_the_arm_that_leads(steps: list[tuple[Observed, int]]) -> None:
    test, now = make_test(), NOON
    for seen, seconds in steps:
        now += timedelta(seconds=seconds)
        test = after(test, reconcile(test, seen, now, CONFIG))
    if test.status.verdict in (Verdict.WON, Verdict.LOST):
        assert test.status.leader == ("plato-v2" if test.status.verdict is Verdict.WON else "plato-v1")
        assert test.status.p_value is not None
        assert float(test.status.p_value) <= float(test.spec.decision.alpha)
