"""Two versions in an ABTest and what was counted of them, as reconciles see them."""

from math import sqrt

from finetune_operator.contract.experiments import AbTestTally, ArmTallies, ArmTally, VoteCounts
from finetune_operator.reconcile.abtest import Observed, reconcile
from finetune_operator.reconcile.plan import Plan
from finetune_operator.resources.abtest import ABTest, ABTestStatus
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import CONFIG, NOON, condition, make_test, make_version

LOADED = {"state": "Ready", "conditions": [condition("Loaded")]}
V1, V2 = make_version(1, status=LOADED), make_version(2, status=LOADED)
RUNNING = {"phase": "Running", "startTime": "2026-01-01T11:00:00Z"}
OTHER = make_test(name="earlier", uid="uid-of-earlier", status=RUNNING)
"""Another ABTest, which has the traffic."""
WON = make_test(status={"phase": "Concluded", "verdict": "Won", "concludedAt": "2026-01-01T11:30:00Z"})
LOST = make_test(status={"phase": "Concluded", "verdict": "Lost", "concludedAt": "2026-01-01T11:30:00Z"})
WEIGHTS = {"accuracy": 60, "latency": 20, "cost": 20}
GUARDRAILS = {"maxErrorRate": "0.02", "maxLatencyRatio": "1.5"}
CLEAR, CLEARLY_NOT = (40, 10, 5), (10, 40, 5)


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


USUAL = ArmTally(
    samples=40,
    mean_latency_ms=100,
    latency_subjects=40,
    standard_error_latency_ms=5 / sqrt(40),
    samples_with_tokens=40,
    mean_completion_tokens=50,
    token_subjects=40,
    standard_error_completion_tokens=2.5 / sqrt(40),
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
    count: int = 40,
    latency_ms: int = 100,
    tokens: float | None = 50,
    errors: int = 0,
    spread: float | None = 0.05,
    accuracy: float | None = None,
) -> ArmTally:
    """Each of a subject of its own, of whom feedback tells the accuracy; without a `spread` as an api tells it that
    does not know how answers differ.
    """
    return ArmTally(
        samples=count + errors,
        errors=errors,
        mean_latency_ms=latency_ms,
        latency_subjects=count,
        standard_error_latency_ms=None if spread is None or not count else latency_ms * spread / sqrt(count),
        samples_with_tokens=0 if tokens is None else count,
        mean_completion_tokens=tokens,
        token_subjects=0 if tokens is None else count,
        standard_error_completion_tokens=(
            None if spread is None or tokens is None or not count else tokens * spread / sqrt(count)
        ),
        accuracy_subjects=0 if accuracy is None else count,
        mean_accuracy=accuracy,
        deviation_accuracy=None if spread is None or accuracy is None else accuracy * spread,
    )
