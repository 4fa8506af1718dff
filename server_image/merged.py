"""Reads a directory of merged weights and says whether this server may start with them.

The decision itself is `finetune_operator.core.merged_weights`.
"""

import json
from pathlib import Path

from adapters import hashed, refuse_entries, refuse_place, small, weights_header

from finetune_operator.contract.artifacts import MergedWeights, WeightsManifest
from finetune_operator.contract.places import ARTIFACTS_ROOT, MERGED_FILE
from finetune_operator.core.artifacts import MANIFEST_NAME, Refusal, Refused
from finetune_operator.core.merged_weights import (
    AGAIN,
    CONFIG_NAMES,
    MERGED_MODEL,
    WEIGHTS_SUFFIX,
    ExpectedWeights,
    refuse_config,
    refuse_merged,
)

CONFIG_MAX_BYTES = 16 * 1024 * 1024
"""A tokenizer's configuration lists its added tokens: more than a megabyte in Gemma 3."""


def read_merged(path: Path = Path(MERGED_FILE)) -> MergedWeights:
    """Raises OSError or pydantic's ValidationError: without it nobody knows what to expect."""
    return MergedWeights.model_validate_json(path.read_bytes())


def refuse_weights(merged: MergedWeights, root: Path = Path(ARTIFACTS_ROOT)) -> Refused | None:
    """Why a server must not start with these weights, or None. Hashes every file: a gigabyte takes about a second."""
    if refused := refuse_place(merged.path, root):
        return refused
    try:
        return _refuse_contents(Path(merged.path), merged)
    except OSError as error:
        fact = f"the merged weights at {merged.path} can't be read ({error.strerror})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: is their volume the one that the training wrote to?")


def _refuse_contents(directory: Path, merged: MergedWeights) -> Refused | None:
    entries = sorted(directory.iterdir())
    if refused := refuse_entries(entries, MERGED_MODEL):
        return refused
    try:
        manifest = WeightsManifest.model_validate_json(small(directory / MANIFEST_NAME))
    except (FileNotFoundError, RecursionError, ValueError) as error:
        fact = f"{MANIFEST_NAME} is missing or broken ({str(error).splitlines()[0]})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: {AGAIN}")
    found = [hashed(entry) for entry in entries if entry.name != MANIFEST_NAME]
    expected = ExpectedWeights(merged.digest, merged.base_model_name, merged.adapter_digest)
    return refuse_merged(manifest, found, expected) or _refuse_files(entries)


def _refuse_files(entries: list[Path]) -> Refused | None:
    """Files that are as they were published, but by their publisher's will no weights, or more than weights."""
    for entry in entries:
        try:
            if entry.name.endswith(WEIGHTS_SUFFIX):
                weights_header(entry)
            if entry.name in CONFIG_NAMES and (refused := refuse_config(entry.name, _config(entry))):
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
