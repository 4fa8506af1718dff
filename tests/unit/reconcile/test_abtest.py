"""The life of an ABTest, decided from votes, time and the state of both versions."""

from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.experiments import AbTestTally, ArmTallies, ArmTally, VoteCounts
from finetune_operator.core.conditions import find, is_true
from finetune_operator.core.sequential import p_value
from finetune_operator.reconcile.abtest import Observed, is_running, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest, ABTestStatus, Method, TestPhase, Verdict
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, NOON, after, condition, make_test, make_version

LOADED = {"state": "Ready", "conditions": [condition("Loaded")]}
V1, V2 = make_version(1, status=LOADED), make_version(2, status=LOADED)
AN_HOUR_AGO = "2026-01-01T11:00:00Z"
LOADED_IN_AN_ENGINE = LOADED | {"engine": "vllm-a"}
STARTED = NOON - timedelta(hours=1)
RUNNING = {"phase": "Running", "startTime": "2026-01-01T11:00:00Z"}


def failed(reason: str) -> dict[str, Any]:
    return {"state": "Failed", "conditions": [condition("Stalled", reason=reason)]}


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

    def test_it_needs_no_api_to_start(self) -> None:
        status = status_of(decide(make_test(), world(None)))
        assert (status.phase, status.votes, status.p_value) == (TestPhase.RUNNING, None, None)

    def test_deleting_plans_nothing(self) -> None:
        assert decide(make_test(deleting=True), world(tally(50, 0))) == Plan()


OTHER = make_test(name="earlier", uid="uid-of-earlier", status=RUNNING)
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
            "preferenceLower": "0.3644",
            "preferenceUpper": "0.9335",
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
        assert status.votes_still_needed == 45
        assert status.message == "about 45 more votes at the present win rate"

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


USUAL = ArmTally(
    samples=40,
    mean_latency_ms=100,
    deviation_latency_ms=5,
    samples_with_tokens=40,
    mean_completion_tokens=50,
    deviation_completion_tokens=2.5,
)


def traffic(
    votes: tuple[int, int, int],
    candidate: ArmTally,
    baseline: ArmTally = USUAL,
) -> AbTestTally:
    fine_tuned, base, tie = votes
    counts = VoteCounts(fine_tuned=fine_tuned, base=base, tie=tie)
    return AbTestTally(votes=counts, arms=ArmTallies(baseline=baseline, candidate=candidate))


def answers(
    count: int = 40, latency_ms: int = 100, tokens: float | None = 50, errors: int = 0, spread: float | None = 0.05
) -> ArmTally:
    """Without a `spread` as an api tells it that does not know deviations."""
    return ArmTally(
        samples=count + errors,
        errors=errors,
        mean_latency_ms=latency_ms,
        deviation_latency_ms=None if spread is None else latency_ms * spread,
        samples_with_tokens=0 if tokens is None else count,
        mean_completion_tokens=tokens,
        deviation_completion_tokens=None if spread is None or tokens is None else tokens * spread,
    )


def copies(count: int = 40, latency_ms: int = 100, errors: int = 0) -> ArmTally:
    """Of an arm that has had no request of a user."""
    return ArmTally(shadow_samples=count + errors, shadow_errors=errors, shadow_mean_latency_ms=latency_ms)


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


