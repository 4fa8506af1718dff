"""The `prepare` container: ratings or a file become `train.jsonl`, `test.jsonl` and `report.json`.

Everything is written beside its final place and renamed once complete, so that a killed attempt leaves nothing that
looks like a dataset, and a second attempt of a finished one does nothing.
"""

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from finetune_operator.contract.dataset import DatasetReport, RatingsSource
from finetune_operator.contract.failures import EXIT_CODES, Failure, FailureReason
from finetune_operator.contract.places import (
    ARTIFACTS_ROOT,
    DATABASE_URL_VARIABLE,
    DATASETS_ROOT,
    MODELS_ROOT,
    TERMINATION_MESSAGE_FILE,
    TERMINATION_MESSAGE_MAX_BYTES,
    JobPaths,
)
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core import datasets
from finetune_operator.core.datasets import DropReason, RatedAnswer, Record, Refused
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store.database import is_writable, parse_url
from finetune_operator.store.ratings import RatedRow, RatingsDatabase

LINE_MAX_BYTES = 16 * 1024 * 1024
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
    try:
        report = prepare(read_config(config_file), surroundings, os.environ if environment is None else environment)
    except Refused as refused:
        failure = refused.failure
        logger.error("dataset refused", reason=failure.reason, message=failure.message, remedy=failure.remedy)
        surroundings.termination_log.write_text(_as_termination_message(failure))
        return EXIT_CODES[failure.reason]
    logger.info("dataset ready", **report.model_dump())
    surroundings.termination_log.write_text(report.model_dump_json(by_alias=True))
    return 0


def read_config(config_file: Path) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate_json(config_file.read_bytes())
    except (OSError, ValidationError) as error:
        raise Refused.because(
            FailureReason.INVALID_CONFIG,
            f"{config_file} is not a training config: {error}",
            "run the operator and its images from the same release",
        ) from None


def prepare(config: TrainingConfig, surroundings: Surroundings, environment: Mapping[str, str]) -> DatasetReport:
    """Make the dataset unless it is there. Raises `Refused` for what only the user can change."""
    paths = JobPaths.of(config, str(surroundings.artifacts))
    report_file = Path(paths.dataset_report)
    if report_file.exists():
        return DatasetReport.model_validate_json(report_file.read_bytes())
    _require_base_model(config, surroundings)
    directory = Path(paths.directory)
    directory.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=directory))
    try:
        report = _Builder(config, surroundings, environment, work).build()
        _publish(work, Path(paths.dataset))
    except OSError:
        # Two pods of one job may run for a moment: the slower one finds the other's dataset in place.
        if not report_file.exists():
            raise
        return DatasetReport.model_validate_json(report_file.read_bytes())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report


