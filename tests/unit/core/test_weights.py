"""The weighted score of two arms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.weights import NoScore, candidate_score
from finetune_operator.resources.abtest import Arms, ArmStatus, Votes
from finetune_operator.resources.abtest_decision import AccuracyFrom, Decision, Weights

ALL = Weights(accuracy=60, latency=20, cost=20)
VOTES = Votes(fine_tuned=12, base=5, tie=3, total=20)


def arm(samples: int = 40, latency_ms: int | None = 100, tokens: str | None = "50.0", **fields: int) -> ArmStatus:
    return ArmStatus(
        served_name="plato-v1",
        samples=samples,
        mean_latency_ms=latency_ms,
        mean_completion_tokens=tokens,
        **({"samples_with_tokens": samples} | fields),
    )


def score(candidate: ArmStatus, baseline: ArmStatus, weights: Weights = ALL, votes: Votes = VOTES) -> float | NoScore:
    return candidate_score(
        weights, Decision(min_samples_per_arm=30), votes, Arms(baseline=baseline, candidate=candidate)
    )


SCORES: dict[str, tuple[Weights, ArmStatus, float]] = {
    "alike but for the votes": (ALL, arm(), 0.6 * 0.675 + 0.4 * 0.5),
    "votes alone": (Weights(accuracy=100, latency=0, cost=0), arm(), 0.675),
    "half of the time": (Weights(accuracy=0, latency=100, cost=0), arm(latency_ms=50), 2 / 3),
    "three times the tokens": (Weights(accuracy=0, latency=0, cost=100), arm(tokens="150.0"), 0.25),
    "all parts": (ALL, arm(latency_ms=50, tokens="150.0"), 0.6 * 0.675 + 0.2 * 2 / 3 + 0.2 * 0.25),
    "no time at all": (Weights(accuracy=0, latency=100, cost=0), arm(latency_ms=0), 1.0),
}


@pytest.mark.parametrize(("weights", "candidate", "expected"), SCORES.values(), ids=SCORES.keys())
def test_known_scores(weights: Weights, candidate: ArmStatus, expected: float) -> None:
    assert score(candidate, arm(), weights) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("candidate", "baseline", "expected"), [("0.9", "0.6", 0.6), ("0", "0.5", 0.0), ("0", "0", 0.5)]
)
@pytest.mark.parametrize("source", [AccuracyFrom.REFERENCES, AccuracyFrom.RATINGS])
def test_accuracy_by_feedback_is_a_share_as_well(
    source: AccuracyFrom, candidate: str, baseline: str, expected: float
) -> None:
    weights = Weights(accuracy=100, latency=0, cost=0, accuracy_from=source)
    arms = [arm().model_copy(update={"accuracy_subjects": 40, "mean_accuracy": mean}) for mean in (candidate, baseline)]
    assert score(arms[0], arms[1], weights, Votes()) == pytest.approx(expected)


def test_two_empty_answers_cost_the_same() -> None:
    assert score(arm(tokens="0.0"), arm(tokens="0.0"), Weights(accuracy=0, latency=0, cost=100)) == 0.5


MISSING: dict[str, tuple[Weights, ArmStatus, ArmStatus, Votes, str]] = {
    "votes": (ALL, arm(), arm(), Votes(), "accuracy needs votes"),
    "answers of the candidate": (ALL, arm(29), arm(), VOTES, "latency needs 30 answers of each arm, there are 40 of"),
    "answers of the baseline": (ALL, arm(), arm(0, None, None), VOTES, "there are 0 of the baseline and 40 of the"),
    "answers that did not fail": (ALL, arm(40, errors=11), arm(), VOTES, "40 of the baseline and 29 of the candidate"),
    "tokens": (ALL, arm(samples_with_tokens=29), arm(), VOTES, "cost needs 30 answers with known tokens of each arm"),
    "any tokens": (ALL, arm(tokens=None, samples_with_tokens=0), arm(), VOTES, "and 0 of the candidate"),
}


@pytest.mark.parametrize(("weights", "candidate", "baseline", "votes", "why"), MISSING.values(), ids=MISSING.keys())
def test_too_little_data(weights: Weights, candidate: ArmStatus, baseline: ArmStatus, votes: Votes, why: str) -> None:
    found = score(candidate, baseline, weights, votes)
    assert isinstance(found, NoScore)
    assert why in found.reason


def test_a_part_without_weight_needs_no_data() -> None:
    nothing = arm(0, None, None)
    assert score(nothing, nothing, Weights(accuracy=100, latency=0, cost=0)) == 0.675


PERCENTS = (
    st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted).map(lambda c: (c[0], c[1] - c[0], 100 - c[1]))
)
ARMS = st.builds(
    lambda latency_ms, tokens: arm(latency_ms=latency_ms, tokens=f"{tokens:.1f}"),
    st.integers(0, 100_000),
    st.floats(0, 5000),
)
VOTE = st.integers(0, 500)


@given(PERCENTS, ARMS, ARMS, VOTE, VOTE, VOTE)
def test_both_arms_scores_sum_to_1(
    percents: tuple[int, int, int], first: ArmStatus, second: ArmStatus, wins: int, losses: int, ties: int
) -> None:
    """Whichever of the two is called the candidate."""
    accuracy, latency, cost = percents
    weights, total = Weights(accuracy=accuracy, latency=latency, cost=cost), wins + losses + ties + 1
    one = score(first, second, weights, Votes(fine_tuned=wins, base=losses, tie=ties + 1, total=total))
    other = score(second, first, weights, Votes(fine_tuned=losses, base=wins, tie=ties + 1, total=total))
    assert isinstance(one, float)
    assert isinstance(other, float)
    assert 0 <= one <= 1 + 1e-12
    assert one + other == pytest.approx(1)
