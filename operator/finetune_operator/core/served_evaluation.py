"""What an evaluator measured on a served version, as status and database tell it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from finetune_operator.contract.evaluation import EvaluationReport, Saturation, Speed
from finetune_operator.contract.served_evaluation import EvaluationSource, RecordedEvaluation, RecordedValue
from finetune_operator.core.cost import SECONDS_PER_HOUR, NoPrice, Rate
from finetune_operator.core.evaluation import decimal, metric_values, remarks
from finetune_operator.resources.evaluation import (
    EVAL_LOSS,
    Comparison,
    DomainValue,
    EngineCost,
    EngineMemoryStatus,
    EvaluationRecord,
    MemoryOf,
    Metric,
    MetricValue,
    SaturationStatus,
    ServedEvaluationStatus,
)
from finetune_operator.resources.modelversion import ModelVersion

MILLION = 1_000_000
BYTES_PER_GIGABYTE = 1e9
NEVER = datetime.fromtimestamp(0, UTC)
"""Every object of an API server has the time of its creation; one in a test may have none."""


@dataclass(frozen=True)
class Measurement:
    """A report, and of which evaluation on which engine it is; `replicas` are the pods that shared the questions."""

    report: EvaluationReport
    id: str
    engine: str
    replicas: int
    time: datetime


def served_status(measured: Measurement, rate: Rate | NoPrice, currency: str) -> ServedEvaluationStatus:
    """The report in a status's decimals, with what an answer costs at this price of one engine pod."""
    report = measured.report
    base, tuned = report.base_speed, report.fine_tuned_speed
    compared: dict[str, Comparison | None] = {}
    if base and tuned:
        for name in ("mean_latency_seconds", "p95_latency_seconds", "mean_seconds_to_first_token", "tokens_per_second"):
            compared[name] = _comparison(getattr(base, name), getattr(tuned, name))
    return ServedEvaluationStatus(
        id=measured.id,
        time=measured.time,
        engine=measured.engine,
        examples=report.examples,
        metrics=metric_values(report),
        domains=tuple(
            DomainValue(
                domain=score.domain,
                examples=score.examples,
                name=Metric(score.metric),
                base=decimal(score.base),
                fine_tuned=decimal(score.fine_tuned),
            )
            for score in report.domains
        ),
        **compared,
        cost_per_answer=_cost(*_answer_seconds(report), rate, measured.replicas, currency),
        saturation=_saturation(report),
        memory_gigabytes=_memory(report),
        cost_per_million_tokens=_cost(*_million_tokens_seconds(report), rate, measured.replicas, currency),
        message=remarks(report),
    )


def training_record(version: ModelVersion) -> RecordedEvaluation | None:
    """The row of what the training measured; None where it measured nothing."""
    record = version.spec.lineage.evaluation
    if record is None or not (record.metrics or record.test_loss):
        return None
    compared = {
        EVAL_LOSS: _losses(record),
        "meanLatencySeconds": record.mean_latency_seconds,
        "tokensPerSecond": record.tokens_per_second,
    }
    return _record(version, EvaluationSource.TRAINING, record.metrics, compared).model_copy(
        update={
            "dataset_digest": version.spec.lineage.dataset_digest,
            "examples": record.examples,
            "message": record.message,
        }
    )


def served_record(version: ModelVersion, measured: ServedEvaluationStatus) -> RecordedEvaluation:
    """The row of what was measured on the served version."""
    compared = {
        "meanLatencySeconds": measured.mean_latency_seconds,
        "p95LatencySeconds": measured.p95_latency_seconds,
        "meanSecondsToFirstToken": measured.mean_seconds_to_first_token,
        "tokensPerSecond": measured.tokens_per_second,
        "costPerAnswer": measured.cost_per_answer,
        "costPerMillionTokens": measured.cost_per_million_tokens,
        "memoryGigabytes": measured.memory_gigabytes,
        **_saturation_values(measured.saturation),
        **{f"{value.name.value}/{value.domain}": _compared(value) for value in measured.domains},
    }
    return _record(version, EvaluationSource.SERVED, measured.metrics, compared).model_copy(
        update={
            "examples": measured.examples,
            "message": measured.message,
            "currency": measured.cost_per_answer.currency if measured.cost_per_answer else None,
            "measured_at": measured.time,
        }
    )


