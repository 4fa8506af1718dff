"""What holds for an ABTest whatever is counted and whatever becomes of its versions."""

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.conditions import find
from finetune_operator.reconcile.abtest import Observed, reconcile
from finetune_operator.resources.abtest import Verdict
from finetune_operator.resources.abtest_decision import Method
from tests.builders import CONFIG, NOON, after, make_test, make_version
from tests.unit.reconcile.comparisons import GUARDRAILS, LOADED, OTHER, WEIGHTS, answers, traffic

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
