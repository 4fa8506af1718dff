"""`finetune-operator dataset`: the same export outside a cluster.

The result is one JSON object on standard output; what happens, and what is wrong, goes to standard error. The
database's URL is a secret: it comes from a variable or from a file, never from the arguments, which every user of the
machine can read.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource, RatingsSource, VolumeSource
from finetune_operator.contract.failures import EXIT_CODES, TRY_AGAIN_EXIT_CODE, FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.dataset_records import EXPECTED, PAIR_FORMATS, READABLE_FORMATS, Format
from finetune_operator.core.datasets import rating_difference
from finetune_operator.logs import configure_logging, get_logger

logger = get_logger(__name__)


def main(options: argparse.Namespace, environment: Mapping[str, str] | None = None) -> int:
    """Returns the exit code: 0, or that of the failure's reason."""
    configure_logging()
    environment = os.environ if environment is None else environment
    try:
        match options.dataset_command:
            case "formats":
                answer = _formats()
            case "stats":
                answer = _stats(options, environment)
            case _:
                answer = _export(options, environment)
    except Refused as refused:
        failure = refused.failure
        logger.error("dataset refused", reason=failure.reason, message=failure.message, remedy=failure.remedy)
        return EXIT_CODES.get(failure.reason, TRY_AGAIN_EXIT_CODE)
    sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
    return 0


def _formats() -> dict[str, object]:
    return {
        name: {"record": record, "readable": name in READABLE_FORMATS, "pairs": name in PAIR_FORMATS}
        for name, record in EXPECTED.items()
    }


def _stats(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, object]:
    from finetune_operator.store.ratings import RatingsDatabase, as_data

    source = _ratings(options)
    timeout_seconds = DatasetConfig(source=source).database_timeout_seconds
    database = RatingsDatabase.open(_url(options, environment), timeout_seconds)
    try:
        database.check(source, all_ratings=False)
        return as_data(database.statistics(source, all_ratings=False))
    finally:
        database.close()


def _export(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, object]:
    from finetune_operator.store.datasets.dropped_rows import DROPPED_NAME
    from finetune_operator.store.datasets.export import Export

    config = _config(options)
    directory: Path = options.directory
    if (directory / "train.jsonl").exists():
        raise Refused.because(
            FailureReason.INVALID_CONFIG, f"{directory} holds a dataset already", "name another directory, or remove it"
        )
    directory.mkdir(parents=True, exist_ok=True)
    environment = dict(environment)
    if isinstance(config.source, RatingsSource):
        environment[DATABASE_URL_VARIABLE] = _url(options, environment)
    volume = options.file.parent if options.file else Path()
    output_format = cast(Format, options.format)
    logger.info("exporting", directory=str(directory), format=output_format, source=config.source.kind)
    work = Path(tempfile.mkdtemp(prefix=".dataset-", dir=directory))
    try:
        report = Export(config, output_format, volume, environment, work).write()
        (work / "report.json").write_text(report.model_dump_json(by_alias=True, indent=2))
        for name in ("test.jsonl", DROPPED_NAME, "report.json", "train.jsonl"):
            (work / name).rename(directory / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for warning in report.warnings:
        logger.warning(warning)
    return {
        "dataset_path": str(directory / "train.jsonl"),
        "test_path": str(directory / "test.jsonl"),
        "sample_count": report.rows + report.test_rows,
        "format": output_format,
        **report.model_dump(mode="json", exclude={"warnings"}),
        "warnings": list(report.warnings),
    }


def _config(options: argparse.Namespace) -> DatasetConfig:
    if options.file:
        source: RatingsSource | VolumeSource | ObjectSource = VolumeSource(path=options.file.name)
    elif options.object:
        source = ObjectSource(url=options.object, endpoint=options.endpoint)
    else:
        source = _ratings(options)
    try:
        return DatasetConfig(
            source=source,
            format=options.input_format,
            test_fraction=options.test_fraction,
            min_examples=options.min_examples,
            min_prompt_characters=options.min_prompt_characters,
            min_response_characters=options.min_response_characters,
            max_characters=options.max_characters,
            min_rating_difference=rating_difference(options.min_rating_difference, options.min_confidence_diff),
            seed=options.seed,
            max_bytes=options.max_bytes,
        )
    except ValidationError as error:
        raise Refused.because(
            FailureReason.INVALID_CONFIG, str(error), "see finetune-operator dataset --help"
        ) from None


def _ratings(options: argparse.Namespace) -> RatingsSource:
    return RatingsSource(
        philosopher=options.philosopher,
        domain=options.domain,
        task_type=options.task_type,
        min_rating=options.min_rating,
        min_confidence=options.min_confidence,
        gold_star_only=not options.all,
        limit=options.limit,
    )


def _url(options: argparse.Namespace, environment: Mapping[str, str]) -> str:
    if options.url_file is None:
        return environment.get(DATABASE_URL_VARIABLE, "")
    try:
        return str(options.url_file.read_text()).strip()
    except OSError as error:
        raise Refused.because(
            FailureReason.DATABASE_UNREACHABLE, f"{options.url_file}: {error.strerror}", "name a file with the URL"
        ) from None
