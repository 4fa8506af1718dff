"""What was measured, as the resources tell it, and whether it meets what is required of a promotion."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isnan
from operator import ge, gt, le, lt

from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.conditions import shortened
from finetune_operator.core.cost import SECONDS_PER_HOUR, NoPrice, Rate
from finetune_operator.resources.evaluation import (
    EVAL_LOSS,
    REQUIREMENT_PATTERN,
    AnswerCost,
    Comparison,
    EvaluationRecord,
    EvaluationStatus,
    Measurements,
    Metric,
    MetricValue,
    ServedEvaluationStatus,
)
from finetune_operator.resources.modelversion import ModelVersionSpec

OPERATORS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
OPPOSITES = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
REMEDY = "spec.state: Deployed promotes it all the same, and spec.evaluation.require can be changed"


@dataclass(frozen=True)
class Judgement:
    """The condition `EvaluationPassed`; the message has the measured numbers."""

    passed: bool
    reason: str
    message: str


@dataclass(frozen=True)
class _Measured:
    base: str
    fine_tuned: str


def measurements(report: EvaluationReport) -> Measurements:
    """What the trainer measured, in a status's decimals."""
    base, tuned = report.base_speed, report.fine_tuned_speed
    latency = pace = None
    if base and tuned:
        latency = Comparison(base=decimal(base.mean_latency_seconds), fine_tuned=decimal(tuned.mean_latency_seconds))
        pace = Comparison(base=decimal(base.tokens_per_second), fine_tuned=decimal(tuned.tokens_per_second))
    return Measurements(
        examples=report.examples,
        metrics=metric_values(report),
        mean_latency_seconds=latency,
        tokens_per_second=pace,
        message=remarks(report),
    )


def metric_values(report: EvaluationReport) -> tuple[MetricValue, ...]:
    """The scores in a status's decimals."""
    return tuple(
        MetricValue(name=Metric(score.metric), base=decimal(score.base), fine_tuned=decimal(score.fine_tuned))
        for score in report.scores
    )


def status_of(report: EvaluationReport, rate: Rate | NoPrice, currency: str) -> EvaluationStatus:
    """The same, with what an answer costs at this price of the trainer's pod."""
    cost = _answer_cost(report, rate, currency)
    return EvaluationStatus.model_validate(measurements(report).model_dump() | {"cost_per_answer": cost})


def _answer_cost(report: EvaluationReport, rate: Rate | NoPrice, currency: str) -> AnswerCost | None:
    base, tuned = report.base_speed, report.fine_tuned_speed
    if base is None or tuned is None or isinstance(rate, NoPrice):
        return None
    per_second = float(rate.per_hour) / SECONDS_PER_HOUR
    return AnswerCost(
        currency=currency,
        base=decimal(base.seconds_per_answer * per_second),
        fine_tuned=decimal(tuned.seconds_per_answer * per_second),
    )


def record_of(result: TrainingResult) -> EvaluationRecord:
    """For the lineage, with the losses, which are measured wherever there are held-out rows."""
    measured = measurements(result.evaluation) if result.evaluation else Measurements()
    losses = {"test_loss": result.test_loss, "base_test_loss": result.base_test_loss}
    shown = {name: None if loss is None else decimal(loss) for name, loss in losses.items()}
    return EvaluationRecord.model_validate(measured.model_dump() | shown)


def remarks(report: EvaluationReport) -> str | None:
    """Everything that is to be said about the numbers, or instead of them."""
    left_out = f"{report.left_out} rows were left out: no question, or too long for the model's context"
    said = (report.error, report.remark, left_out if report.left_out else None)
    return shortened("; ".join(filter(None, said))) or None


def judgement(spec: ModelVersionSpec, served: ServedEvaluationStatus | None = None) -> Judgement | None:
    """None where nothing is required.

    `served` is the evaluation of the served version that the spec asks for, once it is done: what is to be measured
    there is not met by what the training measured.
    """
    if not spec.evaluation or not spec.evaluation.require:
        return None
    facts = [_fact(requirement, spec, served) for requirement in spec.evaluation.require]
    missed = [message for met, message in facts if not met]
    if not missed:
        return Judgement(True, "RequirementsMet", ", ".join(message for _, message in facts))
    if all(message.endswith("not measured") for message in missed):
        return Judgement(False, "NotMeasured", f"{', '.join(missed)} ({_cause(spec, served)}): {REMEDY}")
    return Judgement(False, "RequirementMissed", f"{', '.join(missed)}: {REMEDY}")


def _cause(spec: ModelVersionSpec, served: ServedEvaluationStatus | None) -> str:
    record = spec.lineage.evaluation
    if spec.evaluation and spec.evaluation.metrics:
        return (served.message if served else None) or "see the condition Evaluated"
    return record.message if record and record.message else "the lineage has no such value"


def _fact(requirement: str, spec: ModelVersionSpec, served: ServedEvaluationStatus | None) -> tuple[bool, str]:
    """Whether it is met, and the comparison that holds. Compares the values as they are shown."""
    if not (match := re.fullmatch(REQUIREMENT_PATTERN, requirement)):
        raise ValueError(f"{requirement!r} is no requirement; the API server admits none such")
    metric, operator, bound = match.group(1, 2, 3)
    if spec.evaluation and metric in spec.evaluation.metrics:
        measured = _scored(metric, served.metrics if served else ())
    else:
        measured = _recorded(metric, spec.lineage.evaluation)
    if measured is None:
        return False, f"{metric} was not measured"
    limit = measured.base if bound == "base" else bound
    value, threshold = _number(measured.fine_tuned), _number(limit)
    if value is None or threshold is None:
        return False, f"{metric} {measured.fine_tuned} {operator} {limit} compares what is no number"
    met = OPERATORS[operator](value, threshold)
    shown = operator if met else OPPOSITES[operator]
    return met, f"{metric} {measured.fine_tuned} {shown} {limit}{' (base)' if bound == 'base' else ''}"


def _number(text: str) -> float | None:
    """None of what a lineage of somebody else's making may say."""
    try:
        number = float(text)
    except ValueError:
        return None
    return None if isnan(number) else number


def _recorded(metric: str, record: EvaluationRecord | None) -> _Measured | None:
    if record is None:
        return None
    if metric == EVAL_LOSS:
        if record.test_loss is None or record.base_test_loss is None:
            return None
        return _Measured(record.base_test_loss, record.test_loss)
    return _scored(metric, record.metrics)


def _scored(metric: str, values: Iterable[MetricValue]) -> _Measured | None:
    return next((_Measured(value.base, value.fine_tuned) for value in values if value.name == metric), None)


def decimal(value: float) -> str:
    """Four digits, as every measured value is shown."""
    return f"{value:.4g}"
