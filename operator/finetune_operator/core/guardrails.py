"""What a candidate must not exceed in production traffic.

The error rate is judged by an e-process, so that looking after each request raises no more false alarms than alpha
allows: under "at most p0 of the requests fail" the likelihood ratio of p1 > p0 against p0 is a nonnegative
supermartingale, which by Ville's inequality ever reaches 1/alpha with probability alpha at most (Wald 1945).
"""

from math import log

from finetune_operator.resources.abtest import Arms, ArmStatus
from finetune_operator.resources.abtest_decision import Decision, Guardrails


def log_error_evidence(errors: int, samples: int, max_error_rate: float) -> float:
    """Logarithm of the e-value against "the error rate is at most `max_error_rate`", which is between 0 and 1."""
    p0, p1 = max_error_rate, alternative(max_error_rate)
    return errors * log(p1 / p0) + (samples - errors) * log((1 - p1) / (1 - p0))


def alternative(max_error_rate: float) -> float:
    """The rate that an alarm shall come quickest for: twice the allowed one, or half of the way to 1."""
    return min(2 * max_error_rate, (1 + max_error_rate) / 2)


def breach(guardrails: Guardrails, decision: Decision, arms: Arms) -> str | None:
    """Which number of the candidate has exceeded what, if one has."""
    more_errors = _more_errors(guardrails, decision, arms)
    arms = arms.model_copy(update={"candidate": _with_copies(arms.candidate)})
    return (
        _too_many_errors(guardrails, decision, arms.candidate) or more_errors or _too_slow(guardrails, decision, arms)
    )


def _with_copies(arm: ArmStatus) -> ArmStatus:
    """Requests of users and copies of others' requests as one: each shows the arm at its work."""
    copies, failed = arm.shadow_samples or 0, arm.shadow_errors or 0
    answers, answered = arm.answers, copies - failed
    total_ms = (arm.mean_latency_ms or 0) * answers + (arm.shadow_mean_latency_ms or 0) * answered
    return arm.model_copy(
        update={
            "samples": arm.samples + copies,
            "errors": arm.errors + failed,
            "mean_latency_ms": round(total_ms / (answers + answered)) if answers + answered else None,
        }
    )


def _too_many_errors(guardrails: Guardrails, decision: Decision, candidate: ArmStatus) -> str | None:
    limit = guardrails.max_error_rate
    if limit is None or log_error_evidence(candidate.errors, candidate.samples, float(limit)) < -log(
        float(decision.alpha)
    ):
        return None
    rate = candidate.errors / candidate.samples
    return (
        f"{candidate.errors} of {candidate.samples} requests to {candidate.served_name} failed: "
        f"an error rate of {rate:.3g} exceeds maxErrorRate {limit}"
    )


def _more_errors(guardrails: Guardrails, decision: Decision, arms: Arms) -> str | None:
    """Of users' requests alone: the baseline has no copies that could be compared."""
    p, baseline, candidate = arms.error_rates_p_value, arms.baseline, arms.candidate
    if not guardrails.no_more_errors or p is None or float(p) > float(decision.alpha):
        return None
    if candidate.errors * baseline.samples <= baseline.errors * candidate.samples:
        return None
    return (
        f"{candidate.errors} of {candidate.samples} requests to {candidate.served_name} failed, "
        f"{baseline.errors} of {baseline.samples} to {baseline.served_name}: "
        f"more by p {p} <= alpha {decision.alpha}, which noMoreErrors forbids"
    )


def _too_slow(guardrails: Guardrails, decision: Decision, arms: Arms) -> str | None:
    limit, baseline, candidate = guardrails.max_latency_ratio, arms.baseline, arms.candidate
    if limit is None or baseline.mean_latency_ms is None or candidate.mean_latency_ms is None:
        return None
    if min(baseline.answers, candidate.answers) < decision.min_samples_per_arm:
        return None
    # A mean of 0 ms is one below half a millisecond.
    ratio = candidate.mean_latency_ms / max(1, baseline.mean_latency_ms)
    if ratio <= float(limit):
        return None
    return (
        f"{candidate.served_name} takes {candidate.mean_latency_ms} ms, {baseline.served_name} "
        f"{baseline.mean_latency_ms} ms: a ratio of {ratio:.3g} exceeds maxLatencyRatio {limit}"
    )
