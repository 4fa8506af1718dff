"""Both arms' error rates compared, by what the status of an ABTest keeps from one write to the next."""

from decimal import ROUND_FLOOR, Decimal

from finetune_operator.core.sequential import printed
from finetune_operator.core.two_proportions import NO_EVIDENCE, Counts, next_block, p_value, with_block
from finetune_operator.resources.abtest import Arms, ErrorCounts

EVIDENCE_PLACES = Decimal("0.000001")


def with_error_rates(old: Arms | None, fresh: Arms) -> Arms:
    """What was counted since the last block, once that has requests of both arms, is one block: when it was written
    does not depend on who failed."""
    so_far, before, now = NO_EVIDENCE, Counts(), _failures(fresh)
    if old is not None and old.error_evidence is not None and len(old.error_evidence) == len(NO_EVIDENCE):
        so_far = tuple(float(value) for value in old.error_evidence)
        before = _compared(old)
        fresh = fresh.model_copy(
            update={
                "error_evidence": old.error_evidence,
                "error_counts": old.error_counts,
                "error_rates_p_value": old.error_rates_p_value,
            }
        )
    counted = next_block(before, now)
    if counted == before:
        return fresh
    evidence = with_block(so_far, before, now)
    written = tuple(str(Decimal(value).quantize(EVIDENCE_PLACES, ROUND_FLOOR)) for value in evidence)
    return fresh.model_copy(
        update={
            "error_evidence": written,
            "error_counts": ErrorCounts(
                candidate_errors=counted.candidate_failures,
                candidate_samples=counted.candidate,
                baseline_errors=counted.baseline_failures,
                baseline_samples=counted.baseline,
            ),
            "error_rates_p_value": printed(p_value(tuple(map(float, written)))),
        }
    )


def _compared(arms: Arms) -> Counts:
    """An older status does not tell, and was compared by all that it has."""
    counts = arms.error_counts
    if counts is None:
        return _failures(arms)
    return Counts(counts.candidate_errors, counts.candidate_samples, counts.baseline_errors, counts.baseline_samples)


def _failures(arms: Arms) -> Counts:
    baseline, candidate = arms.baseline, arms.candidate
    return Counts(candidate.errors, candidate.samples, baseline.errors, baseline.samples)
