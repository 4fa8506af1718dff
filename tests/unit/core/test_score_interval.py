"""The interval of the weighted score: what it contains, what it needs, and how often it is wrong."""

import random
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.score_interval import (
    Interval,
    Mean,
    mean_interval,
    score_interval,
    share_interval,
    standard_radius,
)
from finetune_operator.core.weights import NoScore, candidate_score
from finetune_operator.resources.abtest import Arms, ArmStatus, Votes
from finetune_operator.resources.abtest_decision import AccuracyFrom, Decision, Weights

ALL = Weights(accuracy=60, latency=20, cost=20)
ALPHA = 0.05


def latency_error(subjects: int, deviation: float | None) -> dict[str, Any]:
    """Of subjects who differ so much, as the status has it."""
    error = None if deviation is None or not subjects else f"{deviation / sqrt(subjects):.6f}"
    return {"latency_subjects": subjects, "standard_error_latency_ms": error}


def length_error(subjects: int, deviation: float | None) -> dict[str, Any]:
    error = None if deviation is None or not subjects else f"{deviation / sqrt(subjects):.6f}"
    return {"token_subjects": subjects, "standard_error_completion_tokens": error}


def arm(count: int = 40, latency_ms: int = 100, tokens: float = 50, spread: float | None = 0.05) -> ArmStatus:
    return ArmStatus(
        served_name="plato-v1",
        samples=count,
        mean_latency_ms=latency_ms,
        **latency_error(count, spread and latency_ms * spread),
        samples_with_tokens=count,
        mean_completion_tokens=f"{tokens:.1f}",
        **length_error(count, spread and tokens * spread),
    )


def votes(fine_tuned: int, base: int, tie: int = 0) -> Votes:
    return Votes(fine_tuned=fine_tuned, base=base, tie=tie, total=fine_tuned + base + tie)


def interval(
    candidate: ArmStatus, baseline: ArmStatus, counts: Votes, weights: Weights = ALL, alpha: str = "0.05"
) -> Interval | NoScore:
    arms = Arms(baseline=baseline, candidate=candidate)
    return score_interval(weights, Decision(alpha=alpha), counts, arms)


KNOWN: dict[str, tuple[Weights, ArmStatus, Votes, Interval]] = {
    "alike but for the votes": (ALL, arm(), votes(40, 10, 5), Interval(0.5111, 0.7659)),
    "slow and long": (ALL, arm(latency_ms=2000, tokens=2000), votes(40, 10, 5), Interval(0.3324, 0.5735)),
    "latency alone": (Weights(accuracy=0, latency=100, cost=0), arm(), votes(40, 10, 5), Interval(0.4805, 0.5195)),
    "nothing known but votes": (
        Weights(accuracy=100, latency=0, cost=0),
        arm(0),
        votes(12, 5, 3),
        Interval(0.3646, 0.9035),
    ),
}


@pytest.mark.parametrize(("weights", "candidate", "counts", "expected"), KNOWN.values(), ids=KNOWN)
def test_known_intervals(weights: Weights, candidate: ArmStatus, counts: Votes, expected: Interval) -> None:
    assert interval(candidate, arm(), counts, weights) == pytest.approx(expected, abs=1e-4)


MISSING: dict[str, tuple[ArmStatus, str]] = {
    "answers": (arm(29), "latency needs 30 answers of each arm"),
    "deviations": (arm(spread=None), "the api is older than the operator"),
}


@pytest.mark.parametrize(("candidate", "why"), MISSING.values(), ids=MISSING)
def test_too_little_data(candidate: ArmStatus, why: str) -> None:
    found = interval(candidate, arm(), votes(40, 10))
    assert isinstance(found, NoScore)
    assert why in found.reason


def test_a_few_answers_have_no_interval_whatever_the_decision_asks_for() -> None:
    arms = Arms(baseline=arm(), candidate=arm(29))
    found = score_interval(ALL, Decision(min_samples_per_arm=1), votes(40, 10), arms)
    assert found == NoScore("how much the latencies of answers differ needs 30 subjects of each arm, not 29")


COUNT, VOTE = st.integers(30, 5000), st.integers(0, 300)
ARMS = st.builds(arm, COUNT, st.integers(1, 10_000), st.floats(1, 3000), st.floats(0, 3))
PERCENTS = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted)