def _record(
    version: ModelVersion,
    source: EvaluationSource,
    metrics: Iterable[MetricValue],
    compared: Mapping[str, Comparison | None],
) -> RecordedEvaluation:
    quantities = {value.name.value: _compared(value) for value in metrics}
    quantities |= {name: value for name, value in compared.items() if value}
    metadata, spec = version.metadata, version.spec
    return RecordedEvaluation(
        source=source,
        namespace=metadata.namespace,
        model_version=metadata.name,
        model=spec.model,
        base_model=spec.base_model.name,
        adapter_digest=spec.artifact.digest,
        # Of a training: its version is made in the moment of its end.
        measured_at=metadata.creation_timestamp or NEVER,
        values=tuple(found for name, value in quantities.items() if (found := _recorded_value(name, value))),
    )


def _compared(value: MetricValue) -> Comparison:
    return Comparison(base=value.base, fine_tuned=value.fine_tuned)


def _recorded_value(name: str, value: Comparison) -> RecordedValue | None:
    """None unless both are finite: a lineage of somebody else's making may say anything, and JSON has no NaN."""
    try:
        base, tuned = float(value.base), float(value.fine_tuned)
    except ValueError:
        return None
    return RecordedValue(name=name, base=base, fine_tuned=tuned) if isfinite(base) and isfinite(tuned) else None


def _losses(record: EvaluationRecord) -> Comparison | None:
    if record.test_loss is None or record.base_test_loss is None:
        return None
    return Comparison(base=record.base_test_loss, fine_tuned=record.test_loss)


def _comparison(base: float | None, tuned: float | None) -> Comparison | None:
    if base is None or tuned is None:
        return None
    return Comparison(base=decimal(base), fine_tuned=decimal(tuned))


def _saturation(report: EvaluationReport) -> SaturationStatus | None:
    base, tuned = report.base_saturation, report.fine_tuned_saturation
    if base is None or tuned is None:
        return None
    return SaturationStatus(
        requests_per_second=Comparison(
            base=decimal(base.requests_per_second), fine_tuned=decimal(tuned.requests_per_second)
        ),
        tokens_per_second=Comparison(base=decimal(base.tokens_per_second), fine_tuned=decimal(tuned.tokens_per_second)),
        concurrency=Comparison(base=str(base.concurrency), fine_tuned=str(tuned.concurrency)),
    )


def _memory(report: EvaluationReport) -> EngineMemoryStatus | None:
    """None where two engines tell of unlike memory."""
    base, tuned = report.base_memory, report.fine_tuned_memory
    if base is None or tuned is None or base.of is not tuned.of:
        return None
    return EngineMemoryStatus(
        of=MemoryOf(base.of),
        base=decimal(base.size_bytes / BYTES_PER_GIGABYTE),
        fine_tuned=decimal(tuned.size_bytes / BYTES_PER_GIGABYTE),
    )


def _saturation_values(measured: SaturationStatus | None) -> dict[str, Comparison]:
    if measured is None:
        return {}
    return {
        "requestsPerSecondAtSaturation": measured.requests_per_second,
        "tokensPerSecondAtSaturation": measured.tokens_per_second,
        "concurrencyAtSaturation": measured.concurrency,
    }


def _answer_seconds(report: EvaluationReport) -> tuple[float | None, float | None]:
    base, tuned = report.base_speed, report.fine_tuned_speed
    return base.seconds_per_answer if base else None, tuned.seconds_per_answer if tuned else None


def _million_tokens_seconds(report: EvaluationReport) -> tuple[float | None, float | None]:
    return (
        _seconds_of_a_million(report.base_saturation or report.base_speed),
        _seconds_of_a_million(report.fine_tuned_saturation or report.fine_tuned_speed),
    )


def _seconds_of_a_million(pace: Speed | Saturation | None) -> float | None:
    """None also where no token was generated at all."""
    return MILLION / pace.tokens_per_second if pace and pace.tokens_per_second else None


def _cost(
    base_seconds: float | None, tuned_seconds: float | None, rate: Rate | NoPrice, replicas: int, currency: str
) -> EngineCost | None:
    """Of the engine's pods for so long."""
    if base_seconds is None or tuned_seconds is None or isinstance(rate, NoPrice):
        return None
    per_second = float(rate.per_hour) * replicas / SECONDS_PER_HOUR
    return EngineCost(
        currency=currency,
        base=decimal(base_seconds * per_second),
        fine_tuned=decimal(tuned_seconds * per_second),
    )
