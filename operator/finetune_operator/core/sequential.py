"""Always-valid test of paired votes: the evidence may be looked at after each vote.

Ties carry no information about which side is better, so they are left out of the evidence (not of the win rate).
Under "both are equally good" each decisive vote is a fair coin. The Beta(a, a) mixture of likelihood ratios is a
nonnegative martingale of mean 1, so by Ville's inequality it ever exceeds 1/alpha with probability alpha at most
(Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021).
"""

from decimal import ROUND_CEILING, Decimal, localcontext
from math import exp, lgamma, log

from finetune_operator.contract.experiments import VoteCounts

MIXTURE = 5.0
MAX_VOTES_SEARCHED = 10_000_000


def log_evidence(wins: float, losses: float) -> float:
    """Logarithm of the e-value against "equally good"; 0 without votes."""
    return _log_beta(MIXTURE + wins, MIXTURE + losses) - _log_beta(MIXTURE, MIXTURE) + (wins + losses) * log(2)


def p_value(votes: VoteCounts) -> float:
    """Anytime p-value; the smallest one seen so far is one too."""
    return min(1.0, exp(-log_evidence(votes.fine_tuned, votes.base)))


def printed(p: float) -> str:
    """Three digits, rounded up: what is printed and stored never looks more significant than it is."""
    with localcontext(prec=3, rounding=ROUND_CEILING):
        return f"{float(+Decimal(repr(p))):.3g}"


def votes_still_needed(votes: VoteCounts, alpha: float) -> int | None:
    """Further votes until significance if votes go on as they did; None where there is no leader."""
    if votes.fine_tuned == votes.base:
        return None
    if _is_significant(votes, 1.0, alpha):
        return 0
    low, high = 1.0, 2.0
    while not _is_significant(votes, high, alpha):
        low, high = high, high * 2
        if votes.total * high > MAX_VOTES_SEARCHED:
            return None
    while (high - low) * votes.total > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if _is_significant(votes, middle, alpha) else (middle, high)
    return max(1, round(votes.total * high) - votes.total)


def _is_significant(votes: VoteCounts, factor: float, alpha: float) -> bool:
    return log_evidence(votes.fine_tuned * factor, votes.base * factor) >= -log(alpha)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
