"""Which merged weights are served, and why others are not."""

import hashlib
from typing import Any

import pytest

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import WeightsManifest
from finetune_operator.core.artifacts import Refusal
from finetune_operator.core.merged_weights import (
    ExpectedWeights,
    is_config,
    is_merged_engine,
    refuse_config,
    refuse_merged,
    weights_digest,
    weights_manifest,
    without_code,
)

ADAPTER, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def a_file(name: str, content: bytes = b"x") -> AdapterFile:
    return AdapterFile(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


CONFIG, WEIGHTS = a_file("config.json", b"{}"), a_file("model.safetensors", b"weights")
FILES = (CONFIG, a_file("merges.txt"), WEIGHTS, a_file("tokenizer.json"))
MANIFEST = weights_manifest("tiny-llama", ADAPTER, FILES)
EXPECTED = ExpectedWeights(MANIFEST.digest, "tiny-llama", ADAPTER)


def test_what_was_merged_is_served() -> None:
    assert refuse_merged(MANIFEST, FILES[::-1], EXPECTED) is None


def test_the_digest_is_of_all_that_the_manifest_says() -> None:
    digests = {
        weights_digest("tiny-llama", ADAPTER, FILES),
        weights_digest("other", ADAPTER, FILES),
        weights_digest("tiny-llama", OTHER, FILES),
        weights_digest("tiny-llama", ADAPTER, FILES[1:]),
        weights_digest("tiny-llama", ADAPTER, (*FILES[:3], a_file("tokenizer.json", b"y"))),
        weights_digest("tiny-llama", ADAPTER, (*FILES[:3], FILES[3].model_copy(update={"size_bytes": 2}))),
        weights_digest("tiny-llama", ADAPTER, (*FILES[:3], FILES[3].model_copy(update={"name": "tokens.json"}))),
    }
    assert len(digests) == 7
    assert weights_digest("tiny-llama", ADAPTER, FILES[::-1]) == MANIFEST.digest


def published(*files: AdapterFile, **changes: Any) -> tuple[WeightsManifest, tuple[AdapterFile, ...], ExpectedWeights]:
    """By somebody whose manifest and digest agree with whatever lies there."""
    of = {"base_model_name": "tiny-llama", "adapter_digest": ADAPTER} | changes
    manifest = weights_manifest(files=files, **of)
    return manifest, files, EXPECTED._replace(digest=manifest.digest)


REFUSED: dict[str, tuple[tuple[WeightsManifest, tuple[AdapterFile, ...], ExpectedWeights], Refusal, str]] = {
    "a pickle": (
        published(*FILES, a_file("pytorch_model.bin")),
        Refusal.FORBIDDEN_FILE,
        "the merged model holds 'pytorch_model.bin'",
    ),
    "a program": (published(*FILES, a_file("modeling.py")), Refusal.FORBIDDEN_FILE, "modeling.py"),
    "a missing file": ((MANIFEST, FILES[:3], EXPECTED), Refusal.DIGEST_MISMATCH, "'tokenizer.json' is missing"),
    "a file too many": ((MANIFEST, (*FILES, a_file("more.json")), EXPECTED), Refusal.DIGEST_MISMATCH, "more.json"),
    "a changed file": (
        (MANIFEST, (*FILES[:3], a_file("tokenizer.json", b"y")), EXPECTED),
        Refusal.DIGEST_MISMATCH,
        "'tokenizer.json' is not as the manifest lists it",
    ),
    "another digest": (
        (MANIFEST, FILES, EXPECTED._replace(digest=OTHER)),
        Refusal.DIGEST_MISMATCH,
        f"the merged weights' digest is {MANIFEST.digest}, expected was {OTHER}",
    ),
    "a manifest with another digest": (
        (MANIFEST.model_copy(update={"digest": OTHER}), FILES, EXPECTED),
        Refusal.DIGEST_MISMATCH,
        "digest",
    ),
    "no weights": (published(CONFIG), Refusal.DIGEST_MISMATCH, "there is no *.safetensors"),
    "no configuration": (published(WEIGHTS), Refusal.DIGEST_MISMATCH, "'config.json' is missing"),
    "nothing": (published(), Refusal.DIGEST_MISMATCH, "'config.json' is missing"),
    "another base model": (
        published(*FILES, base_model_name="other"),
        Refusal.WRONG_BASE_MODEL,
        "the weights were merged into 'other', the version's base model is 'tiny-llama'",
    ),
    "another adapter": (
        published(*FILES, adapter_digest=OTHER),
        Refusal.WRONG_ADAPTER,
        f"the weights were merged of the adapter {OTHER}, the version's is {ADAPTER}",
    ),
}


@pytest.mark.parametrize(("case", "reason", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused_by_its_reason(
    case: tuple[WeightsManifest, tuple[AdapterFile, ...], ExpectedWeights], reason: Refusal, named: str
) -> None:
    refused = refuse_merged(*case)
    assert refused is not None
    assert refused.reason is reason
    assert named in refused.message
    assert ": " in refused.message, "a fact and a remedy"


CODE = {"auto_map": {"AutoModel": "evil--m.M"}}


@pytest.mark.parametrize(
    ("config", "is_refused"),
    [
        ({}, False),
        ({"auto_map": {}}, False),
        (CODE, True),
        ({"text_config": {"layers": [{"parts": [1, CODE]}]}}, True),
        ({"text_config": {"layers": [{"parts": [1, "auto_map"]}]}}, False),
        ([], True),
    ],
)
def test_a_configuration_names_no_code(config: object, is_refused: bool) -> None:
    assert (refuse_config("config.json", config) is not None) is is_refused


def test_a_merged_configuration_has_lost_the_names_of_code_and_nothing_else() -> None:
    config = {"a": 1, "text_config": {"b": [2, {"c": 3, **CODE}], **CODE}, **CODE}
    harmless = without_code(config)
    assert harmless == {"a": 1, "text_config": {"b": [2, {"c": 3}]}}
    assert refuse_config("config.json", harmless) is None


CONFIGS = {"config.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json", "more.json"}
OTHERS = {"tokenizer.json", "vocab.json", "model.safetensors.index.json", "model.safetensors", "chat_template.jinja"}


@pytest.mark.parametrize(("names", "are_configs"), [(CONFIGS, True), (OTHERS, False)])
def test_code_is_looked_for_wherever_a_library_does(names: set[str], are_configs: bool) -> None:
    assert {is_config(name) for name in names} == {are_configs}


@pytest.mark.parametrize(("name", "merged"), [("vllm-merged-0123456789", True), ("vllm-0123456789", False)])
def test_an_engine_tells_by_its_name_what_it_serves(name: str, merged: bool) -> None:
    assert is_merged_engine(name) is merged
