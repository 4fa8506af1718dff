"""Chi-squared test of decisive votes for a sample whose size was fixed beforehand; looking at it earlier is wrong.

Pearson's goodness of fit to "both sides are equally good", one degree of freedom, with Yates' correction (1934):
without it the test of whole votes errs more often than it promises (5.7 % of 100 votes at alpha 5 %).
"""

from math import erfc, sqrt

from finetune_operator.contract.experiments import VoteCounts

CONTINUITY_CORRECTION = 1


def chi_squared_p_value(votes: VoteCounts) -> float:
    """Probability of so uneven a result between equals; ties are no evidence, and without decisive votes it is 1."""
    decisive = votes.fine_tuned + votes.base
    if not decisive:
        return 1.0
    excess = max(0, abs(votes.fine_tuned - votes.base) - CONTINUITY_CORRECTION)
    # The statistic is excess squared / decisive; with one degree of freedom its tail is that of a squared normal.
    return erfc(excess / sqrt(2 * decisive))
