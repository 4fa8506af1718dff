"""Reads a directory of merged weights and says whether this server may start with them.

The decision itself is `finetune_operator.core.merged_weights`. An OSError says nothing of the weights: their volume may
be back with the next look.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from adapters import hashed, refuse_entries, refuse_place, small, weights_header

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import MergedWeights, WeightsManifest
from finetune_operator.contract.places import ARTIFACTS_ROOT, MERGED_FILE
from finetune_operator.core.artifacts import MANIFEST_NAME, Refusal, Refused
from finetune_operator.core.merged_weights import (
    AGAIN,
    MERGED_MODEL,
    WEIGHTS_SUFFIX,
    ExpectedWeights,
    is_config,
    refuse_config,
    refuse_merged,
)

CONFIG_MAX_BYTES = 16 * 1024 * 1024
"""A tokenizer's configuration lists its added tokens: more than a megabyte in Gemma 3."""
HASHING_THREADS = 4
"""One reader has a part of what a network volume gives, and one core hashes a gigabyte in a second."""


class FileState(NamedTuple):
    """What tells a file from the one that was there before; nobody can set the inode's own time (ctime)."""

    name: str
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


def read_merged(path: Path = Path(MERGED_FILE)) -> MergedWeights:
    """Raises OSError or pydantic's ValidationError: without it nobody knows what to expect."""
    return MergedWeights.model_validate_json(path.read_bytes())


def file_states(merged: MergedWeights) -> tuple[FileState, ...]:
    """Of all files, in order of name; none where there is no such directory. Raises OSError."""
    states = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(merged.path) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            states.append(FileState(entry.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    return tuple(sorted(states))


def refuse_weights(merged: MergedWeights, root: Path = Path(ARTIFACTS_ROOT)) -> Refused | None:
    """Why a server must not start with these weights, or None; raises OSError where they can't be read just now.

    Hashes every file: a gigabyte takes about a second, or what its volume takes.
    """
    if refused := refuse_place(merged.path, root):
        return refused
    directory = Path(merged.path)
    if not _is_there(directory):
        fact = f"there is no directory {directory}"
        return Refused(
            Refusal.MANIFEST_MISSING, f"{fact}: is the volume the one that the training wrote to? If it is, {AGAIN}"
        )
    return _refuse_contents(directory, merged)


def _is_there(directory: Path) -> bool:
    """By the word of its parent: one that can't be read knows nothing of it, and raises OSError."""
    with os.scandir(directory.parent) as entries:
        return any(entry.name == directory.name and entry.is_dir(follow_symlinks=False) for entry in entries)


def _refuse_contents(directory: Path, merged: MergedWeights) -> Refused | None:
    entries = sorted(directory.iterdir())
    if refused := refuse_entries(entries, MERGED_MODEL):
        return refused
    if directory / MANIFEST_NAME not in entries:
        return Refused(Refusal.MANIFEST_MISSING, f"{MANIFEST_NAME} is missing: {AGAIN}")
    try:
        manifest = WeightsManifest.model_validate_json(small(directory / MANIFEST_NAME))
    except (RecursionError, ValueError) as error:
        return Refused(Refusal.MANIFEST_MISSING, f"{MANIFEST_NAME} is broken ({str(error).splitlines()[0]}): {AGAIN}")
    found = _all_hashed(entry for entry in entries if entry.name != MANIFEST_NAME)
    expected = ExpectedWeights(merged.digest, merged.base_model_name, merged.adapter_digest)
    return refuse_merged(manifest, found, expected) or _refuse_files(entries)


def _all_hashed(paths: Iterable[Path]) -> list[AdapterFile]:
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return list(pool.map(hashed, paths))


def _refuse_files(entries: list[Path]) -> Refused | None:
    """Files that are as they were published, but by their publisher's will no weights, or more than weights."""
    for entry in entries:
        try:
            if entry.name.endswith(WEIGHTS_SUFFIX):
                weights_header(entry)
            if is_config(entry.name) and (refused := refuse_config(entry.name, _config(entry))):
                return refused
        except ValueError as error:
            return Refused(Refusal.BROKEN_WEIGHTS, f"{entry.name} {error}: {AGAIN}")
    return None


def _config(path: Path) -> object:
    """A file of JSON; ValueError if it is none."""
    try:
        return json.loads(small(path, CONFIG_MAX_BYTES))
    except (RecursionError, ValueError) as error:
        raise ValueError("is no JSON, or too large") from error
