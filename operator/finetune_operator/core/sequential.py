"""Always-valid test of paired votes: the evidence may be looked at after each vote.

Ties carry no information about which side is better, so they are left out of the evidence (not of the win rate).
Under "both are equally good" each decisive vote is a fair coin. The Beta(a, a) mixture of likelihood ratios is a
nonnegative martingale of mean 1, so by Ville's inequality it ever exceeds 1/alpha with probability alpha at most
(Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021).
"""

from dataclasses import dataclass
from math import exp, lgamma, log

MIXTURE = 5.0
MAX_VOTES_SEARCHED = 10_000_000


@dataclass(frozen=True)
class Tally:
    """Votes for the candidate, for the baseline, for neither."""

    candidate: int
    baseline: int
    tie: int

    @property
    def total(self) -> int:
        return self.candidate + self.baseline + self.tie

    @property
    def win_rate(self) -> float | None:
        """A tie counts half: 12 wins, 5 losses and 3 ties are 67.5 %."""
        return (self.candidate + self.tie / 2) / self.total if self.total else None


def log_evidence(wins: float, losses: float) -> float:
    """Logarithm of the e-value against "equally good"; 0 without votes."""
    return _log_beta(MIXTURE + wins, MIXTURE + losses) - _log_beta(MIXTURE, MIXTURE) + (wins + losses) * log(2)


def p_value(tally: Tally) -> float:
    """Anytime p-value; take the smallest one seen so far."""
    return min(1.0, exp(-log_evidence(tally.candidate, tally.baseline)))


def votes_still_needed(tally: Tally, alpha: float) -> int | None:
    """Further votes until significance if votes go on as they did; None where there is no leader."""
    if tally.candidate == tally.baseline:
        return None
    if _is_significant(tally, 1.0, alpha):
        return 0
    low, high = 1.0, 2.0
    while not _is_significant(tally, high, alpha):
        low, high = high, high * 2
        if tally.total * high > MAX_VOTES_SEARCHED:
            return None
    while (high - low) * tally.total > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if _is_significant(tally, middle, alpha) else (middle, high)
    return max(1, round(tally.total * high) - tally.total)


def _is_significant(tally: Tally, factor: float, alpha: float) -> bool:
    return log_evidence(tally.candidate * factor, tally.baseline * factor) >= -log(alpha)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