@given(PERCENTS, ARMS, ARMS, VOTE, VOTE, VOTE)
def test_it_contains_the_score_and_is_the_rest_of_the_other_arms(
    cuts: list[int], first: ArmStatus, second: ArmStatus, wins: int, losses: int, ties: int
) -> None:
    weights = Weights(accuracy=cuts[0], latency=cuts[1] - cuts[0], cost=100 - cuts[1])
    ours, theirs = votes(wins, losses, ties + 1), votes(losses, wins, ties + 1)
    arms = Arms(baseline=second, candidate=first)
    score, found = candidate_score(weights, Decision(), ours, arms), interval(first, second, ours, weights)
    other = interval(second, first, theirs, weights)
    assert isinstance(score, float)
    assert isinstance(found, Interval)
    assert isinstance(other, Interval)
    assert -1e-9 <= found.lower <= score + 1e-9
    assert score - 1e-9 <= found.upper <= 1 + 1e-9
    assert (other.lower, other.upper) == pytest.approx((1 - found.upper, 1 - found.lower))


@given(COUNT, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_more_answers_and_more_tolerated_errors_make_it_narrower(count: int, one: float, other: float) -> None:
    strict, loose = sorted((one, other))
    assert standard_radius(count, loose) <= standard_radius(count, strict)
    assert standard_radius(count + 1, strict) < standard_radius(count, strict)


def test_looking_all_the_time_costs_about_twice_the_width_of_looking_once() -> None:
    """Of 500 answers 1.96 standard errors are enough for who looks once."""
    assert 1.96 < standard_radius(500, ALPHA) * sqrt(500) < 2 * 1.96


def test_two_arms_that_take_no_time_may_have_any_share() -> None:
    nothing = Mean(0.0, 0.0, 40)
    assert share_interval(nothing, nothing, ALPHA) == Interval(0.0, 1.0)


@dataclass
class Sum:
    """Mean and deviation as the database has them."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count, self.total, self.squares = self.count + 1, self.total + value, self.squares + value * value

    @property
    def mean(self) -> Mean:
        mean = self.total / self.count
        return Mean(mean, sqrt(max(0.0, self.squares / self.count - mean * mean)), self.count)


@dataclass
class Traffic:
    """What is drawn for one arm."""

    latency: Sum = field(default_factory=Sum)
    tokens: Sum = field(default_factory=Sum)

    def draw(self, chance: random.Random, factor: float) -> None:
        self.latency.add(factor * 400 * chance.lognormvariate(0, 0.6))
        self.tokens.add(1 + factor * chance.expovariate(1 / 120))

    def status(self) -> ArmStatus:
        latency, tokens = self.latency.mean, self.tokens.mean
        return ArmStatus(
            served_name="any",
            samples=latency.size,
            mean_latency_ms=round(latency.value),
            **latency_error(latency.size, latency.deviation),
            samples_with_tokens=tokens.size,
            mean_completion_tokens=f"{tokens.value:.1f}",
            **length_error(tokens.size, tokens.deviation),
        )


class Clustered:
    """One arm's subjects, whose answers have lengths and latencies that are theirs; all rate alike."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._typical = [chance.lognormvariate(0, 1) * 100 for _ in range(60)]
        self._lengths: dict[int, list[float]] = {}
        self._ratings: dict[int, list[float]] = {}

    def draw(self) -> None:
        subject = self._chance.randrange(len(self._typical))
        self._lengths.setdefault(subject, []).append(self._typical[subject] * self._chance.lognormvariate(0, 0.3))
        self._ratings.setdefault(subject, []).append(self._chance.choice((0.75, 1.0)))

    def status(self) -> ArmStatus:
        count = sum(map(len, self._lengths.values()))
        if not count:
            return arm(0)
        mean = sum(map(sum, self._lengths.values())) / count
        residuals = sum((sum(each) - mean * len(each)) ** 2 for each in self._lengths.values())
        subjects, error = len(self._lengths), sqrt(residuals) / count
        rated = Sum()
        for each in self._ratings.values():
            rated.add(sum(each) / len(each))
        return ArmStatus(
            served_name="any",
            samples=count,
            mean_latency_ms=round(10 * mean),
            **latency_error(subjects, 10 * error * sqrt(subjects)),
            samples_with_tokens=count,
            mean_completion_tokens=f"{mean:.1f}",
            **length_error(subjects, error * sqrt(subjects)),
        ).model_copy(update=told_of(rated))


def told_of(accuracies: Sum) -> dict[str, object]:
    """By feedback, as the status has it."""
    mean = accuracies.mean
    return {
        "accuracy_subjects": mean.size,
        "mean_accuracy": f"{mean.value:.4f}",
        "deviation_accuracy": f"{mean.deviation:.4f}",
    }


def excludes_a_tie(
    chance: random.Random, share: float, factor: float, looks: int, alpha: str, tie_rate: float = 0.2
) -> bool:
    """Whether it ever does, looked at after each vote and three requests of each arm."""
    wins = losses = ties = 0
    baseline, candidate = Traffic(), Traffic()
    for _ in range(looks):
        word = chance.random()
        to_lose = tie_rate + (1 - tie_rate) * share
        ties += word < tie_rate
        wins += tie_rate <= word < to_lose
        losses += word >= to_lose
        for _ in range(3):
            baseline.draw(chance, 1.0)
            candidate.draw(chance, factor)
        found = interval(candidate.status(), baseline.status(), votes(wins, losses, ties), alpha=alpha)
        if isinstance(found, Interval) and not found.lower <= 0.5 <= found.upper:
            return True
    return False


class TestHowOftenItIsWrong:
    @pytest.mark.parametrize("alpha", ["0.05", "0.2"])
    @pytest.mark.parametrize("tie_rate", [0.0, 0.2, 0.6])
    def test_two_equal_arms_are_seldom_told_apart_though_looked_at_after_each_vote(
        self, tie_rate: float, alpha: str
    ) -> None:
        chance = random.Random(20261122)
        wrong = sum(excludes_a_tie(chance, 0.5, 1.0, 120, alpha, tie_rate) for _ in range(500))
        assert wrong <= 500 * float(alpha)

    def test_two_arms_are_seldom_told_apart_by_feedback_that_is_alike(self) -> None:
        """Of ratings that are mostly 1 or 5 stars, looked at after each answer of either arm from the 30th on."""
        chance, wrong = random.Random(20261124), 0
        weights = Weights(accuracy=100, latency=0, cost=0, accuracy_from=AccuracyFrom.RATINGS)
        for _ in range(500):
            sums = Sum(), Sum()
            for count in range(1, 301):
                for each in sums:
                    each.add(chance.choices((0.0, 0.25, 0.5, 0.75, 1.0), (3, 1, 1, 1, 6))[0])
                if count < 30:
                    continue
                arms = [arm(0).model_copy(update=told_of(each)) for each in sums]
                found = interval(arms[0], arms[1], votes(0, 0), weights, alpha="0.2")
                if isinstance(found, Interval) and not found.lower <= 0.5 <= found.upper:
                    wrong += 1
                    break
        assert wrong <= 500 * 0.2

    @pytest.mark.parametrize("weights", [(60, 20, 20), (20, 40, 40)], ids=str)
    def test_people_who_ask_for_long_answers_do_not_decide(self, weights: tuple[int, int, int]) -> None:
        """60 subjects an arm, each with lengths of their own, come back again and again; a look after 20 answers each.

        Counted by answers, 15 and 28 of 100 such tests told two equal arms apart.
        """
        chance, wrong = random.Random(20261125), 0
        shares = Weights(accuracy=weights[0], latency=weights[1], cost=weights[2], accuracy_from=AccuracyFrom.RATINGS)
        for _ in range(100):
            arms = Clustered(chance), Clustered(chance)
            for _ in range(100):
                for _ in range(20):
                    chance.choice(arms).draw()
                baseline, candidate = (each.status() for each in arms)
                found = interval(candidate, baseline, votes(0, 0), shares, alpha="0.05")
                if isinstance(found, Interval) and not found.lower <= 0.5 <= found.upper:
                    wrong += 1
                    break
        assert wrong <= 5

    def test_a_better_arm_is_found(self) -> None:
        chance = random.Random(20261123)
        assert all(excludes_a_tie(chance, 0.75, 0.7, looks=200, alpha="0.2") for _ in range(5))

    @pytest.mark.parametrize("sigma", [0.4, 0.8])
    def test_a_mean_of_skewed_latencies_is_seldom_missed(self, sigma: float) -> None:
        chance, truth, missed = random.Random(7), 2.718281828459045 ** (sigma**2 / 2), 0
        for _ in range(1000):
            seen = Sum()
            for count in range(1, 401):
                seen.add(chance.lognormvariate(0, sigma))
                if count >= 30:
                    lower, upper = mean_interval(seen.mean, 0.2)
                    if not lower <= truth <= upper:
                        missed += 1
                        break
        assert missed <= 0.2 * 1000
