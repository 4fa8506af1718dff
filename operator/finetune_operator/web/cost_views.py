"""What REST says of costs. Pure. Absent amounts are unknown, not 0, and have a reason beside them."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from finetune_operator.core import allocations
from finetune_operator.core.cost import PriceBook
from finetune_operator.core.inference_cost import (
    UNCOUNTED,
    InferenceCost,
    TokenPrice,
    amount,
    inference_cost,
    rounded,
    token_price,
)
from finetune_operator.core.roi import Roi, return_on_investment
from finetune_operator.core.roi_inputs import Calls, Input, Inputs, Origin, roi_inputs
from finetune_operator.resources.finetunejob import FineTuneJob, Phase
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.store.mirrored_sums import AnswerSums, TrainingSums
from finetune_operator.store.usage import Used
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_views import FINISHED, STATUSES, JobBudget, JobStatus, budget_of, why_unknown
from finetune_operator.web.odd_resources import parsed

Object = dict[str, Any]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class TrainingCost(_View):
    """What one FineTuneJob costs, failed and suspended attempts included."""

    id: str
    """`<namespace>.<name>`."""
    model: str
    status: JobStatus
    currency: str | None
    spent: float | None
    """Until now, or at its end."""
    estimated: float | None
    """At its end at the present pace."""
    allocated_seconds: int | None
    """Time of all its pods on nodes."""
    attempts: int | None
    basis: str | None
    """What is multiplied by what."""
    unknown: str | None
    """Why there is no amount."""
    budget: JobBudget | None
    created_at: datetime | None
    finished_at: datetime | None
    deleted_at: datetime | None
    """When its FineTuneJob went; what was spent stays spent."""


class TrainingCostList(_View):
    """The newest first; `after` of the next page is `next`."""

    jobs: tuple[TrainingCost, ...]
    total: int
    has_more: bool
    next: str | None


class VersionCost(_View):
    """What the answers of one ModelVersion have cost: those that gateways have told of, copies for tests aside, and
    those to batch inferences that have ended."""

    id: str
    """`<namespace>.<name>`."""
    model: str
    currency: str | None
    total: float | None
    """Of all calls whose tokens are known."""
    per_call: float | None
    """Mean of those calls."""
    per_million_tokens: float | None
    """Generated tokens."""
    calls: int
    """Answered."""
    batch_calls: int
    """Of those, rows of batch inferences."""
    failed: int
    calls_with_tokens: int
    """Whose engine told the tokens: a stream does where its client asks for `stream_options.include_usage`."""
    prompt_tokens: int
    completion_tokens: int
    calls_per_day: float | None
    """Without those of batch inferences."""
    first_day: date | None
    last_day: date | None
    basis: str | None
    """What is multiplied by what."""
    unknown: str | None
    """Why an amount is missing."""
    deleted_at: datetime | None
    """When its ModelVersion went; its answers stay paid, at the price that was last known."""


class VersionCostList(_View):
    """The newest first; `after` of the next page is `next`."""

    models: tuple[VersionCost, ...]
    total: int
    has_more: bool
    next: str | None


class CurrencyTotal(_View):
    """Sums of one currency; currencies are never converted."""

    currency: str
    training: float | None
    """Spent on all trainings, deleted ones too; null where none has a price in it, and some have no price."""
    inference: float | None
    """Of all answers whose tokens are known; null as well."""


class CostSummary(_View):
    """All that the caller may see. Trainings and answers stay in it when their resources are deleted."""

    totals: tuple[CurrencyTotal, ...]
    trainings: int
    """Deleted ones too."""
    trainings_deleted: int
    """Whose FineTuneJob is gone."""
    trainings_without_price: int
    """Of those that have begun, so that the totals lack them."""
    trainings_stopped_by_budget: int
    versions: int
    """Deleted ones too, if they were called."""
    versions_deleted: int
    """Whose ModelVersion is gone."""
    versions_without_price: int
    """That were called, so that the totals lack them."""
    calls: int
    calls_without_tokens: int
    """Whose engine told none, so that the totals lack them: streams tell theirs with stream_options.include_usage."""


class RoiInput(_View):
    """One input."""

    value: float | None
    origin: Origin
    """`measured`, `given` by you, a `default`, or `unknown`."""
    source: str
    """Where it comes from; of an unknown one, what would make it known."""


class RoiReport(_View):
    """What a version's fewer errors are worth against what it costs. Amounts are in `currency`."""

    id: str
    """Of the version."""
    currency: str | None
    inputs: dict[str, RoiInput]
    verdict: str
    missing: tuple[str, ...]
    """Inputs that are unknown."""
    errors_saved_per_call: float | None
    extra_cost_per_call: float | None
    net_value_per_call: float | None
    calls: float | None
    """Within `days`."""
    errors_saved: float | None
    value_of_errors_saved: float | None
    extra_inference_cost: float | None
    net_value: float | None
    roi: float | None
    """Net value by the training's cost: 1 earns it once more."""
    never_breaks_even: bool | None
    break_even_calls: int | None
    payback_days: float | None


