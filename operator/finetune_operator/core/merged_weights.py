"""What makes merged weights fit to be served; used by the trainer, the server image and the operator.

As with adapters, reading the directory is the caller's part, and the rules keep code out of the engine. Merged weights
are a whole model: nothing of their base model's directory is read beside them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import WeightsManifest
from finetune_operator.core.artifacts import Refusal, Refused, refuse_name

MODEL_CONFIG_NAME = "config.json"
CONFIG_NAMES = (MODEL_CONFIG_NAME, "tokenizer_config.json")
"""Where a model names code of its own (`auto_map`)."""
WEIGHTS_SUFFIX = ".safetensors"
ENGINE_PREFIX = "vllm-merged-"
"""Of an engine that has one version's merged weights; others are named `vllm-` and hexadecimal digits."""
MERGED_MODEL = "merged model"
AGAIN = "ask a new FineTuneJob for the output MergedWeights, or set the version's spec.serving.mergedWeights to false"


class ExpectedWeights(NamedTuple):
    """What the server that is to load merged weights was told about them."""

    digest: str
    base_model_name: str
    adapter_digest: str


def is_merged_engine(engine: str) -> bool:
    """Whether an engine of this name serves one version alone: neither other versions nor the base model."""
    return engine.startswith(ENGINE_PREFIX)


def weights_digest(base_model_name: str, adapter_digest: str, files: Iterable[AdapterFile]) -> str:
    """`sha256:<hex>` over what a manifest of merged weights says, the files in order of name."""
    listed = sorted((file.name, file.size_bytes, file.sha256) for file in files)
    said = json.dumps([base_model_name, adapter_digest, listed], separators=(",", ":"))
    return "sha256:" + hashlib.sha256(said.encode()).hexdigest()


def weights_manifest(base_model_name: str, adapter_digest: str, files: Iterable[AdapterFile]) -> WeightsManifest:
    """Of weights that were merged of this adapter and its base model."""
    files = tuple(files)
    digest = weights_digest(base_model_name, adapter_digest, files)
    return WeightsManifest(base_model_name=base_model_name, adapter_digest=adapter_digest, files=files, digest=digest)


def refuse_merged(manifest: WeightsManifest, found: Iterable[AdapterFile], expected: ExpectedWeights) -> Refused | None:
    """The first reason why these weights are not what the server was told to serve, or None.

    `found` are the files that are really there, hashed by the caller, without the manifest.
    """
    present = tuple(found)
    return (
        refuse_name((file.name for file in present), MERGED_MODEL)
        or _refuse_contents(manifest, present, expected.digest)
        or _refuse_origin(manifest, expected)
    )


def refuse_config(name: str, config: object) -> Refused | None:
    """Of a file of `CONFIG_NAMES`: what has a library import code by a name that stands in it."""
    if isinstance(config, Mapping) and not config.get("auto_map"):
        return None
    fact = "names code to import (auto_map)" if isinstance(config, Mapping) else "is no table"
    return Refused(Refusal.FORBIDDEN_FILE, f"{name} {fact}: {AGAIN}")


def _refuse_contents(manifest: WeightsManifest, present: tuple[AdapterFile, ...], expected: str) -> Refused | None:
    """Names, sizes, hashes and digest: the directory, its manifest and the expectation are one and the same."""
    listed, real = ({file.name: file for file in files} for files in (manifest.files, present))
    differing = sorted(name for name in listed.keys() | real.keys() if listed.get(name) != real.get(name))
    digest = weights_digest(manifest.base_model_name, manifest.adapter_digest, present)
    if differing:
        how = "is missing" if differing[0] not in real else "is not as the manifest lists it"
        fact = f"{differing[0]!r} {how}"
    elif MODEL_CONFIG_NAME not in real:
        fact = f"{MODEL_CONFIG_NAME!r} is missing"
    elif not any(name.endswith(WEIGHTS_SUFFIX) for name in real):
        fact = f"there is no *{WEIGHTS_SUFFIX}"
    elif digest != manifest.digest or digest != expected:
        fact = f"the merged weights' digest is {digest}, expected was {expected}"
    else:
        return None
    return Refused(Refusal.DIGEST_MISMATCH, f"{fact}: the files changed after they were merged; {AGAIN}")


def _refuse_origin(manifest: WeightsManifest, expected: ExpectedWeights) -> Refused | None:
    if manifest.base_model_name != expected.base_model_name:
        return Refused(
            Refusal.WRONG_BASE_MODEL,
            f"the weights were merged into {manifest.base_model_name!r}, the version's base model is "
            f"{expected.base_model_name!r}: create a version of the right base model",
        )
    if manifest.adapter_digest != expected.adapter_digest:
        return Refused(
            Refusal.WRONG_ADAPTER,
            f"the weights were merged of the adapter {manifest.adapter_digest}, the version's is "
            f"{expected.adapter_digest}: create a version whose artifact.digest and artifact.mergedDigest belong "
            "together",
        )
    return None
