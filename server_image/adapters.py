"""Reads an adapter directory and says whether this server may load it; used at start and for each hot load.

The decision itself is `finetune_operator.core.artifacts`.
"""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from finetune_operator.contract.adapters import AdapterFile, AdapterList, AdapterManifest
from finetune_operator.contract.places import ADAPTERS_FILE, ARTIFACTS_ROOT
from finetune_operator.core.artifacts import (
    CONFIG_NAME,
    MANIFEST_NAME,
    Expected,
    Refusal,
    Refused,
    refuse_adapter,
    refuse_name,
)

# Set by serve.py for the guard, which vLLM makes without arguments.
ADAPTERS_FILE_VARIABLE = "FINETUNE_ADAPTERS_FILE"
ARTIFACTS_ROOT_VARIABLE = "FINETUNE_ARTIFACTS_ROOT"


def read_adapter_list(path: Path = Path(ADAPTERS_FILE)) -> AdapterList:
    """Raises OSError or pydantic's ValidationError: without its list a server must not start."""
    return AdapterList.model_validate_json(path.read_bytes())


def refuse_directory(path: str, expected: Expected, root: Path = Path(ARTIFACTS_ROOT)) -> Refused | None:
    """Why the adapter at `path` must not be loaded, or None. Hashes every file: a gigabyte takes about a second."""
    directory = Path(path).resolve()
    if not directory.is_relative_to(root.resolve()) or not Path(path).is_absolute():
        return Refused(Refusal.OUTSIDE_ROOT, f"{path} is not below {root}: only published adapters are served")
    if not expected.digest:
        return Refused(Refusal.DIGEST_MISSING, "the adapter's expected digest is missing: say which one is meant")
    try:
        return _refuse_contents(directory, expected)
    except OSError as error:
        fact = f"the adapter at {path} can't be read ({error.strerror})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: is its volume the one that the training wrote to?")


def _refuse_contents(directory: Path, expected: Expected) -> Refused | None:
    entries = sorted(directory.iterdir())
    if refused := refuse_name(entry.name for entry in entries):
        return refused
    for entry in entries:
        if entry.is_symlink() or not entry.is_file():
            fact = f"{entry.name!r} in the adapter is not a plain file"
            return Refused(Refusal.FORBIDDEN_FILE, f"{fact}: remove it and publish the adapter anew")
    try:
        manifest = AdapterManifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
        config = json.loads((directory / CONFIG_NAME).read_bytes())
    except (FileNotFoundError, ValidationError, ValueError) as error:
        fact = f"{MANIFEST_NAME} or {CONFIG_NAME} is missing or broken ({str(error).splitlines()[0]})"
        return Refused(Refusal.MANIFEST_MISSING, f"{fact}: train or publish the version anew")
    found = [_hashed(entry) for entry in entries if entry.name != MANIFEST_NAME]
    return refuse_adapter(manifest, found, config, expected)


def _hashed(path: Path) -> AdapterFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return AdapterFile(name=path.name, size_bytes=path.stat().st_size, sha256=digest)
