"""Sample-ratio mismatch: whether the arms got as many people as the split promises.

If not, what differs between the arms may be who was lost on the way rather than how good the answers are (Fabijan et
al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019). What is counted are subjects, each
once, since the split draws subjects: the requests of one of them are not independent. It may be looked at after each
subject: against "the candidate gets its percentage" stands a Beta mixture around that percentage, as in Lindon and
Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022. Shares that held one after the other are
independent, so that their evidence multiplies.
"""

from collections.abc import Iterable
from math import exp, fsum

from finetune_operator.contract.experiments import SplitTally
from finetune_operator.core.sequential import log_mixture_evidence
from finetune_operator.resources.abtest import Arms

MISMATCH_ALPHA = 0.001
"""Customary for this check, which is asked of every test and doubts all of it."""
CONCENTRATION = 20.0
"""Subjects that the mixture weighs as much as: fewer find large mismatches sooner, more find small ones sooner."""


def sample_ratio_p_value(splits: Iterable[SplitTally]) -> float:
    """Anytime p-value; 1 without subjects. A split of 0 or 100 percent can't be missed, and says nothing."""
    return min(1.0, exp(-fsum(_log_evidence(split) for split in splits if 0 < split.candidate_percent < 100)))


def is_mismatched(arms: Arms | None) -> bool:
    """Whether what the status says of the arms excludes that subjects were split as they should be."""
    p = arms.sample_ratio_p_value if arms else None
    return p is not None and float(p) <= MISMATCH_ALPHA


def _log_evidence(split: SplitTally) -> float:
    share = split.candidate_percent / 100
    a, b = CONCENTRATION * share, CONCENTRATION * (1 - share)
    return log_mixture_evidence(split.candidate, split.baseline, share, a, b)
