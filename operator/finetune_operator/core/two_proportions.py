"""Always-valid test of two proportions: whether requests to one arm fail more often than those to the other.

Counts come in blocks, each with requests of both arms. Of each block the alternative says, from the counts before it
alone, how often each arm fails: the common rate so far, with the arms apart by a fixed log odds ratio. Divided by the
likelihood of one rate for both, the mean of the two weighted by the block's own sizes, this is an e-variable whatever
the true common rate is and however large a part of the block each arm has (Turner, Ly, Gruenwald, "Generic E-variables
for exact sequential k-sample tests that allow for optional stopping", 2021). The products over blocks, mixed over
several ratios, ever reach 1/alpha with probability alpha at most. All that is kept is one number for each ratio. Sizes
of blocks must not depend on outcomes.
"""

from collections.abc import Iterable
from math import exp, fsum, isinf, log
from typing import NamedTuple

RATIOS_AND_WEIGHTS = ((0.2, 3.0), (0.28, 2.0), (0.4, 2.0), (0.57, 1.7), (0.8, 1.3), (1.13, 0.9), (1.6, 0.5))
"""Log odds ratios between the arms, each either way; small differences are what takes long to find."""
EFFECTS = tuple(sign * ratio for ratio, _ in RATIOS_AND_WEIGHTS for sign in (1, -1))
_WHOLE = 2 * fsum(weight for _, weight in RATIOS_AND_WEIGHTS)
_WEIGHTS = tuple(weight / _WHOLE for _, weight in RATIOS_AND_WEIGHTS for _ in (1, -1))
PRIOR = 0.5
"""Failures, and successes, that the first block's rate is worked out from."""


class Counts(NamedTuple):
    """Failures among the requests of both arms, since the beginning."""

    candidate_failures: int = 0
    candidate: int = 0
    baseline_failures: int = 0
    baseline: int = 0


Evidence = tuple[float, ...]
"""Logarithm of the e-value of each of `EFFECTS`."""
NO_EVIDENCE: Evidence = (0.0,) * len(EFFECTS)


def with_block(evidence: Evidence, before: Counts, now: Counts) -> Evidence:
    """The evidence with what was counted between the two; the same where that is no block yet."""
    block = _between(before, now)
    if min(block) < 0 or not block.candidate or not block.baseline:
        return evidence
    failures = before.candidate_failures + before.baseline_failures + PRIOR
    successes = before.candidate + before.baseline + 2 * PRIOR - failures
    odds = log(failures / successes)
    return tuple(found + _log_ratio(block, odds, effect) for found, effect in zip(evidence, EFFECTS, strict=True))


def next_block(before: Counts, now: Counts) -> Counts:
    """Counts at which the block after this one begins; one that lacks an arm goes on, lest its requests be lost.
    Where less has been counted than before, nothing tells what came since."""
    block = _between(before, now)
    goes_on = min(block) >= 0 and not (block.candidate and block.baseline)
    return before if goes_on else now


def p_value(evidence: Evidence) -> float:
    """Anytime p-value of both arms failing equally often."""
    terms = [found + log(weight) for found, weight in zip(evidence, _WEIGHTS, strict=True)]
    largest = max(terms)
    if isinf(largest):
        return 0.0 if largest > 0 else 1.0
    # Of many equals the e-value is smaller than a float's inverse can tell.
    return exp(min(0.0, -largest - log(fsum(exp(term - largest) for term in terms))))


def _between(before: Counts, now: Counts) -> Counts:
    return Counts(*(new - old for new, old in zip(now, before, strict=True)))


def _log_ratio(block: Counts, log_odds: float, effect: float) -> float:
    candidate, baseline = _rate(log_odds + effect / 2), _rate(log_odds - effect / 2)
    common = (block.candidate * candidate + block.baseline * baseline) / (block.candidate + block.baseline)
    return fsum(
        (
            *_terms(block.candidate_failures, block.candidate, candidate, common),
            *_terms(block.baseline_failures, block.baseline, baseline, common),
        )
    )


def _terms(failures: int, requests: int, rate: float, common: float) -> Iterable[float]:
    yield failures * log(rate / common)
    yield (requests - failures) * log((1 - rate) / (1 - common))


def _rate(log_odds: float) -> float:
    return 1 / (1 + exp(-log_odds))