class _Builder:
    """One run: rows go through the rules into a spool file, then in the order of their keys into the two parts."""

    def __init__(
        self, config: TrainingConfig, surroundings: Surroundings, environment: Mapping[str, str], work: Path
    ) -> None:
        self._config = config
        self._dataset = config.dataset
        self._surroundings = surroundings
        self._environment = environment
        self._work = work
        self._dropped: Counter[str] = Counter()
        self._warnings: list[str] = []
        self._places: dict[bytes, tuple[bytes, int, int]] = {}

    def build(self) -> DatasetReport:
        with (self._work / "spool").open("w+b") as spool:
            for record in self._records():
                self._keep(record, spool)
            failure = datasets.size_failure(len(self._places), self._dropped, self._dataset, self._config.method)
            if failure:
                raise Refused(failure)
            report = self._write_parts(spool)
        (self._work / "spool").unlink()
        _write_durably(self._work / "report.json", report.model_dump_json(by_alias=True, indent=2).encode())
        return report

    def _records(self) -> Iterator[Record]:
        match self._dataset.source:
            case RatingsSource():
                return self._from_ratings(self._dataset.source)
            case _:
                return self._from_volume(self._dataset.source.path)

    def _keep(self, record: Record, spool: IO[bytes]) -> None:
        reason = datasets.quality(record, self._dataset)
        key = datasets.order_key(record.line, self._dataset.seed)
        if reason is None and key in self._places:
            reason = DropReason.DUPLICATE
        if reason is not None:
            self._dropped[reason] += 1
            return
        offset = spool.tell()
        spool.write(record.line)
        self._places[key] = (datasets.prompt_key(record.prompt, self._dataset.seed), offset, len(record.line))

    def _write_parts(self, spool: IO[bytes]) -> DatasetReport:
        held_out = datasets.held_out_prompts(
            (prompt_key for prompt_key, _, _ in self._places.values()), self._dataset.test_fraction
        )
        digest = datasets.Digest()
        rows = {}
        for part in ("train", "test"):
            digest.begin(part)
            rows[part] = 0
            with (self._work / f"{part}.jsonl").open("wb") as file:
                for key in sorted(self._places):
                    prompt_key, offset, length = self._places[key]
                    if (prompt_key in held_out) == (part == "test"):
                        spool.seek(offset)
                        line = spool.read(length)
                        file.write(line + b"\n")
                        digest.add(line)
                        rows[part] += 1
                _flush(file)
        return DatasetReport(
            rows=rows["train"],
            test_rows=rows["test"],
            digest=str(digest),
            dropped=dict(sorted(self._dropped.items())),
            warnings=(*self._warnings, *datasets.size_warnings(len(self._places))),
        )

    def _from_ratings(self, source: RatingsSource) -> Iterator[Record]:
        url_text = self._environment.get(DATABASE_URL_VARIABLE, "")
        database = RatingsDatabase.open(url_text, self._dataset.database_timeout_seconds)
        try:
            self._warn_about_hidden_log(url_text)
            found = False
            rows = database.rows(source, self._config.method)
            for record in self._pairs(rows) if self._config.method == "DPO" else _questions_and_answers(rows):
                found = True
                yield record
            if not found and not self._dropped:
                raise Refused(datasets.emptied_by(database.count_by_filter(source, self._config.method)))
            low_rated = database.low_rated(source, self._config.method)
            if low_rated:
                self._dropped[DropReason.LOW_RATING] = low_rated
        finally:
            database.close()

    def _pairs(self, rows: Iterator[RatedRow]) -> Iterator[Record]:
        """The best answer of each prompt against its worst; several ratings of one answer count by their mean."""
        by_prompt: dict[str, dict[str, list[int]]] = {}
        for row in rows:
            by_prompt.setdefault(row.prompt, {}).setdefault(row.response, []).append(row.rating)
        for prompt, answers in by_prompt.items():
            rated = [RatedAnswer(response, sum(ratings) / len(ratings)) for response, ratings in answers.items()]
            pair = datasets.best_pair(rated, self._dataset.min_rating_difference)
            unused = sum(len(ratings) for response, ratings in answers.items() if pair is None or response not in pair)
            if unused:
                self._dropped[DropReason.NO_PAIR] += unused
            if pair:
                yield datasets.pair(prompt, *pair)

    def _from_volume(self, relative_path: str) -> Iterator[Record]:
        record_format = "DPO" if self._config.method == "DPO" else self._dataset.format
        file = _inside(self._surroundings.datasets, relative_path)
        with file.open("rb") as lines:
            number = 0
            while line := lines.readline(LINE_MAX_BYTES + 1):
                number += 1
                if len(line) > LINE_MAX_BYTES:
                    raise _bad_row(relative_path, number, f"longer than {LINE_MAX_BYTES} bytes", record_format)
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not content.strip():
                    continue
                try:
                    yield datasets.parse_record(content, record_format)
                except datasets.InvalidRecord as error:
                    raise _bad_row(relative_path, number, str(error), record_format) from None

    def _warn_about_hidden_log(self, url_text: str) -> None:
        url = parse_url(url_text)
        if url.get_backend_name() != "sqlite":
            return
        database = Path(str(url.database))
        log = database.with_name(f"{database.name}-wal")
        if not is_writable(database.parent) and log.exists() and log.stat().st_size:
            self._warnings.append(
                "the SQLite database is on a read-only volume and its newest changes are still in its write-ahead "
                "log, which can't be read there: close the writing application or run PRAGMA wal_checkpoint"
            )


def _questions_and_answers(rows: Iterator[RatedRow]) -> Iterator[Record]:
    return (datasets.question_and_answer(row.prompt, row.response) for row in rows)


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


def _inside(root: Path, relative_path: str) -> Path:
    """The file behind a user's path, symbolic links resolved, which must not lead out of the volume."""
    try:
        file = (root / relative_path).resolve(strict=True)
        inside = file.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        raise _bad_path(relative_path, "does not exist on the volume") from None
    if not inside:
        raise _bad_path(relative_path, "leads out of its volume")
    if not file.is_file():
        raise _bad_path(relative_path, "is not a file")
    return file


def _bad_path(relative_path: str, what: str) -> Refused:
    return Refused.because(
        FailureReason.DATASET_INVALID,
        f"dataset.volume.path {relative_path!r} {what}",
        "name a JSONL file below the volume's root",
    )


def _bad_row(relative_path: str, number: int, what: str, record_format: str) -> Refused:
    return Refused.because(
        FailureReason.DATASET_INVALID,
        f"row {number} of {relative_path} is not a {record_format} record: {what}",
        f"each line must look like {datasets.EXPECTED[record_format]}",
    )


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
    handle = os.open(destination.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _flush(file)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
