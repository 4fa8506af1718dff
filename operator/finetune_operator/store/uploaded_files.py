"""Files that clients have uploaded to train on: one directory each, named by content, by namespace.

They are beside the exported datasets and follow the same rules: made in a work directory, seen by one rename, symbolic
links not followed. The same content in the same namespace is one file.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, NamedTuple

from pydantic import ValidationError

from finetune_operator.contract.base import Message
from finetune_operator.logs import get_logger
from finetune_operator.store import durable
from finetune_operator.store.exported_datasets import DIRECTORY_MODE, UnknownDataset, opened_file

FILE_ID = r"^file-[0-9a-f]{32}$"
DATA_NAME, METADATA_NAME = "data.jsonl", "file.json"
DIGEST_DIGITS = 32
WORK_PREFIX, DELETED_PREFIX, LOCK_NAME = ".work-", ".deleted-", ".lock"
ABANDONED_SECONDS = 86_400
"""No upload may take so long: what is left of an older one is of a process that was killed."""

logger = get_logger(__name__)


class UnknownFile(Exception):
    """There is no file of this id in the namespace."""


class NoRoom(Exception):
    """There would be more bytes than there may be: of the namespace, or of all files."""

    def __init__(self, left_bytes: int, *, of_namespace: bool) -> None:
        super().__init__(left_bytes, of_namespace)
        self.left_bytes = left_bytes
        self.of_namespace = of_namespace


class Quota(NamedTuple):
    """Most bytes of all files, and of those of one namespace."""

    max_bytes: int
    namespace_max_bytes: int


class UploadedFile(Message):
    """What is kept beside the content."""

    id: str
    namespace: str
    filename: str
    bytes: int
    sha256: str
    rows: int
    format: Literal["OpenAI", "DPO"]
    created_at: datetime
    created_by: str


def file_id(sha256: str) -> str:
    return f"file-{sha256[:DIGEST_DIGITS]}"


@dataclass(frozen=True)
class UploadedFiles:
    """All files of one directory, which is made where it is absent."""

    directory: Path

    def namespaces(self) -> list[str]:
        """Those that have files."""
        if not self.directory.is_dir():
            return []
        return sorted(entry.name for entry in self.directory.iterdir() if not entry.name.startswith("."))

    def newest_first(self, namespace: str) -> list[UploadedFile]:
        place = self.directory / namespace
        if not place.is_dir():
            return []
        found = []
        for entry in place.iterdir():
            if re.fullmatch(FILE_ID, entry.name):
                try:
                    found.append(self.find(namespace, entry.name))
                except UnknownFile:
                    logger.warning("not a file of this release", directory=str(entry))
        return sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)

    def find(self, namespace: str, identity: str) -> UploadedFile:
        """Raises `UnknownFile`, also for what is no id."""
        try:
            with self._opened(namespace, identity, METADATA_NAME) as handle, open(handle, "rb", closefd=False) as file:
                return UploadedFile.model_validate_json(file.read())
        except (OSError, ValidationError):
            raise UnknownFile(identity) from None

    def opened(self, namespace: str, identity: str) -> IO[bytes]:
        """The content, which stays readable though it is deleted. Raises `UnknownFile`."""
        with self._opened(namespace, identity, DATA_NAME) as handle:
            return os.fdopen(os.dup(handle), "rb")

    def delete(self, namespace: str, identity: str) -> None:
        """Raises `UnknownFile`."""
        self.find(namespace, identity)
        aside = Path(tempfile.mkdtemp(prefix=DELETED_PREFIX, dir=self.directory))
        try:
            with self._locked():
                (self.directory / namespace / identity).rename(aside / identity)
                durable.sync(self.directory / namespace)
        except FileNotFoundError:
            raise UnknownFile(identity) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def work_directory(self) -> Iterator[Path]:
        """A place for one upload; what abandoned ones left is removed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for entry in self.directory.iterdir():
            if entry.name.startswith((WORK_PREFIX, DELETED_PREFIX)) and _age_seconds(entry) > ABANDONED_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=self.directory))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def publish(self, work: Path, file: UploadedFile, quota: Quota) -> UploadedFile:
        """Make it appear, unless it is there; returns what is there then. Raises `NoRoom`."""
        with self._locked():
            try:
                return self.find(file.namespace, file.id)
            except UnknownFile:
                pass
            self._require_room(file, quota)
            durable.write(work / METADATA_NAME, file.model_dump_json(by_alias=True, indent=2).encode())
            work.chmod(DIRECTORY_MODE)
            place = self.directory / file.namespace
            place.mkdir(exist_ok=True)
            target = place / file.id
            if target.exists():
                # Without metadata it was never listed: damaged, or of another release.
                target.rename(Path(tempfile.mkdtemp(prefix=DELETED_PREFIX, dir=self.directory)) / file.id)
            work.rename(target)
            durable.sync(place)
        return file

    def _require_room(self, file: UploadedFile, quota: Quota) -> None:
        """Where neither has room it is the namespace's lack that is told: whoever sends can do something about it."""
        known = {each: sum(kept.bytes for kept in self.newest_first(each)) for each in self.namespaces()}
        left_here = quota.namespace_max_bytes - known.get(file.namespace, 0)
        if file.bytes > left_here:
            raise NoRoom(max(0, left_here), of_namespace=True)
        left = quota.max_bytes - sum(known.values())
        if file.bytes > left:
            raise NoRoom(max(0, left), of_namespace=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among all pods on the volume, for as long as it takes to count and to rename."""
        handle = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def _opened(self, namespace: str, identity: str, name: str) -> Iterator[int]:
        if not re.fullmatch(FILE_ID, identity):
            raise UnknownFile(identity)
        try:
            with opened_file(self.directory / namespace, identity, name) as handle:
                yield handle
        except UnknownDataset:
            raise UnknownFile(identity) from None


def _age_seconds(entry: Path) -> float:
    try:
        return time.time() - entry.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
