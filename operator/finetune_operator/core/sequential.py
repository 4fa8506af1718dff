"""Always-valid test of paired votes: the evidence may be looked at after each vote.

Ties carry no information about which side is better, so they are left out of the evidence (not of the win rate).
Under "both are equally good" each decisive vote is a fair coin. The Beta(a, a) mixture of likelihood ratios is a
nonnegative martingale of mean 1, so by Ville's inequality it ever exceeds 1/alpha with probability alpha at most
(Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021).
"""

from decimal import ROUND_CEILING, Decimal, localcontext
from math import exp, lgamma, log

from finetune_operator.contract.experiments import VoteCounts

MIXTURE = 8.0
MAX_VOTES_SEARCHED = 10_000_000
BISECTIONS = 40


def log_evidence(wins: float, losses: float, share: float = 0.5) -> float:
    """Logarithm of the e-value against "this share of decisive votes is for the candidate"; 0 without votes."""
    return log_mixture_evidence(wins, losses, share, MIXTURE, MIXTURE)


def log_mixture_evidence(wins: float, losses: float, share: float, a: float, b: float) -> float:
    """Of a Beta(a, b) mixture of all shares against this one, which is between 0 and 1."""
    return _log_mixture(wins, losses, a, b) - _log_likelihood(wins, losses, share)


def p_value(votes: VoteCounts) -> float:
    """Anytime p-value; the smallest one seen so far is one too."""
    return min(1.0, exp(-log_evidence(votes.fine_tuned, votes.base)))


def preference_interval(votes: VoteCounts, alpha: float) -> tuple[float, float]:
    """Confidence sequence of the share of decisive votes that is for the candidate: all shares that the evidence does
    not exclude. With probability 1 - alpha it contains the true share at all looks together, and it leaves one half out
    exactly while the votes are significant (Howard, Ramdas, McAuliffe, Sekhon 2021).
    """
    return bounded_mean_interval(votes.fine_tuned, votes.base, alpha)


def bounded_mean_interval(total: float, missing: float, alpha: float) -> tuple[float, float]:
    """Confidence sequence of the mean of values between 0 and 1 that sum up to `total`, and would to `missing` more.

    What a coin of that mean would have as likelihood ratio is convex in each value, so that for values in between its
    mean is no more than 1: the evidence is a supermartingale for these, too.
    """
    return _smallest_share(total, missing, alpha), 1 - _smallest_share(missing, total, alpha)


def _smallest_share(wins: float, losses: float, alpha: float) -> float:
    """The evidence falls from there to the observed share, which it never excludes."""
    if not wins:
        return 0.0
    excluded, kept = 0.0, wins / (wins + losses)
    mixture = _log_mixture(wins, losses, MIXTURE, MIXTURE)
    for _ in range(BISECTIONS):
        middle = (excluded + kept) / 2
        if mixture - _log_likelihood(wins, losses, middle) >= -log(alpha):
            excluded = middle
        else:
            kept = middle
    return excluded


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


def _log_likelihood(wins: float, losses: float, share: float) -> float:
    return wins * log(share) + losses * log(1 - share)


def _log_mixture(wins: float, losses: float, a: float, b: float) -> float:
    """The likelihood's mean over all shares."""
    return _log_beta(a + wins, b + losses) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
