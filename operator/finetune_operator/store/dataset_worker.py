"""A process that does one piece of work on ratings or rows for the api, and can be killed at any moment.

    python -m finetune_operator.store.dataset_worker < order.json

The order is one line of JSON on standard input, the outcome one on standard output. The input stays open for as long as
the work is wanted: when it ends, as it does when the api dies in whatever way, so does this process.
"""

import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource
from finetune_operator.contract.failures import Failure, FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.dataset_records import PAIR_FORMATS, Format
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store.exported_datasets import FileName, StoredFile

NICENESS = 10
HASHED_BYTES = 1_048_576

logger = get_logger(__name__)


class ExportOrder(Message):
    """Make a dataset of ratings in an empty directory."""

    kind: Literal["Export"] = "Export"
    url_file: Path
    config: DatasetConfig
    format: Format
    directory: Path


class StatisticsOrder(Message):
    """Count the ratings that a dataset would be made of."""

    kind: Literal["Statistics"] = "Statistics"
    url_file: Path
    source: RatingsSource
    database_timeout_seconds: float = 60.0


class CheckOrder(Message):
    """Read a file that somebody has sent, row by row."""

    kind: Literal["Check"] = "Check"
    file: Path
    name: str
    """As its sender calls it."""


Order = Annotated[ExportOrder | StatisticsOrder | CheckOrder, Field(discriminator="kind")]


class ExportMade(Message):
    """The dataset is complete and on the disk."""

    kind: Literal["ExportMade"] = "ExportMade"
    report: DatasetReport
    files: tuple[StoredFile, ...]


class FilterLeft(Message):
    """How many rows are left when this filter has been added to those before it."""

    filter: str
    rows: int


class ExportEmpty(Message):
    """No row is left; `filters` begins with the whole table."""

    kind: Literal["ExportEmpty"] = "ExportEmpty"
    filters: tuple[FilterLeft, ...]


class RatingExample(Message):
    """One rating, with the beginnings of its texts, which are what people wrote: data, not HTML."""

    prompt: str
    response: str
    rating: str


class RatingsCounted(Message):
    """Statistics of the rows that all filters leave; lengths in characters. `by_filter` begins with the whole table."""

    kind: Literal["RatingsCounted"] = "RatingsCounted"
    rows: int
    by_filter: tuple[FilterLeft, ...]
    by_domain: dict[str, int]
    by_task_type: dict[str, int]
    by_rating: dict[str, int]
    average_prompt_characters: float
    average_response_characters: float
    examples: tuple[RatingExample, ...]


class FileChecked(Message):
    """Each row can be trained on."""

    kind: Literal["FileChecked"] = "FileChecked"
    rows: int
    format: Literal["OpenAI", "DPO"]


Outcome = Annotated[ExportMade | ExportEmpty | RatingsCounted | FileChecked | Failure, Field(discriminator="kind")]
ORDER: TypeAdapter[Order] = TypeAdapter(Order)
OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


def main() -> int:
    configure_logging(os.environ.get("FINETUNE_LOG_LEVEL") or "INFO")
    os.nice(NICENESS)
    order = ORDER.validate_json(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_input, name="dataset-worker-input", daemon=True).start()
    sys.stdout.buffer.write(OUTCOME.dump_json(done(order), by_alias=True) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _end_with_the_input() -> None:
    # Not sys.stdin, whose lock the interpreter wants when it ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


def done(order: Order) -> Outcome:
    """Do the work."""
    try:
        if isinstance(order, CheckOrder):
            return _check(order)
        url = _url(order.url_file)
        if isinstance(order, StatisticsOrder):
            return _count(order, url)
        return _export(order, url)
    except Refused as refused:
        failure = refused.failure
        logger.warning("refused", reason=failure.reason, message=failure.message, remedy=failure.remedy)
        return failure


def _url(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise Refused.because(
            FailureReason.DATABASE_UNREACHABLE, f"{file}: {error.strerror}", "name a file with the URL"
        ) from None


def _export(order: ExportOrder, url: str) -> Outcome:
    from finetune_operator.store.datasets.dropped_rows import DROPPED_NAME
    from finetune_operator.store.datasets.export import Export

    export = Export(order.config, order.format, Path(), {DATABASE_URL_VARIABLE: url}, order.directory)
    try:
        report = export.write()
    except Refused as refused:
        if refused.failure.reason == FailureReason.DATASET_EMPTY and (counted := _emptied(order, url)):
            return counted
        raise
    # The api counts what it keeps, and gives the report's counts alone.
    (order.directory / DROPPED_NAME).unlink()
    rows: dict[FileName, int] = {"train.jsonl": report.rows, "test.jsonl": report.test_rows}
    files = tuple(_described(order.directory / name, name, rows[name]) for name in get_args(FileName))
    return ExportMade(report=report, files=files)


def _emptied(order: ExportOrder, url: str) -> ExportEmpty | None:
    """The counts by filter, where it was a filter that left nothing."""
    from finetune_operator.store.ratings import RatingsDatabase

    source = order.config.source
    if not isinstance(source, RatingsSource):
        return None
    database = RatingsDatabase.open(url, order.config.database_timeout_seconds)
    try:
        all_ratings = order.format in PAIR_FORMATS or order.format == "Gauntlet"
        counts = database.count_by_filter(source, all_ratings=all_ratings)
    finally:
        database.close()
    if counts[-1].rows:
        return None
    return ExportEmpty(filters=tuple(FilterLeft(filter=count.filter, rows=count.rows) for count in counts))


def _count(order: StatisticsOrder, url: str) -> RatingsCounted:
    from finetune_operator.store.ratings import RatingsDatabase, as_data

    database = RatingsDatabase.open(url, order.database_timeout_seconds)
    try:
        database.check(order.source, all_ratings=False)
        found = database.statistics(order.source, all_ratings=False)
        return RatingsCounted.model_validate(as_data(found))
    finally:
        database.close()


def _check(order: CheckOrder) -> Outcome:
    """The first row says whether they are conversations or pairs."""
    from finetune_operator.store.datasets.files import json_lines

    with order.file.open("rb") as content:
        first = content.readline(HASHED_BYTES)
        found: Literal["OpenAI", "DPO"] = "DPO" if b'"chosen"' in first and b'"messages"' not in first else "OpenAI"
        content.seek(0)
        rows = sum(1 for _ in json_lines(content, order.name, found))
    if not rows:
        raise Refused.because(FailureReason.DATASET_EMPTY, f"{order.name} has no rows", "send one record in each line")
    return FileChecked(rows=rows, format=found)


def _described(path: Path, name: FileName, rows: int) -> StoredFile:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(HASHED_BYTES):
            digest.update(block)
            size += len(block)
    return StoredFile(name=name, rows=rows, bytes=size, sha256=digest.hexdigest())


if __name__ == "__main__":
    sys.exit(main())
