"""The `prepare` container: ratings or a file become `train.jsonl`, `test.jsonl` and `report.json`.

Everything is written beside its final place and renamed once complete, so that a killed attempt leaves nothing that
looks like a dataset, and a second attempt of a finished one does nothing.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import EXIT_CODES, TRY_AGAIN_EXIT_CODE, Failure, FailureReason, Refused
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    DATASETS_ROOT,
    MODELS_ROOT,
    PREPARE_CONTAINER,
    TERMINATION_MESSAGE_FILE,
    TERMINATION_MESSAGE_MAX_BYTES,
    JobPaths,
)
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.dataset_records import Format
from finetune_operator.core.preflight import remote_preflight
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store import durable
from finetune_operator.store.container import read_config
from finetune_operator.store.datasets.export import Export
from finetune_operator.store.posted_log import posted_log
from finetune_operator.store.preflight import characters_in, require_memory, run_preflight

WORK_PREFIX = ".dataset-"
DIRECTORY_MODE = 0o755

logger = get_logger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """Where the container finds things; tests put them elsewhere."""

    models: Path = Path(MODELS_ROOT)
    datasets: Path = Path(DATASETS_ROOT)
    artifacts: Path = Path(ARTIFACTS_ROOT)
    termination_log: Path = Path(TERMINATION_MESSAGE_FILE)


def main(
    config_file: Path, surroundings: Surroundings | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Make the dataset of one job; the outcome goes to the termination message, the return value is the exit code."""
    configure_logging()
    surroundings = surroundings or Surroundings()
    environment = os.environ if environment is None else environment
    try:
        config = read_config(TrainingConfig, config_file)
    except Refused as refused:
        return _refused(refused.failure, surroundings)
    with posted_log(config, PREPARE_CONTAINER, environment):
        return _attempt(config, surroundings, environment)


def _attempt(config: TrainingConfig, surroundings: Surroundings, environment: Mapping[str, str]) -> int:
    try:
        report = prepare(config, surroundings, environment)
    except Refused as refused:
        return _refused(refused.failure, surroundings)
    logger.info("dataset ready", **report.model_dump())
    surroundings.termination_log.write_text(as_short_report(report))
    return 0


def _refused(failure: Failure, surroundings: Surroundings) -> int:
    logger.error("dataset refused", reason=failure.reason, message=failure.message, remedy=failure.remedy)
    surroundings.termination_log.write_text(_as_termination_message(failure))
    return EXIT_CODES.get(failure.reason, TRY_AGAIN_EXIT_CODE)


def prepare(config: TrainingConfig, surroundings: Surroundings, environment: Mapping[str, str]) -> DatasetReport:
    """Make the dataset unless it is there. Raises `Refused` for what only the user can change."""
    paths = JobPaths.of(config, str(surroundings.artifacts))
    report_file = Path(paths.dataset_report)
    if report_file.exists():
        return DatasetReport.model_validate_json(report_file.read_bytes())
    _require_base_model(config, surroundings)
    model = None if config.remote or config.base_model_hub else surroundings.models / config.base_model_path
    if model:
        require_memory(config, model)
    directory = Path(paths.directory)
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=directory))
    try:
        report = _build(config, surroundings, environment, work, model)
        _publish(work, Path(paths.dataset))
    except OSError:
        # Two pods of one job may run for a moment: the slower one finds the other's dataset in place.
        if not report_file.exists():
            raise
        return DatasetReport.model_validate_json(report_file.read_bytes())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report


def _build(
    config: TrainingConfig,
    surroundings: Surroundings,
    environment: Mapping[str, str],
    work: Path,
    model: Path | None,
) -> DatasetReport:
    output_format: Format = "DPO" if config.method == "DPO" else "ChatML"
    report = Export(config.dataset, output_format, surroundings.datasets, environment, work).write()
    if model:
        preflight = run_preflight(config, model, work / "train.jsonl", report.rows)
        report = report.model_copy(update={"preflight": preflight})
    elif config.remote:
        characters = characters_in(work / "train.jsonl")
        report = report.model_copy(update={"preflight": remote_preflight(config, report.rows, characters)})
    durable.write(work / "report.json", report.model_dump_json(by_alias=True, indent=2).encode())
    return report


def _require_base_model(config: TrainingConfig, surroundings: Surroundings) -> None:
    if config.remote:
        return
    if config.base_model_hub:
        return  # the container `fetch` comes next
    directory = surroundings.models / config.base_model_path
    if not (directory / "config.json").is_file():
        raise Refused.because(
            FailureReason.BASE_MODEL_NOT_FOUND,
            f"the base model {config.base_model_name!r} is not at {config.base_model_path}: "
            + ("its config.json is missing" if directory.is_dir() else "there is no such directory"),
            "put the model there in Hugging Face format, or correct spec.baseModel.source.volume",
        )


def as_short_report(report: DatasetReport) -> str:
    """Kubernetes cuts what is longer, and half a report can't be read; the volume has the whole."""
    text = report.model_dump_json(by_alias=True)
    if len(text.encode()) <= TERMINATION_MESSAGE_MAX_BYTES:
        return text
    return report.model_copy(update={"dropped_rows": {}, "warnings": ()}).model_dump_json(by_alias=True)


def _as_termination_message(failure: Failure) -> str:
    """The failure as JSON, its message cut to what Kubernetes keeps."""
    text = failure.model_dump_json(by_alias=True)
    excess = len(text.encode()) - TERMINATION_MESSAGE_MAX_BYTES
    if excess <= 0:
        return text
    shorter = failure.message.encode()[: max(0, len(failure.message.encode()) - 2 * excess)].decode(errors="ignore")
    return failure.model_copy(update={"message": f"{shorter}..."}).model_dump_json(by_alias=True)


def _publish(work: Path, destination: Path) -> None:
    """One rename makes the dataset appear; what an older release may have left half done makes room."""
    work.chmod(DIRECTORY_MODE)
    if destination.exists() and not (destination / "report.json").exists():
        shutil.rmtree(destination)
    work.rename(destination)
    durable.sync(destination.parent)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
