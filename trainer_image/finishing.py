"""What follows the training once the adapter is published: measuring, exporting, the result.

Nothing that happens here costs the adapter. Whoever ends the trainer in the middle, the kernel included, finds the
result so far on the volume, for an attempt that follows, and in the termination message, for the operator.
"""

import faulthandler
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exports import make_outputs, merged_digest, missing_outputs, write_listing
from measuring import REMEDY, forget, is_to_be_measured, measured
from memory import within_memory
from publish import write_result, write_termination_message

from finetune_operator.contract.artifacts import OutputError
from finetune_operator.contract.evaluation import EvaluationReport
from finetune_operator.contract.places import JobPaths
from finetune_operator.contract.training import TrainingConfig, TrainingResult

if TYPE_CHECKING:
    from held_out import HeldOut

LOSSES_TIMEOUT_SECONDS = 3600.0


def keep(config: TrainingConfig, paths: JobPaths, result: TrainingResult, message_file: Path) -> None:
    """From now on the training has succeeded."""
    write_result(result, Path(paths.trained))
    write_termination_message(cut_short(config, paths, result), message_file)


def cut_short(config: TrainingConfig, paths: JobPaths, result: TrainingResult) -> TrainingResult:
    """The result if the container ended now, without another word."""
    ended = "the trainer was ended, for memory or by its node, before"
    if is_to_be_measured(config, result):
        report = EvaluationReport(error=f"{ended} the held-out rows were measured: {REMEDY}")
        result = result.model_copy(update={"evaluation": report})
    errors = tuple(
        OutputError(output=output, message=f"{ended} it was made: raise spec.resources.limits.memory")
        for output in missing_outputs(config, paths)
    )
    return result.model_copy(update={"output_errors": errors, "merged_digest": merged_digest(config, paths)})


def with_losses(result: TrainingResult, held_out: "HeldOut", model: Any) -> TrainingResult:
    """With the losses on the held-out rows, measured on the model that is still loaded.

    A crash or a hang here ends the attempt; the one that follows has them measured by a process of its own.
    """
    faulthandler.dump_traceback_later(LOSSES_TIMEOUT_SECONDS, exit=True)
    with within_memory():
        losses = held_out.losses_if_possible(model)
    faulthandler.cancel_dump_traceback_later()
    report = EvaluationReport(error=losses.error) if losses.error else None
    found = {"base_test_loss": losses.base, "test_loss": losses.fine_tuned, "evaluation": report}
    return result.model_copy(update=found)


def finish(
    config: TrainingConfig, paths: JobPaths, attempt: str, result: TrainingResult, message_file: Path
) -> TrainingResult:
    """Measure what is published and export it, as the job asks; an attempt that follows a dead one goes on here."""
    keep(config, paths, result, message_file)
    if is_to_be_measured(config, result):
        result = measured(config, paths, attempt, result)
        keep(config, paths, result, message_file)
    forget(paths)
    if config.outputs:
        errors = make_outputs(config, paths, result, tell=lambda: keep(config, paths, result, message_file))
        result = result.model_copy(update={"output_errors": errors, "merged_digest": merged_digest(config, paths)})
    result = result.model_copy(update={"artifacts": write_listing(paths)})
    write_result(result, Path(paths.result))
    tidy_up(paths)
    return result


def tidy_up(paths: JobPaths) -> None:
    """Remove what only an attempt that goes on would need; again, where an attempt died in it."""
    Path(paths.trained).unlink(missing_ok=True)
    forget(paths)
    shutil.rmtree(Path(paths.checkpoints), ignore_errors=True)
