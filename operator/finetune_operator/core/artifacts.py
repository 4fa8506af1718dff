"""What makes an adapter directory fit to be served; used by the trainer, the server image and the operator.

Reading the directory is the caller's part. The rules keep code out of the engine: weights as safetensors and text
alone (a pickle runs what its author likes), and exactly the files that the training published.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from finetune_operator.contract.adapters import AdapterFile, AdapterManifest

MANIFEST_NAME = "manifest.json"
CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
ALLOWED_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".md", ".model")
LIBRARIES = frozenset({"transformers", "peft"})
"""From which PEFT may take a class that `auto_mapping` names; it imports whatever stands there."""
HEADER_PREFIX_BYTES = 8
HEADER_MAX_BYTES = 16 * 1024 * 1024
"""Of a safetensors file: a tensor's entry has a hundred bytes, a large adapter a few thousand tensors."""
_LORA_DIMENSIONS = {"lora_A": 0, "lora_embedding_A": 0, "lora_B": 1, "lora_embedding_B": 1}
"""Which dimension of a LoRA tensor is the rank."""


class Refusal(StrEnum):
    """Why an adapter, or what it was merged into, is not loaded."""

    DIGEST_MISSING = "DigestMissing"
    DIGEST_MISMATCH = "DigestMismatch"
    FORBIDDEN_FILE = "ForbiddenFile"
    OUTSIDE_ROOT = "OutsideRoot"
    RANK_TOO_LARGE = "RankTooLarge"
    WRONG_BASE_MODEL = "WrongBaseModel"
    WRONG_ADAPTER = "WrongAdapter"
    MANIFEST_MISSING = "ManifestMissing"
    BROKEN_WEIGHTS = "BrokenWeights"


class Refused(NamedTuple):
    """A refusal with the fact and the remedy in one sentence each."""

    reason: Refusal
    message: str


class Expected(NamedTuple):
    """What the server that is to load an adapter was told about it, and what it can serve."""

    digest: str
    base_model_name: str
    max_lora_rank: int


def adapter_digest(files: Iterable[AdapterFile]) -> str:
    """Of all files of an adapter; the manifest itself is not among them."""
    return files_digest((file.name, file.sha256) for file in files)


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """`sha256:<hex>` over the (name, sha256) pairs in order of name."""
    lines = sorted(f"{name}\0{sha256}\n" for name, sha256 in files)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def is_allowed(name: str) -> bool:
    """A plain name, not a path, with the suffix of weights or of text."""
    is_plain = PurePosixPath(name).name == name and name.isprintable() and not name.startswith(".")
    return is_plain and name.endswith(ALLOWED_SUFFIXES)


def lora_rank(adapter_config: Mapping[str, Any]) -> int:
    """The largest rank of any layer, as PEFT's `adapter_config.json` has it (`rank_pattern` overrides `r`).

    Raises ValueError if there is no rank.
    """
    try:
        return max(int(rank) for rank in (adapter_config["r"], *(adapter_config.get("rank_pattern") or {}).values()))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{CONFIG_NAME} names no rank r") from error


def header_bytes(prefix: bytes, size_bytes: int) -> int:
    """How long the header of a safetensors file of this size is, by its first bytes; ValueError if it can't be."""
    if len(prefix) != HEADER_PREFIX_BYTES:
        raise ValueError("is no safetensors file")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(HEADER_MAX_BYTES, size_bytes - HEADER_PREFIX_BYTES):
        raise ValueError(f"claims a header of {length} bytes, of {size_bytes} in all")
    return int(length)


def weights_rank(header: object) -> int:
    """The largest rank that the tensors really have; ValueError if they are no LoRA weights."""
    if not isinstance(header, Mapping):
        raise ValueError("has a header that is no table of tensors")
    ranks = [0]
    for name, tensor in header.items():
        kind = next((part for part in str(name).split(".") if part in _LORA_DIMENSIONS), None)
        if kind is None:
            continue
        try:
            ranks.append(int(tensor["shape"][_LORA_DIMENSIONS[kind]]))
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"has no shape of two dimensions for {name!r}") from error
    if len(ranks) == 1:
        raise ValueError("has no LoRA weights")
    return max(ranks)


