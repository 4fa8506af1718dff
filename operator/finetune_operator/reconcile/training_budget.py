"""A training whose budget is spent, or too small, is suspended: what it has paid for stays in its checkpoint, and it
goes on as soon as the budget allows it.
"""

from datetime import datetime
from decimal import Decimal

from finetune_operator.core import allocations
from finetune_operator.core.budget import Beyond, Spending, Within, judged
from finetune_operator.core.conditions import Absent, Finding, find
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import hourly_rate
from finetune_operator.core.training_estimates import Range
from finetune_operator.core.workloads import dataset_report
from finetune_operator.reconcile.plan import Event
from finetune_operator.reconcile.training_observed import Observed
from finetune_operator.reconcile.training_outlook import Outlook, suspended
from finetune_operator.reconcile.training_preflight import preflight_status
from finetune_operator.resources.common import ConditionStatus
from finetune_operator.resources.cost import AllocationStatus
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus, Phase

CONDITION = "WithinBudget"


def by_budget(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> FineTuneJob:
    """The job as it is to be run: suspended where its budget does not allow it."""
    if job.spec.suspend or not isinstance(_verdict(job, seen, now, config), Beyond):
        return job
    return job.model_copy(update={"spec": job.spec.model_copy(update={"suspend": True})})


def why_suspended(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Outlook:
    """The budget's reason goes before the user's own wish, which would not be enough to go on."""
    verdict = _verdict(job, seen, now, config)
    if isinstance(verdict, Beyond):
        return Outlook(Phase.SUSPENDED, verdict.reason, f"{verdict.message}: {verdict.remedy}")
    return suspended()


def sooner(
    seconds: float | None, job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig
) -> float | None:
    """When to look again: not later than when the budget is spent, whether or not anything is told until then."""
    verdict = _verdict(job, seen, now, config)
    left = verdict.seconds_left if isinstance(verdict, Within) else None
    return min((each for each in (seconds, left) if each is not None), default=None)


def budget_finding(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Finding | Absent:
    """The condition WithinBudget, where there is a budget."""
    verdict = _verdict(job, seen, now, config)
    if verdict is None:
        return Absent(CONDITION)
    return Finding(CONDITION, isinstance(verdict, Within), verdict.reason, verdict.message)


def budget_events(job: FineTuneJob, status: FineTuneJobStatus) -> list[Event]:
    """That it is stopped or not begun, once for each reason."""
    told, known = find(status.conditions, CONDITION), find(job.status.conditions, CONDITION)
    if told is None or told.status is not ConditionStatus.FALSE or (known and known.reason == told.reason):
        return []
    return [Event("Warning", told.reason, status.message or told.message)]


def _verdict(job: FineTuneJob, seen: Observed, now: datetime, config: OperatorConfig) -> Within | Beyond | None:
    if job.spec.budget is None:
        return None
    allocation = allocations.observed(job.status.allocation or AllocationStatus(), seen.pods, seen.job, now)
    spending = Spending(
        allocations.seconds(allocation, now), allocations.running(allocation), _estimate(job, seen, config)
    )
    rate = hourly_rate(job.spec.resources, job.spec.scheduling, config.prices)
    return judged(job.spec.budget, rate, config.prices, spending)


def _estimate(job: FineTuneJob, seen: Observed, config: OperatorConfig) -> Range | None:
    """Of the preflight, until the first step; then the time that it really takes counts."""
    if job.status.progress or seen.progress:
        return None
    found = job.status.preflight
    report = dataset_report((*seen.pods, *seen.preparation_pods))
    if report and report.preflight:
        found = preflight_status(job, report.preflight, config)
    estimate = found.estimate if found else None
    if estimate is None or estimate.min_cost is None or estimate.max_cost is None:
        return None
    return Range(Decimal(estimate.min_cost), Decimal(estimate.max_cost))
