"""Reads an adapter directory and says whether this server may load it; used at start and for each hot load.

The decision itself is `finetune_operator.core.artifacts`.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from finetune_operator.contract.adapters import AdapterFile, AdapterList, AdapterManifest
from finetune_operator.contract.places import ADAPTERS_FILE, ARTIFACTS_ROOT
from finetune_operator.core.artifacts import (
    CONFIG_NAME,
    HEADER_PREFIX_BYTES,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Expected,
    Refusal,
    Refused,
    broken_weights,
    header_bytes,
    refuse_adapter,
    refuse_name,
    refuse_weights,
)

# Set by serve.py for the guard, which vLLM makes without arguments.
ADAPTERS_FILE_VARIABLE = "FINETUNE_ADAPTERS_FILE"
ARTIFACTS_ROOT_VARIABLE = "FINETUNE_ARTIFACTS_ROOT"
SMALL_FILE_MAX_BYTES = 1024 * 1024


def read_adapter_list(path: Path = Path(ADAPTERS_FILE)) -> AdapterList:
    """Raises OSError or pydantic's ValidationError: without its list a server must not start."""
    return AdapterList.model_validate_json(path.read_bytes())


def refuse_directory(path: str, expected: Expected, root: Path = Path(ARTIFACTS_ROOT)) -> Refused | None:
    """Why the adapter at `path` must not be loaded, or None. Hashes every file: a gigabyte takes about a second."""
    if refused := refuse_place(path, root):
        return refused
    if not expected.digest:
        return Refused(Refusal.DIGEST_MISSING, "the adapter's expected digest is missing: say which one is meant")
    try:
        return _refuse_contents(Path(path), expected)
    except OSError as error:
        fact = f"the adapter at {path} can't be read ({error.strerror})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: is its volume the one that the training wrote to?")


def refuse_place(path: str, root: Path) -> Refused | None:
    """Of a directory that is not itself below the artifacts' root, or is so by a link or a detour."""
    named, allowed = Path(path), root.resolve()
    try:
        directory = named.resolve()
    except (OSError, RuntimeError, ValueError):
        return Refused(Refusal.OUTSIDE_ROOT, f"{path!r} is no path: only published adapters below {root} are served")
    if not named.is_absolute() or not named.is_relative_to(root) or not directory.is_relative_to(allowed):
        return Refused(Refusal.OUTSIDE_ROOT, f"{path} is not below {root}: only published adapters are served")
    if directory != allowed / named.relative_to(root):
        # What a link leads to can be changed between this look and vLLM's.
        return Refused(
            Refusal.OUTSIDE_ROOT, f"{path} leads through a link or a detour: name the adapter's own directory"
        )
    return None


def _refuse_contents(directory: Path, expected: Expected) -> Refused | None:
    entries = sorted(directory.iterdir())
    if refused := refuse_entries(entries):
        return refused
    try:
        manifest = AdapterManifest.model_validate_json(small(directory / MANIFEST_NAME))
        config = json.loads(small(directory / CONFIG_NAME))
    except (FileNotFoundError, RecursionError, ValueError) as error:
        fact = f"{MANIFEST_NAME} or {CONFIG_NAME} is missing or broken ({str(error).splitlines()[0]})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: train or publish the version anew")
    found = [hashed(entry) for entry in entries if entry.name != MANIFEST_NAME]
    if refused := refuse_adapter(manifest, found, config, expected):
        return refused
    try:
        header = weights_header(directory / WEIGHTS_NAME)
    except ValueError as error:
        return broken_weights(error)
    return refuse_weights(header, expected)


def refuse_entries(entries: Iterable[Path], what: str = "adapter") -> Refused | None:
    """The first that is no plain file of a name that may be served."""
    entries = tuple(entries)
    if refused := refuse_name((entry.name for entry in entries), what):
        return refused
    for entry in entries:
        if fact := _oddity(entry.lstat()):
            message = f"{entry.name!r} in the {what} {fact}: remove it and publish the {what} anew"
            return Refused(Refusal.FORBIDDEN_FILE, message)
    return None


def _oddity(status: os.stat_result) -> str | None:
    """What would let the content be another one than what was verified, or reading it never end."""
    if not stat.S_ISREG(status.st_mode):
        return "is not a plain file"
    return "has a second name elsewhere, as a hard link" if status.st_nlink > 1 else None


def _open(path: Path) -> BinaryIO:
    """Neither follows a link nor waits for a pipe that took a file's place since it was looked at."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def small(path: Path, max_bytes: int = SMALL_FILE_MAX_BYTES) -> bytes:
    """What is read as a whole; ValueError where somebody wants to fill the memory with it."""
    with _open(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path.name} is larger than {max_bytes} bytes")
    return content


def weights_header(path: Path) -> Any:
    """The table of tensors of a safetensors file; ValueError if it has none."""
    with _open(path) as file:
        length = header_bytes(file.read(HEADER_PREFIX_BYTES), os.fstat(file.fileno()).st_size)
        try:
            return json.loads(file.read(length))
        except (RecursionError, ValueError) as error:
            raise ValueError("has a header that is no JSON") from error


def hashed(path: Path) -> AdapterFile:
    """A file as a manifest lists it."""
    with _open(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = os.fstat(file.fileno()).st_size
    return AdapterFile(name=path.name, size_bytes=size_bytes, sha256=digest)