def cost_summary(trainings: TrainingSums, answers: AnswerSums) -> CostSummary:
    names = sorted(trainings.spent.keys() | answers.spent.keys())
    return CostSummary(
        totals=tuple(
            CurrencyTotal(
                currency=name,
                training=_sum(trainings.spent.get(name), trainings.unpriced),
                inference=_sum(answers.spent.get(name), answers.unpriced),
            )
            for name in names
        ),
        trainings=trainings.count,
        trainings_deleted=trainings.deleted,
        trainings_without_price=trainings.unpriced,
        trainings_stopped_by_budget=trainings.over_budget,
        versions=answers.versions,
        versions_deleted=answers.deleted,
        versions_without_price=answers.unpriced,
        calls=answers.calls,
        calls_without_tokens=answers.untold,
    )


def _sum(spent: Decimal | None, unpriced: int) -> float | None:
    """Nothing is 0 only where nothing is unknown."""
    return None if spent is None and unpriced else float(rounded(spent or Decimal(0)))


def _status(phase: Phase | None, *, is_deleted: bool) -> JobStatus:
    """A deletion ends what is under way."""
    status = STATUSES[phase] if phase else JobStatus.QUEUED
    return JobStatus.CANCELLED if is_deleted and status not in FINISHED else status


def training_cost(body: Object, now: datetime, deleted_at: datetime | None = None) -> TrainingCost:
    """Of one that is gone, pods hold nothing since then."""
    job = parsed(FineTuneJob, body)
    status, cost = job.status, job.status.cost
    spent = amount(cost.spent) if cost else None
    return TrainingCost(
        id=str(ObjectId(job.metadata.namespace, job.metadata.name)),
        model=job.spec.model,
        status=_status(status.phase, is_deleted=deleted_at is not None),
        currency=cost.currency if cost else None,
        spent=_float(spent),
        estimated=_float(amount(cost.estimated)) if cost else None,
        allocated_seconds=allocations.seconds(status.allocation, deleted_at or now) if status.allocation else None,
        attempts=status.attempts,
        basis=cost.basis if cost else None,
        unknown=None if spent is not None else why_unknown(job),
        budget=budget_of(job),
        created_at=job.metadata.creation_timestamp,
        finished_at=status.completion_time,
        deleted_at=deleted_at,
    )


def version_cost(body: Object, used: Used | None, prices: PriceBook, deleted_at: datetime | None = None) -> VersionCost:
    version = parsed(ModelVersion, body)
    price = token_price(version, prices)
    told = used or Used(0, 0, 0, 0, 0, date.min, date.min)
    found = inference_cost(price, told.calls, told.calls_with_tokens, told.completion_tokens)
    if isinstance(price, TokenPrice) and version.spec.base_model.source.openai:
        found = InferenceCost(price.currency, basis=price.basis, unknown=UNCOUNTED)
    per_day = calls_of(used)
    return VersionCost(
        id=str(ObjectId(version.metadata.namespace, version.metadata.name)),
        model=version.spec.model,
        currency=found.currency,
        total=_float(found.total),
        per_call=_float(found.per_call),
        per_million_tokens=float(price.per_million) if isinstance(price, TokenPrice) else None,
        calls=told.calls,
        batch_calls=told.batch_calls,
        failed=told.failed,
        calls_with_tokens=told.calls_with_tokens,
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        calls_per_day=round(per_day.calls / per_day.days, 2) if per_day else None,
        first_day=used.first_day if used else None,
        last_day=used.last_day if used else None,
        basis=found.basis,
        unknown=found.unknown,
        deleted_at=deleted_at,
    )


def calls_of(used: Used | None) -> Calls | None:
    """Through gateways, which say what comes in a day; None where nobody has called it."""
    calls = used.calls - used.batch_calls if used else 0
    return Calls(calls, (used.last_day - used.first_day).days + 1) if used and calls else None


def roi_report(identity: ObjectId, currency: str | None, inputs: Inputs) -> RoiReport:
    found: Roi = return_on_investment(roi_inputs(inputs))
    amounts = {
        name: _float(getattr(found, name))
        for name in ("extra_cost_per_call", "net_value_per_call", "value_of_errors_saved", "extra_inference_cost",
                     "net_value")
    }  # fmt: skip
    numbers = {
        name: None if getattr(found, name) is None else round(float(getattr(found, name)), 6)
        for name in ("errors_saved_per_call", "calls", "errors_saved", "roi", "payback_days")
    }
    return RoiReport(
        id=str(identity),
        currency=currency,
        inputs={name: _input(each) for name, each in inputs.items()},
        verdict=found.verdict,
        missing=found.missing,
        never_breaks_even=found.never_breaks_even,
        break_even_calls=found.break_even_calls,
        **amounts,
        **numbers,
    )


def _input(known: Input) -> RoiInput:
    value = None if known.value is None else float(known.value)
    return RoiInput(value=value, origin=known.origin, source=known.source)


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(rounded(value))
