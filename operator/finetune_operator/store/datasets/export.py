"""One dataset from its source to its two files and its report; used by the prepare container and the command line."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, ObjectSource, RatingsSource, StoredSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core import datasets
from finetune_operator.core.dataset_records import PAIR_FORMATS, Format, InvalidRecord, write_record
from finetune_operator.core.datasets import DropReason
from finetune_operator.store.datasets.dropped_rows import DROPPED_NAME
from finetune_operator.store.datasets.engine import BLOCK_BYTES
from finetune_operator.store.datasets.files import Numbered, inside, records
from finetune_operator.store.datasets.ratings_scan import spool_ratings
from finetune_operator.store.datasets.space import told_when_full
from finetune_operator.store.datasets.spool import Spool
from finetune_operator.store.datasets.stored import fetch_stored
from finetune_operator.store.ratings import RatingsDatabase, is_writable
from finetune_operator.store.urls import parse_url


@dataclass(frozen=True)
class Export:
    """What to make, and where its parts are found; secrets are in `environment` alone."""

    config: DatasetConfig
    output_format: Format
    volume: Path
    environment: Mapping[str, str]
    directory: Path

    def write(self) -> DatasetReport:
        """Write `train.jsonl`, `test.jsonl` and `dropped.jsonl` into the directory. Raises `Refused`."""
        report = self._split()
        return self._with_validation(report, self.config.validation) if self.config.validation else report

    def _with_validation(self, report: DatasetReport, source: StoredSource) -> DatasetReport:
        """Rows to evaluate by, of a file of their own, which is read as the other is and held out as a whole."""
        with tempfile.TemporaryDirectory(prefix="validation-", dir=self.directory) as place:
            config = self.config.model_copy(
                update={"source": source, "validation": None, "test_fraction": 0.0, "min_examples": 1}
            )
            try:
                held_out = replace(self, config=config, directory=Path(place)).write()
            except Refused as refused:
                failure = refused.failure
                raise Refused.because(failure.reason, f"validation: {failure.message}", failure.remedy) from None
            (Path(place) / "train.jsonl").replace(self.directory / "test.jsonl")
        both = hashlib.sha256(f"{report.digest} {held_out.digest}\n".encode()).hexdigest()
        return report.model_copy(update={"test_rows": held_out.rows, "digest": f"sha256:{both}"})

    def _split(self) -> DatasetReport:
        with told_when_full(), tempfile.TemporaryDirectory(prefix="work-", dir=self.directory) as work:
            spool, warnings = self._read(Path(work))
            try:
                kept = spool.rows
                failure = datasets.size_failure(kept, spool.dropped.counts, self.config, self._method)
                if failure and kept == 0:
                    raise Refused(failure)
                fraction = 0.0 if self.config.validation else self.config.test_fraction
                parts = spool.write(self.directory / "train.jsonl", self.directory / "test.jsonl", fraction)
                spool.dropped.path.replace(self.directory / DROPPED_NAME)
            finally:
                spool.close()
        kept = parts.rows + parts.test_rows
        failure = datasets.size_failure(kept, spool.dropped.counts, self.config, self._method)
        if failure:
            raise Refused(failure)
        return DatasetReport(
            rows=parts.rows,
            test_rows=parts.test_rows,
            digest=parts.digest,
            dropped=dict(sorted(spool.dropped.counts.items())),
            dropped_rows=spool.dropped.rows,
            warnings=(*warnings, *datasets.size_warnings(kept)),
        )

    @property
    def _method(self) -> str:
        return "DPO" if self.output_format in PAIR_FORMATS else "SFT"

    @property
    def _input_format(self) -> Format:
        """Pairs are read from pairs, whatever is set."""
        made_of_pairs = self.output_format in PAIR_FORMATS
        return "DPO" if made_of_pairs and self.config.format not in PAIR_FORMATS else self.config.format

    def _read(self, work: Path) -> tuple[Spool, tuple[str, ...]]:
        source = self.config.source
        if isinstance(source, RatingsSource):
            return self._from_ratings(source, work)
        if isinstance(source, StoredSource):
            rows = records(
                fetch_stored(source, self.environment, work, self.config.max_bytes),
                source.path,
                self._input_format,
                work,
            )
        elif isinstance(source, ObjectSource):
            # Only whoever reads from a store pays for its client.
            from finetune_operator.store.datasets.objects import fetch

            rows = records(
                fetch(source, self.environment, work, self.config.max_bytes), source.url, self._input_format, work
            )
        else:
            rows = records(inside(self.volume, source.path), source.path, self._input_format, work)
        return self._from_records(rows, work), ()

    def _from_ratings(self, source: RatingsSource, work: Path) -> tuple[Spool, tuple[str, ...]]:
        url_text = self.environment.get(DATABASE_URL_VARIABLE, "")
        all_ratings = self.output_format in PAIR_FORMATS or self.output_format == "Gauntlet"
        database = RatingsDatabase.open(url_text, self.config.database_timeout_seconds)
        try:
            database.check(source, all_ratings=all_ratings)
            spool = spool_ratings(database, source, self.config, self.output_format, work)
            if not spool.rows and not spool.dropped.counts.keys() - {DropReason.LOW_RATING}:
                spool.close()
                raise Refused(datasets.emptied_by(database.count_by_filter(source, all_ratings=all_ratings)))
            return spool, _warnings(url_text)
        finally:
            database.close()

    def _from_records(self, rows: Iterator[Numbered], work: Path) -> Spool:
        spool = Spool(work, self.config.max_bytes)
        added, size = [], 0
        try:
            for number, record in rows:
                if reason := datasets.quality(record, self.config):
                    spool.dropped.add(reason, str(number))
                    continue
                try:
                    line = write_record(record, self.output_format)
                except InvalidRecord as error:
                    raise Refused.because(
                        FailureReason.DATASET_INVALID,
                        f"row {number}: {error}",
                        "choose another format to write",
                    ) from None
                added += [datasets.prompt_key(record.prompt, self.config.seed), line, b"\n"]
                size += len(line)
                if size >= BLOCK_BYTES:
                    spool.add(b"".join(added))
                    added, size = [], 0
            spool.add(b"".join(added))
        except BaseException:
            spool.close()
            raise
        return spool


def _warnings(url_text: str) -> tuple[str, ...]:
    url = parse_url(url_text)
    if url.backend != "sqlite":
        return ()
    database = Path(str(url.database))
    log = database.with_name(f"{database.name}-wal")
    if not is_writable(database.parent) and log.exists() and log.stat().st_size:
        return (
            "the SQLite database is on a read-only volume and its newest changes are still in its write-ahead "
            "log, which can't be read there: close the writing application or run PRAGMA wal_checkpoint",
        )
    return ()
