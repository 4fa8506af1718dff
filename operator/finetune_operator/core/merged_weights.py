"""What makes merged weights fit to be served; used by the trainer, the server image and the operator.

As with adapters, reading the directory is the caller's part, and the rules keep code out of the engine. Merged weights
are a whole model: nothing of their base model's directory is read beside them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import WeightsManifest
from finetune_operator.core.artifacts import Refusal, Refused, refuse_name

MODEL_CONFIG_NAME = "config.json"
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "tekken.json"})
"""What is too large to be read for nothing: no library looks for code in them."""
CODE_KEY = "auto_map"
"""Under which a model, a tokenizer or a processor names classes of its own, for a library to import."""
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


def is_config(name: str) -> bool:
    """Whether a library may look into a file of this name for code to import."""
    return name.endswith(".json") and not name.endswith(".index.json") and name not in VOCABULARIES


def refuse_config(name: str, config: object) -> Refused | None:
    """Of a file that `is_config`: what has a library import code by a name that stands in it, at any depth."""
    if not isinstance(config, Mapping):
        return Refused(Refusal.FORBIDDEN_FILE, f"{name} is no table: {AGAIN}")
    if any(table.get(CODE_KEY) for table in _tables(config)):
        return Refused(Refusal.FORBIDDEN_FILE, f"{name} names code to import ({CODE_KEY}): {AGAIN}")
    return None


def without_code(config: object) -> object:
    """The same configuration without the names of any code."""
    if isinstance(config, Mapping):
        return {key: without_code(value) for key, value in config.items() if key != CODE_KEY}
    return [without_code(value) for value in config] if isinstance(config, list) else config


def _tables(config: object) -> Iterator[Mapping[str, object]]:
    """All of them, whatever they are in; without recursion, for which a hostile file may be too deep."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


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