WEIGHTS = {"accuracy": 60, "latency": 20, "cost": 20}
QUICK = {"accuracy": 20, "latency": 40, "cost": 40}
CLEAR, CLEARLY_NOT = (40, 10, 5), (10, 40, 5)
WEIGHED: dict[str, tuple[dict[str, Any], AbTestTally, Verdict | None, str]] = {
    "votes and score for the candidate": (
        {},
        traffic(CLEAR, answers()),
        Verdict.WON,
        "weighted score 0.6636 (0.5111 to 0.7659) against 0.3364 (0.2341 to 0.4889)",
    ),
    "votes and score for the baseline": ({}, traffic(CLEARLY_NOT, answers()), Verdict.LOST, "plato-v1 is preferred"),
    "preferred, but slow and long": (
        {"weights": QUICK},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        None,
        "the votes are significant; people prefer plato-v2, the weighted score 0.1833 (0.133 to 0.217) of plato-v2 "
        "prefers plato-v1",
    ),
    "not preferred, but quick and short": (
        {"weights": QUICK},
        traffic(CLEARLY_NOT, answers(latency_ms=5, tokens=2)),
        None,
        "of plato-v2 prefers plato-v2",
    ),
    "preferred, but too slow and long to be sure": (
        {},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        None,
        "of plato-v2 does not exclude a tie",
    ),
    "preferred, but now slow and now quick": (
        {},
        traffic(CLEAR, answers(spread=2)),
        None,
        "of plato-v2 does not exclude a tie",
    ),
    "an api that does not know deviations": (
        {},
        traffic(CLEAR, answers(spread=None)),
        None,
        "no weighted score: how much the latencies of answers differ is not known",
    ),
    "quick and short alone win nothing": ({}, traffic((5, 5, 5), answers(latency_ms=5, tokens=2)), None, "no leader"),
    "scores are alike": (
        {"weights": {"latency": 100, "accuracy": 0, "cost": 0}},
        traffic(CLEAR, answers()),
        None,
        "does not exclude a tie",
    ),
    "disagreement until the last vote": (
        {"maxVotes": 55},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        Verdict.INCONCLUSIVE,
        "no agreement of votes and weights after 55 votes; people prefer plato-v2, the weighted score ",
    ),
    "too few answers": ({}, traffic(CLEAR, answers(29)), None, "no weighted score: latency needs 30 answers"),
    "fewer than an interval needs": (
        {"minSamplesPerArm": 29},
        traffic(CLEAR, answers(29)),
        None,
        "how much the latencies of answers differ needs 30 of each arm, not 29",
    ),
    "unknown tokens": ({}, traffic(CLEAR, answers(tokens=None)), None, "no weighted score: cost needs 30 answers with"),
    "tokens without weight": (
        {"weights": {"accuracy": 80, "latency": 20, "cost": 0}},
        traffic(CLEAR, answers(tokens=None)),
        Verdict.WON,
        "weighted score",
    ),
    "chi-squared agrees": ({"method": "ChiSquared", "maxVotes": 55}, traffic(CLEAR, answers()), Verdict.WON, "chi"),
    "chi-squared disagrees": (
        {"method": "ChiSquared", "maxVotes": 55},
        traffic(CLEAR, answers(latency_ms=2000, tokens=2000)),
        Verdict.INCONCLUSIVE,
        "no agreement of votes and weights",
    ),
    "as many samples as allowed": (
        {"maxSamplesPerArm": 40},
        traffic((5, 5, 0), answers()),
        Verdict.INCONCLUSIVE,
        "no significant difference after 40 samples of each arm",
    ),
    "one sample fewer": ({"maxSamplesPerArm": 40}, traffic((5, 5, 0), answers(39)), None, "no leader yet"),
}


class TestWeights:
    @pytest.mark.parametrize(("decision", "seen", "verdict", "hint"), WEIGHED.values(), ids=WEIGHED.keys())
    def test_the_rule(self, decision: dict[str, Any], seen: AbTestTally, verdict: Verdict | None, hint: str) -> None:
        test = make_test({"decision": {"weights": WEIGHTS} | decision}, status=RUNNING)
        status = status_of(decide(test, world(seen)))
        assert hint in (status.message or "")
        assert status.verdict is verdict

    def test_what_a_score_looks_like(self) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        seen = traffic((3, 1, 0), answers(latency_ms=50, tokens=25))
        arms = status_of(decide(test, world(seen))).arms
        assert arms is not None
        assert (arms.candidate.score, arms.baseline.score) == ("0.7167", "0.2833")
        assert (arms.candidate.score_lower, arms.candidate.score_upper) == ("0.3221", "0.8733")
        assert (arms.baseline.score_lower, arms.baseline.score_upper) == ("0.1267", "0.6779")
        assert (arms.candidate.samples_with_tokens, arms.candidate.mean_completion_tokens) == (40, "25.0")

    @pytest.mark.parametrize(
        ("weights", "count"), [(None, 40), (WEIGHTS, 29)], ids=["without weights", "with too few answers"]
    )
    def test_there_may_be_none(self, weights: dict[str, int] | None, count: int) -> None:
        test = make_test({"decision": {"weights": weights} if weights else {}}, status=RUNNING)
        arms = status_of(decide(test, world(traffic((3, 1, 0), answers(count))))).arms
        assert arms is not None
        assert (arms.candidate.score, arms.baseline.score) == (None, None)

    def test_without_weights_the_message_says_nothing_of_them(self) -> None:
        status = status_of(decide(make_test(status=RUNNING), world(tally(3, 1))))
        assert "weight" not in (status.message or "")

    def test_before_anything_is_counted(self) -> None:
        test = make_test({"decision": {"weights": WEIGHTS}}, status=RUNNING)
        assert "nothing has been counted" in (status_of(decide(test, world(None))).message or "")


