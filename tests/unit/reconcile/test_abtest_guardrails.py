"""Which errors and latencies of the candidate lose an ABTest at once."""

from datetime import timedelta
from typing import Any, ClassVar

import pytest

from finetune_operator.contract.experiments import AbTestTally, ArmTally
from finetune_operator.core.conditions import find, is_true
from finetune_operator.reconcile.abtest import reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTestStatus, ErrorCounts, Verdict
from tests.builders import CONFIG, NOON, after, make_test
from tests.unit.reconcile.comparisons import (
    CLEAR,
    GUARDRAILS,
    RUNNING,
    answers,
    decide,
    status_of,
    tally,
    traffic,
    world,
)


def copies(count: int = 40, latency_ms: int = 100, errors: int = 0) -> ArmTally:
    """Of an arm that has had no request of a user."""
    return ArmTally(shadow_samples=count + errors, shadow_errors=errors, shadow_mean_latency_ms=latency_ms)


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
        decision = {"maxSamplesPerArm": 40, "weights": {"accuracy": 0, "latency": 100, "cost": 0}}
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


class TestMoreErrors:
    """Errors of the candidate against those of the baseline: what came between two writes is one block."""

    SPEC: ClassVar[dict[str, Any]] = {"guardrails": {"noMoreErrors": True}}

    def told(self, candidate_errors: int, baseline_errors: int, spec: dict[str, Any] | None = None) -> ABTestStatus:
        """After ten blocks of 100 requests to each arm."""
        test = make_test(spec if spec is not None else self.SPEC, status=RUNNING)
        for block in range(1, 11):
            candidate = answers((100 - candidate_errors) * block, errors=candidate_errors * block)
            baseline = answers((100 - baseline_errors) * block, errors=baseline_errors * block)
            later = NOON + timedelta(minutes=block)
            test = after(test, reconcile(test, world(traffic((0, 0, 0), candidate, baseline)), later, CONFIG))
        return test.status

    def test_more_of_the_candidate_lose(self) -> None:
        status = self.told(12, 4)
        assert status.verdict is Verdict.LOST
        assert "to plato-v1: more by p 0.0" in (status.message or "")
        assert "which noMoreErrors forbids" in (status.message or "")

    def test_more_of_the_baseline_do_not(self) -> None:
        status = self.told(4, 12)
        assert status.verdict is None
        assert status.arms is not None
        assert float(status.arms.error_rates_p_value or 1) < 0.001

    def test_as_many_do_not(self) -> None:
        status = self.told(8, 8)
        assert status.verdict is None
        assert status.arms is not None
        assert float(status.arms.error_rates_p_value or 0) > 0.5

    def test_a_million_that_fail_equally_often_do_not(self) -> None:
        test = make_test(self.SPEC, status=RUNNING)
        for minute, count in enumerate((1000, 1_000_000)):
            half = answers(count // 2, errors=count // 2)
            later = NOON + timedelta(minutes=minute)
            test = after(test, reconcile(test, world(traffic((0, 0, 0), half, half)), later, CONFIG))
        assert test.status.verdict is None
        assert test.status.arms is not None
        assert test.status.arms.error_rates_p_value == "1"

    def test_it_is_told_where_nothing_is_forbidden(self) -> None:
        status = self.told(12, 4, {})
        assert status.verdict is None
        assert status.arms is not None
        assert float(status.arms.error_rates_p_value or 1) < 0.001

    @staticmethod
    def failing(requests: int, rivals: int) -> AbTestTally:
        """All requests to the candidate have failed, and none to the baseline."""
        return traffic((0, 0, 0), answers(0, errors=requests), answers(rivals))

    def test_arms_that_take_turns_are_compared_all_the_same(self) -> None:
        """Little traffic: of what comes between two writes one arm has nothing."""
        test = make_test(self.SPEC, status=RUNNING)
        for number in range(1, 401):
            later = NOON + timedelta(minutes=number)
            test = after(test, reconcile(test, world(self.failing((number + 1) // 2, number // 2)), later, CONFIG))
            if test.status.verdict:
                break
        assert test.status.verdict is Verdict.LOST
        assert number <= 60

    def test_votes_between_requests_lose_none_of_them(self) -> None:
        """Each vote is written at once, with what has been counted so far."""
        test = make_test(self.SPEC, status=RUNNING)
        for number in range(1, 61):
            seen = self.failing((number + 1) // 2, number // 2)
            votes = seen.model_copy(update={"votes": tally(number // 2, number - number // 2).votes})
            test = after(test, reconcile(test, world(votes), NOON + timedelta(seconds=number), CONFIG))
        assert test.status.verdict is Verdict.LOST

    def test_where_nothing_was_counted_nothing_is_written(self) -> None:
        """Neither does rounding what is kept wear it away."""
        counts = world(traffic((0, 0, 0), answers(83, errors=17), answers(91, errors=9)))
        test = make_test(self.SPEC, status=RUNNING)
        first = after(test, decide(test, counts))
        for minute in range(1, 4):
            assert reconcile(first, counts, NOON + timedelta(minutes=minute), CONFIG).status == first.status.to_dict()

    def test_requests_to_one_arm_alone_wait_for_the_other(self) -> None:
        test = make_test(self.SPEC, status=RUNNING)
        both = after(test, decide(test, world(self.failing(3, 3))))
        one = after(both, reconcile(both, world(self.failing(9, 3)), NOON + timedelta(minutes=1), CONFIG))
        assert one.status.arms is not None
        assert both.status.arms is not None
        assert one.status.arms.candidate.errors == 9
        assert one.status.arms.error_evidence == both.status.arms.error_evidence
        assert one.status.arms.error_counts == both.status.arms.error_counts
        assert one.status.arms.error_counts == ErrorCounts(
            candidate_errors=3, candidate_samples=3, baseline_errors=0, baseline_samples=3
        )
        later = after(one, reconcile(one, world(self.failing(9, 4)), NOON + timedelta(minutes=2), CONFIG))
        assert later.status.arms is not None
        assert later.status.arms.error_counts == ErrorCounts(
            candidate_errors=9, candidate_samples=9, baseline_errors=0, baseline_samples=4
        )
