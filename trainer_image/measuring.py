"""Measuring what is published, by evaluate.py in a process of its own: it may end badly, and the job goes on.

The volume keeps how often it was begun, so that an evaluation which takes its pod with it is not repeated for ever, and
what was measured, so that an attempt that follows a dead one need not measure again.
"""

import json
import shutil
from pathlib import Path

import durable
from child import ChildFailed, run_child
from failures import log
from pydantic import ValidationError

from finetune_operator.contract.base import Message
from finetune_operator.contract.evaluation import EvaluationConfig, EvaluationReport
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig, TrainingResult

MOST_ATTEMPTS = 3
REMEDY = "raise spec.resources.limits.memory, or lower spec.evaluation.maxExamples, maxNewTokens or training.batchSize"


class Measured(Message):
    """What evaluate.py has found out so far; `loss_error` says why there are no losses."""

    test_loss: float | None = None
    base_test_loss: float | None = None
    loss_error: str | None = None
    evaluation: EvaluationReport | None = None


def is_to_be_measured(config: TrainingConfig, result: TrainingResult) -> bool:
    """Whether something is missing that was not yet found to be impossible."""
    has_loss = result.test_loss is not None or not result.dataset.test_rows
    return result.evaluation is None and not (has_loss and config.evaluation is None)


def measured(config: TrainingConfig, paths: JobPaths, attempt: str, result: TrainingResult) -> TrainingResult:
    """The result with what could be measured, and with the reason for what could not."""
    directory = Path(paths.evaluation)
    directory.mkdir(exist_ok=True)
    output = directory / "measured.json"
    found = read_measured(output)
    error = None
    if found is None or (config.evaluation and found.evaluation is None):
        error = try_again(config, paths, attempt, output)
        found = read_measured(output) or Measured()
    result = with_measured(result, found, error)
    log("measured", test_loss=result.test_loss, base_test_loss=result.base_test_loss, error=error)
    return result


def with_measured(result: TrainingResult, found: Measured, error: str | None) -> TrainingResult:
    """An error of the losses alone is a remark where there are metrics."""
    report = found.evaluation
    if error:
        report = EvaluationReport(error=error)
    elif found.loss_error and report is None:
        report = EvaluationReport(error=found.loss_error)
    elif found.loss_error and report and report.error is None:
        remarks = "; ".join(filter(None, (found.loss_error, report.remark)))
        report = report.model_copy(update={"remark": remarks})
    losses = {"test_loss": found.test_loss, "base_test_loss": found.base_test_loss}
    return result.model_copy(update={"evaluation": report} | losses)


def try_again(config: TrainingConfig, paths: JobPaths, attempt: str, output: Path) -> str | None:
    """Why there is no evaluation, if there is none."""
    counter = output.with_name("attempts.json")
    begun = json.loads(counter.read_text()) if counter.exists() else 0
    if begun >= MOST_ATTEMPTS:
        return f"the evaluation was begun {begun} times, and each time its pod ended first: {REMEDY}"
    durable.write(counter, json.dumps(begun + 1))
    config_file = output.with_name("config.json")
    durable.write(config_file, config.model_dump_json(by_alias=True, exclude_none=True))
    wanted = config.evaluation or EvaluationConfig(metrics=())
    artifacts = str(Path(paths.directory).parents[2])
    arguments = ["--config", str(config_file), "--artifacts", artifacts, "--attempt", attempt, "--output", str(output)]
    log("measuring", number=begun + 1, metrics=wanted.metrics, timeout_seconds=wanted.timeout_seconds)
    try:
        run_child("evaluate.py", arguments, wanted.timeout_seconds)
    except ChildFailed as error:
        log("measuring failed; the adapter is published without it", error=error)
        return f"the evaluation {error}: {REMEDY}, or raise spec.evaluation.timeoutSeconds"
    return None if output.exists() else f"the evaluation left nothing: {REMEDY}"


def forget(paths: JobPaths) -> None:
    """What is in the result by now."""
    shutil.rmtree(Path(paths.evaluation), ignore_errors=True)


def read_measured(file: Path) -> Measured | None:
    try:
        return Measured.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_measured(found: Measured, file: Path) -> None:
    durable.write(file, found.model_dump_json(by_alias=True))