GUARDRAILS = {"maxErrorRate": "0.02", "maxLatencyRatio": "1.5"}
GUARDED: dict[str, tuple[AbTestTally, str | None]] = {
    "within": (traffic((3, 1, 0), answers(1000, 149, errors=10)), None),
    "too many errors": (traffic((3, 1, 0), answers(90, errors=10)), "exceeds maxErrorRate 0.02"),
    "too slow": (traffic((3, 1, 0), answers(latency_ms=151)), "a ratio of 1.51 exceeds maxLatencyRatio 1.5"),
    "even if it would win": (traffic(CLEAR, answers(latency_ms=151)), "exceeds maxLatencyRatio"),
    "without a vote": (traffic((0, 0, 0), answers(latency_ms=151)), "exceeds maxLatencyRatio"),
    "before any user sees the candidate": (traffic((0, 0, 0), copies(90, errors=10)), "10 of 100 requests to plato-v2"),
    "slow before any user sees it": (traffic((0, 0, 0), copies(latency_ms=151)), "a ratio of 1.51 exceeds"),
    "copies within": (traffic((0, 0, 0), copies(1000, 149, errors=10)), None),
}


class TestGuardrails:
    @pytest.mark.parametrize(("seen", "fact"), GUARDED.values(), ids=GUARDED.keys())
    def test_a_breach_loses_at_once(self, seen: AbTestTally, fact: str | None) -> None:
        plan = decide(make_test({"guardrails": GUARDRAILS}, status=RUNNING), world(seen))
        status = status_of(plan)
        assert status.verdict is (Verdict.LOST if fact else None)
        if fact:
            concluded = find(status.conditions, "Concluded")
            assert concluded is not None
            assert (concluded.reason, fact in concluded.message) == ("GuardrailBreached", True)
            assert is_true(status.conditions, "Ready")
            assert [(event.type, event.reason) for event in plan.events] == [("Warning", "GuardrailBreached")]

    def test_without_guardrails_nothing_is_breached(self) -> None:
        seen = world(traffic((3, 1, 0), answers(0, 9000, errors=500)))
        assert status_of(decide(make_test(status=RUNNING), seen)).verdict is None

    @pytest.mark.parametrize(
        ("percent", "guardrails", "is_said"),
        [(0, GUARDRAILS, True), (1, GUARDRAILS, False), (0, None, False)],
        ids=["no traffic", "some traffic", "no traffic and no guardrails"],
    )
    @pytest.mark.parametrize("most", [100, 4], ids=["running", "inconclusive"])
    def test_guardrails_without_traffic_are_remarked(
        self, percent: int, guardrails: dict[str, Any] | None, is_said: bool, most: int
    ) -> None:
        spec = {
            "traffic": {"candidatePercent": percent},
            "guardrails": guardrails,
            "decision": {"minVotes": 1, "maxVotes": most},
        }
        status = status_of(decide(make_test(spec, status=RUNNING), world(tally(3, 1))))
        remark = "guardrails get no requests to judge at traffic.candidatePercent 0: raise it, or traffic.shadowPercent"
        assert (remark in (status.message or "")) is is_said

    def test_copies_are_no_requests(self) -> None:
        """Neither the limit of samples nor the weighted score counts them; the status shows them apart."""
        decision = {"maxSamplesPerArm": 40, "weights": {"latency": 100}}
        seen = world(traffic((3, 1, 0), copies(errors=1)))
        status = status_of(decide(make_test({"decision": decision}, status=RUNNING), seen))
        assert status.verdict is None
        assert status.arms is not None
        assert status.arms.candidate.to_dict() == {
            "servedName": "plato-v2",
            "samples": 0,
            "errors": 0,
            "shadowSamples": 41,
            "shadowErrors": 1,
            "shadowMeanLatencyMs": 100,
        }

    def test_a_breach_is_final(self) -> None:
        test = make_test({"guardrails": GUARDRAILS}, status=RUNNING)
        lost = after(test, decide(test, world(traffic((3, 1, 0), answers(latency_ms=151)))))
        seen = world(traffic(CLEAR, answers()))
        assert reconcile(lost, seen, NOON + timedelta(days=1), CONFIG) == Plan(status=lost.status.to_dict())


