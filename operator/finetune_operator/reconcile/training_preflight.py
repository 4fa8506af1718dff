"""The preflight as the status tells it: what the pod found out, with times and prices of this installation."""

from collections.abc import Iterable
from dataclasses import replace

from finetune_operator.contract.preflight import Preflight, RemoteWork
from finetune_operator.core.conditions import shortened
from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.training_estimates import (
    UNKNOWN_REMOTE_TIME,
    Estimate,
    compared,
    estimate_at_provider,
    estimate_of_job,
    rough,
    shown_cost,
    shown_time,
)
from finetune_operator.reconcile.plan import Event
from finetune_operator.resources.finetunejob import FineTuneJob, FineTuneJobStatus
from finetune_operator.resources.preflight import (
    ComparedStatus,
    EstimateStatus,
    PreflightStatus,
    ShapeStatus,
    TokensStatus,
)

SHORT_MAX_CHARACTERS = 256


def preflight_status(job: FineTuneJob, found: Preflight, config: OperatorConfig) -> PreflightStatus:
    """Prices are those of the moment when it became known; the cost follows them later, this does not."""
    if found.remote:
        return _remote_status(job, found.remote, config)
    estimates = compared(found, config.prices) if found.work else ()
    return PreflightStatus(
        parameters_billion=None if found.parameters_billion is None else f"{found.parameters_billion:g}",
        memory_gib=None if found.memory_gib is None else f"{found.memory_gib:.1f}",
        gpu_memory_gib=found.gpu_memory_gib,
        steps=found.work.steps if found.work else None,
        tokens=_tokens(found),
        estimate=_estimate(estimate_of_job(found, job.spec.resources, job.spec.scheduling, config.prices)),
        compared=tuple(_compared(each) for each in estimates),
        warnings=tuple(shortened(warning) for warning in found.warnings),
        shape=ShapeStatus.model_validate(found.shape.model_dump()) if found.shape else None,
    )


def _remote_status(job: FineTuneJob, work: RemoteWork, config: OperatorConfig) -> PreflightStatus:
    """Memory and time are the provider's own; what is billed follows from the tokens."""
    model = job.spec.base_model.source.openai
    if model is None:
        raise ValueError("the API server admits no backend OpenAI without baseModel.source.openai")
    estimate = estimate_at_provider(model.model, work.tokens, config.prices)
    unknown = "; ".join(filter(None, (estimate.unknown, UNKNOWN_REMOTE_TIME)))
    return PreflightStatus(steps=work.steps, estimate=_estimate(replace(estimate, unknown=unknown)))


def preflight_events(job: FineTuneJob, status: FineTuneJobStatus) -> Iterable[Event]:
    """Its warnings, once."""
    if status.preflight and job.status.preflight is None:
        yield from (Event("Warning", "Preflight", warning) for warning in status.preflight.warnings)


def _tokens(found: Preflight) -> TokensStatus | None:
    lengths = found.tokens
    if lengths is None:
        return None
    return TokensStatus(
        method=lengths.method,
        sampled_rows=lengths.sampled_rows,
        p50=lengths.p50,
        p95=lengths.p95,
        max=lengths.max,
        over_length_percent=f"{100 * lengths.over_length / lengths.sampled_rows:.1f}",
        trained=found.work.tokens if found.work else None,
    )


def _estimate(found: Estimate) -> EstimateStatus:
    seconds, cost = found.seconds, found.cost
    return EstimateStatus(
        device=found.device[:SHORT_MAX_CHARACTERS],
        fits=found.fits,
        time=shown_time(seconds) if seconds else None,
        min_seconds=round(seconds.least) if seconds else None,
        max_seconds=round(seconds.most) if seconds else None,
        cost=shown_cost(cost, found.currency) if cost else None,
        min_cost=rough(cost.least) if cost else None,
        max_cost=rough(cost.most) if cost else None,
        currency=found.currency,
        message=found.unknown[:SHORT_MAX_CHARACTERS] if found.unknown else None,
    )


def _compared(found: Estimate) -> ComparedStatus:
    return ComparedStatus(
        device=found.device,
        fits=found.fits,
        time=shown_time(found.seconds) if found.seconds else None,
        cost=shown_cost(found.cost, found.currency) if found.cost else None,
    )
