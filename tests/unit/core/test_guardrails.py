"""What a candidate must not exceed, and how seldom that is claimed of one that does not."""

import random
from math import exp, isclose, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.guardrails import alternative, breach, log_error_evidence
from finetune_operator.resources.abtest import Arms, ArmStatus
from finetune_operator.resources.abtest_decision import Decision, Guardrails

ALPHA = 0.05
RATES = st.floats(min_value=0.001, max_value=0.999)


def arms(candidate: tuple[int, int, int | None], baseline: tuple[int, int, int | None] = (100, 0, 100)) -> Arms:
    """Samples, errors and mean latency of each arm."""
    first, second = (
        ArmStatus(served_name=name, samples=samples, errors=errors, mean_latency_ms=latency_ms)
        for name, (samples, errors, latency_ms) in (("plato-v1", baseline), ("plato-v2", candidate))
    )
    return Arms(baseline=first, candidate=second)


@pytest.mark.parametrize(("rate", "other"), [("0.02", 0.04), ("0.33", 0.66), ("0.5", 0.75), ("0.9", 0.95)])
def test_the_rate_that_alarms_come_quickest_for(rate: str, other: float) -> None:
    assert alternative(float(rate)) == pytest.approx(other)


def test_known_evidence() -> None:
    """By hand: one error of two requests at 10 % allowed is 2 x 8/9."""
    assert exp(log_error_evidence(1, 2, 0.1)) == pytest.approx(2 * 8 / 9)
    assert log_error_evidence(0, 0, 0.02) == 0


@given(st.integers(min_value=0, max_value=500), st.integers(min_value=0, max_value=500), RATES)
def test_on_average_a_request_adds_no_evidence_at_the_allowed_rate(errors: int, others: int, rate: float) -> None:
    """The martingale property: what makes looking after each request harmless."""
    present = log_error_evidence(errors, errors + others, rate)
    failed, answered = (log_error_evidence(errors + e, errors + others + 1, rate) - present for e in (1, 0))
    assert isclose(rate * exp(failed) + (1 - rate) * exp(answered), 1, rel_tol=1e-9)
    assert failed > 0 > answered


@pytest.mark.parametrize(("allowed", "real"), [(0.02, 0.02), (0.2, 0.2), (0.5, 0.5), (0.2, 0.1)])
def test_looking_after_each_request_keeps_the_rate_of_false_alarms(allowed: float, real: float) -> None:
    rng = random.Random(20260103)
    tests = 1500
    assert sum(_ever_alarms(rng, allowed, real, 1500) for _ in range(tests)) / tests <= ALPHA


def test_a_bad_candidate_is_found() -> None:
    """One that fails three times as often as it may: nine of ten within 500 requests."""
    rng = random.Random(20260104)
    assert sum(_ever_alarms(rng, 0.02, 0.06, 500) for _ in range(200)) >= 180


def _ever_alarms(rng: random.Random, allowed: float, real: float, requests: int) -> bool:
    limit, errors = -log(ALPHA), 0
    for number in range(1, requests + 1):
        if rng.random() >= real:
            continue  # Evidence falls with an answer: only after an error can it be the highest so far.
        errors += 1
        if log_error_evidence(errors, number, allowed) >= limit:
            return True
    return False


ERRORS, LATENCY = Guardrails(max_error_rate="0.02"), Guardrails(max_latency_ratio="1.5")


def shadowed(
    copies: tuple[int, int, int | None],
    candidate: tuple[int, int, int | None] = (0, 0, None),
    baseline: tuple[int, int, int | None] = (100, 0, 100),
) -> Arms:
    """The same with copies that the candidate answered for nobody."""
    seen = arms(candidate, baseline)
    samples, errors, latency_ms = copies
    figures = {"shadow_samples": samples, "shadow_errors": errors, "shadow_mean_latency_ms": latency_ms}
    return seen.model_copy(update={"candidate": seen.candidate.model_copy(update=figures)})


BREACHES: dict[str, tuple[Guardrails, Arms, str | None]] = {
    "no traffic": (ERRORS, arms((0, 0, None)), None),
    "four failures at once": (ERRORS, arms((4, 4, None)), None),
    "five failures at once": (ERRORS, arms((5, 5, None)), "5 of 5 requests to plato-v2 failed"),
    "as many as allowed": (ERRORS, arms((1000, 20, 100)), None),
    "more than allowed": (ERRORS, arms((100, 8, 100)), "an error rate of 0.08 exceeds maxErrorRate 0.02"),
    "the baseline fails": (ERRORS, arms((100, 0, 100), (100, 90, 100)), None),
    "nothing is asked of it": (Guardrails(), arms((100, 100, 9000)), None),
    "errors alone are asked for": (ERRORS, arms((100, 0, 9000)), None),
    "slow": (LATENCY, arms((30, 0, 151), (30, 0, 100)), "a ratio of 1.51 exceeds maxLatencyRatio 1.5"),
    "as slow as allowed": (LATENCY, arms((30, 0, 150), (30, 0, 100)), None),
    "slow, but too few answers": (LATENCY, arms((29, 0, 900)), None),
    "slow, but most of them failed": (LATENCY, arms((100, 71, 900)), None),
    "slow, but too few to compare with": (LATENCY, arms((100, 0, 900), (29, 0, 1)), None),
    "no latency of the baseline": (LATENCY, arms((100, 0, 900), (100, 100, None)), None),
    "copies alone fail": (ERRORS, shadowed((5, 5, None)), "5 of 5 requests to plato-v2 failed"),
    "copies and requests fail": (ERRORS, shadowed((3, 3, None), (2, 2, None)), "5 of 5 requests to plato-v2 failed"),
    "copies that do not fail are evidence, too": (ERRORS, shadowed((1000, 0, 100), (5, 5, None)), None),
    "copies alone are slow": (LATENCY, shadowed((30, 0, 151)), "plato-v2 takes 151 ms"),
    "too few copies and requests": (LATENCY, shadowed((14, 0, 900), (15, 0, 900)), None),
    "the mean is of copies and requests": (LATENCY, shadowed((20, 0, 200), (20, 0, 104)), "plato-v2 takes 152 ms"),
    "a baseline that takes no time": (LATENCY, arms((100, 0, 1), (100, 0, 0)), None),
}


@pytest.mark.parametrize(("guardrails", "seen", "message"), BREACHES.values(), ids=BREACHES.keys())
def test_breaches(guardrails: Guardrails, seen: Arms, message: str | None) -> None:
    found = breach(guardrails, Decision(min_samples_per_arm=30), seen)
    assert (found is None) == (message is None)
    assert message is None or (found is not None and message in found)


def test_a_stricter_alpha_needs_more_evidence() -> None:
    assert breach(ERRORS, Decision(alpha="0.001"), arms((5, 5, None))) is None
    assert breach(ERRORS, Decision(alpha="0.001"), arms((10, 10, None)))
