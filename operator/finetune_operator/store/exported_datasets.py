"""Datasets that the api has exported: one directory each, named by format and digest, in one directory of a volume.

A dataset is made in a work directory beside the others and appears by one rename, so that a killed export leaves
nothing that is listed. Whoever makes one holds a file lock on the whole directory, across all pods that mount it: what
another export left half done can then be removed, and the quota is counted without races. Other things on the volume
are left alone; symbolic links are not followed, since a volume may be shared.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, NamedTuple

from pydantic import ValidationError

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetConfig, DatasetReport
from finetune_operator.core.dataset_records import Format
from finetune_operator.logs import get_logger
from finetune_operator.store import durable

DATASET_ID = r"^[a-z]{3,16}-[0-9a-f]{32}$"
DIGEST_DIGITS = 32
METADATA_NAME = "dataset.json"
LOCK_NAME = ".lock"
WORK_PREFIX = ".work-"
DELETED_PREFIX = ".deleted-"
DIRECTORY_MODE = 0o750
SHOWN_ROW_MAX_BYTES = 65_536
SHOWN_MAX_BYTES = 1_048_576
SKIPPED_BYTES = 65_536

FileName = Literal["train.jsonl", "test.jsonl"]

logger = get_logger(__name__)


class UnknownDataset(Exception):
    """There is no dataset of this id."""


class WrongCursor(Exception):
    """Not the beginning of a row."""


class StoredFile(Message):
    """One part of a dataset."""

    name: FileName
    rows: int
    bytes: int
    sha256: str


class StoredDataset(Message):
    """What is kept beside the files: what was asked for, by whom, and what came of it."""

    id: str
    format: Format
    config: DatasetConfig
    report: DatasetReport
    files: tuple[StoredFile, ...]
    created_at: datetime
    created_by: str

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def file(self, name: FileName) -> StoredFile:
        return next(file for file in self.files if file.name == name)


class ShownRow(NamedTuple):
    """A line and its length; no text where it is longer than what is shown."""

    size_bytes: int
    line: bytes | None


class ShownRows(NamedTuple):
    """Some rows, and where the next one begins, if there is one."""

    rows: tuple[ShownRow, ...]
    next_cursor: int | None


def dataset_id(record_format: Format, digest: str) -> str:
    """The format is part of it, since two formats may have the same lines."""
    return f"{record_format.lower()}-{digest.removeprefix('sha256:')[:DIGEST_DIGITS]}"


@dataclass(frozen=True)
class ExportedDatasets:
    """All datasets of one directory, which is made where it is absent."""

    directory: Path

    def newest_first(self) -> list[StoredDataset]:
        found = []
        for entry in self._entries():
            try:
                found.append(self.find(entry))
            except UnknownDataset:
                logger.warning("not a dataset of this release", directory=str(self.directory / entry))
        return sorted(found, key=lambda dataset: (dataset.created_at, dataset.id), reverse=True)

    def find(self, dataset: str) -> StoredDataset:
        """Raises `UnknownDataset`, also for what is no id."""
        try:
            return StoredDataset.model_validate_json(self._read(dataset, METADATA_NAME))
        except (OSError, ValidationError):
            raise UnknownDataset(dataset) from None

    def opened(self, dataset: str, name: FileName) -> IO[bytes]:
        """A file to send, which stays readable though the dataset is deleted. Raises `UnknownDataset`."""
        with self._opened(dataset, name) as handle:
            return os.fdopen(os.dup(handle), "rb")

    def rows(self, dataset: str, name: FileName, cursor: int, max_rows: int) -> ShownRows:
        """Rows from a place that an earlier call told. Raises `UnknownDataset` and `WrongCursor`."""
        rows: list[ShownRow] = []
        shown = 0
        with self._opened(dataset, name) as handle, open(handle, "rb", closefd=False) as file:
            if cursor:
                file.seek(cursor - 1)
                if file.read(1) != b"\n":
                    raise WrongCursor(cursor)
            while len(rows) < max_rows and shown < SHOWN_MAX_BYTES:
                line = file.readline(SHOWN_ROW_MAX_BYTES)
                if not line:
                    return ShownRows(tuple(rows), None)
                length = len(line)
                end = line[-1:]
                while end != b"\n" and (rest := file.readline(SKIPPED_BYTES)):
                    length += len(rest)
                    end = rest[-1:]
                rows.append(ShownRow(length, line if length == len(line) else None))
                shown += len(line)
            position = file.tell()
            return ShownRows(tuple(rows), position if file.read(1) else None)

    def delete(self, dataset: str) -> None:
        """Raises `UnknownDataset`."""
        self.find(dataset)
        aside = Path(tempfile.mkdtemp(prefix=DELETED_PREFIX, dir=self.directory))
        try:
            (self.directory / dataset).rename(aside / dataset)
            durable.sync(self.directory)
        except FileNotFoundError:
            raise UnknownDataset(dataset) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def try_lock(self) -> int | None:
        """The right to make a dataset, as a handle to close; None while somebody else has it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        return handle

    @contextmanager
    def work_directory(self) -> Iterator[Path]:
        """A place to make a dataset in, only while one has the lock; what earlier ones left there is removed."""
        for entry in self.directory.iterdir():
            if entry.name.startswith((WORK_PREFIX, DELETED_PREFIX)):
                shutil.rmtree(entry, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=self.directory))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def publish(self, work: Path, dataset: StoredDataset) -> StoredDataset:
        """Make it appear, unless it is there; returns what is there then."""
        try:
            return self.find(dataset.id)
        except UnknownDataset:
            pass
        durable.write(work / METADATA_NAME, dataset.model_dump_json(by_alias=True, indent=2).encode())
        work.chmod(DIRECTORY_MODE)
        target = self.directory / dataset.id
        if target.exists():
            # Without metadata it was never listed: damaged, or of another release.
            target.rename(self.directory / f"{DELETED_PREFIX}{dataset.id}")
        work.rename(target)
        durable.sync(self.directory)
        return dataset

    def _entries(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return [entry.name for entry in self.directory.iterdir() if re.fullmatch(DATASET_ID, entry.name)]

    def _read(self, dataset: str, name: str) -> bytes:
        with self._opened(dataset, name) as handle, open(handle, "rb", closefd=False) as file:
            return file.read()

    @contextmanager
    def _opened(self, dataset: str, name: str) -> Iterator[int]:
        """A handle on a regular file of a dataset. Raises `UnknownDataset`."""
        with opened_file(self.directory, dataset, name) as handle:
            yield handle


@contextmanager
def opened_file(directory: Path, identity: str, name: str) -> Iterator[int]:
    """A handle on a regular file of what has this id, no symbolic link followed. Raises `UnknownDataset`."""
    if not re.fullmatch(DATASET_ID, identity):
        raise UnknownDataset(identity)
    try:
        parent = os.open(directory / identity, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError:
        raise UnknownDataset(identity) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnknownDataset(identity)
        yield handle
    finally:
        os.close(handle)


def directory_bytes(directory: Path) -> int:
    """What all files below a directory have, as far as they can still be seen."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