COUNTS = st.integers(min_value=0, max_value=60)
TALLIES = st.builds(
    lambda votes, candidate, baseline: traffic(votes, candidate, baseline),
    st.tuples(COUNTS, COUNTS, COUNTS),
    *[st.builds(answers, COUNTS, st.integers(0, 300), st.one_of(st.none(), st.integers(0, 99)), st.integers(0, 8))] * 2,
)
SPECS = st.builds(
    lambda method, weights, guardrails, most: {
        "decision": {
            "method": method,
            "maxVotes": 60,
            "minSamplesPerArm": 20,
            **({"weights": weights} if weights else {}),
            **({"maxSamplesPerArm": most} if most else {}),
        },
        **({"guardrails": guardrails} if guardrails else {}),
    },
    st.sampled_from(["AlwaysValid", "ChiSquared"]),
    st.sampled_from([None, WEIGHTS, {"latency": 100}, {"cost": 100}]),
    st.sampled_from([None, GUARDRAILS, {"maxErrorRate": "0.5"}]),
    st.sampled_from([None, 30]),
)
VERSION_STATES = st.sampled_from(
    [LOADED, {}, {"state": "Pending"}, {"state": "Failed"}, {"state": "Archived"}],
)
WORLDS = st.builds(
    lambda votes, first, second, tests: Observed(
        versions=(make_version(1, status=first), make_version(2, status=second)), tests=tests, tally=votes
    ),
    st.one_of(st.none(), TALLIES),
    VERSION_STATES,
    VERSION_STATES,
    st.sampled_from([(), (OTHER,)]),
)
STEPS = st.lists(st.tuples(WORLDS, st.integers(min_value=1, max_value=400_000)), min_size=1, max_size=5)


@given(SPECS, STEPS)
def test_nothing_changes_means_no_write_and_a_verdict_never_changes(
    spec: dict[str, Any], steps: list[tuple[Observed, int]]
) -> None:
    test, now, verdict = make_test(spec), NOON, None
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


@given(SPECS, STEPS)
def test_a_verdict_is_only_claimed_with_what_the_spec_asks_for(
    spec: dict[str, Any], steps: list[tuple[Observed, int]]
) -> None:
    test, now = make_test(spec), NOON
    for seen, seconds in steps:
        now += timedelta(seconds=seconds)
        test = after(test, reconcile(test, seen, now, CONFIG))
    status, decision = test.status, test.spec.decision
    concluded = find(status.conditions, "Concluded")
    if status.verdict not in (Verdict.WON, Verdict.LOST) or concluded is None:
        return
    if concluded.reason == "GuardrailBreached":
        assert test.spec.guardrails is not None
        assert status.verdict is Verdict.LOST
        return
    assert status.leader == ("plato-v2" if status.verdict is Verdict.WON else "plato-v1")
    decisive = status.chi_squared_p_value if decision.method is Method.CHI_SQUARED else status.p_value
    assert decisive is not None
    assert float(decisive) <= float(decision.alpha)
    if decision.weights:
        assert status.arms is not None
        leader = status.arms.candidate if status.verdict is Verdict.WON else status.arms.baseline
        assert float(leader.score_lower or 0) > 0.5