def refuse_weights(header: object, expected: Expected) -> Refused | None:
    """Their own word on the rank: beyond the engine's, the first request would fail within it, and not the load."""
    try:
        rank = weights_rank(header)
    except ValueError as error:
        return broken_weights(error)
    return _refuse_rank(rank, expected)


def broken_weights(error: ValueError) -> Refused:
    """Of weights that say nothing that could be believed."""
    return Refused(Refusal.BROKEN_WEIGHTS, f"{WEIGHTS_NAME} {error}: train or publish the version anew")


def refuse_name(names: Iterable[str], what: str = "adapter") -> Refused | None:
    """The first file that must not be in the directory of an adapter, or of `what` it was merged into."""
    for name in sorted(names):
        if not is_allowed(name):
            return Refused(
                Refusal.FORBIDDEN_FILE,
                f"the {what} holds {name!r}; only {', '.join('*' + suffix for suffix in ALLOWED_SUFFIXES)} are "
                f"served: remove it and publish the {what} anew",
            )
    return None


def refuse_adapter(
    manifest: AdapterManifest, found: Iterable[AdapterFile], adapter_config: Mapping[str, Any], expected: Expected
) -> Refused | None:
    """The first reason why this adapter is not what the server was told to load, or None.

    `found` are the files that are really there, hashed by the caller, without the manifest.
    """
    present = tuple(found)
    if refused := refuse_name(file.name for file in present):
        return refused
    if refused := _refuse_contents(manifest, present, expected.digest):
        return refused
    if manifest.base_model_name != expected.base_model_name:
        return Refused(
            Refusal.WRONG_BASE_MODEL,
            f"the adapter was trained on {manifest.base_model_name!r}, this server serves "
            f"{expected.base_model_name!r}: deploy the version on its own base model",
        )
    try:
        rank = lora_rank(adapter_config)
    except ValueError as error:
        return Refused(Refusal.FORBIDDEN_FILE, f"{error}: publish the adapter anew")
    return _refuse_code(adapter_config) or _refuse_rank(rank, expected)


def _refuse_rank(rank: int, expected: Expected) -> Refused | None:
    if rank <= expected.max_lora_rank:
        return None
    return Refused(
        Refusal.RANK_TOO_LARGE,
        f"the adapter's rank is {rank}, this server's maximum is {expected.max_lora_rank}: raise the version's "
        "spec.serving.maxLoraRank or train with a smaller spec.lora.r",
    )


def _refuse_code(adapter_config: Mapping[str, Any]) -> Refused | None:
    """Whatever has a library import code by a name that stands in a file."""
    if adapter_config.get("auto_map"):
        named = "auto_map"
    elif mapping := adapter_config.get("auto_mapping"):
        library = str(mapping.get("parent_library", "")) if isinstance(mapping, Mapping) else ""
        if library.partition(".")[0] in LIBRARIES:
            return None
        named = "auto_mapping"
    else:
        return None
    return Refused(
        Refusal.FORBIDDEN_FILE, f"{CONFIG_NAME} names code to import ({named}): publish the adapter without it"
    )


def _refuse_contents(manifest: AdapterManifest, present: tuple[AdapterFile, ...], expected: str) -> Refused | None:
    """Names, hashes and digest: the directory, its manifest and the caller's expectation are one and the same."""
    listed = {file.name: file.sha256 for file in manifest.files}
    real = {file.name: file.sha256 for file in present}
    differing = sorted(name for name in listed.keys() | real.keys() if listed.get(name) != real.get(name))
    if differing:
        fact = f"{differing[0]!r} is not as the manifest lists it"
    elif missing := {CONFIG_NAME, WEIGHTS_NAME} - real.keys():
        fact = f"{min(missing)!r} is missing"
    elif (digest := adapter_digest(present)) != manifest.digest or digest != expected:
        fact = f"the files' digest is {digest}, expected was {expected}"
    else:
        return None
    return Refused(
        Refusal.DIGEST_MISMATCH,
        f"{fact}: the files changed after they were published; train or publish the version anew",
    )
