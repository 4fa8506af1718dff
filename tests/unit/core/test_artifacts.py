"""Which adapter directories are served, and why others are not."""

import hashlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.adapters import AdapterFile, AdapterManifest
from finetune_operator.core.artifacts import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Expected,
    Refusal,
    adapter_digest,
    header_bytes,
    is_allowed,
    lora_rank,
    refuse_adapter,
    refuse_name,
    refuse_weights,
)


def a_file(name: str, content: bytes = b"x") -> AdapterFile:
    return AdapterFile(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


FILES = (a_file(CONFIG_NAME, b"{}"), a_file(WEIGHTS_NAME, b"weights"), a_file("README.md", b"text"))
DIGEST = adapter_digest(FILES)
EXPECTED = Expected(DIGEST, "tiny-llama", 16)


def a_manifest(files: tuple[AdapterFile, ...] = FILES, **changes: Any) -> AdapterManifest:
    fields = {"base_model_name": "tiny-llama", "rank": 16, "files": files, "digest": adapter_digest(files)}
    return AdapterManifest(**(fields | changes))


ALLOWED = {
    "adapter_model.safetensors": True,
    "adapter_config.json": True,
    "chat_template.jinja": True,
    "merges.txt": True,
    "README.md": True,
    "tokenizer.model": True,
    "adapter_model.bin": False,
    "optimizer.pt": False,
    "payload.py": False,
    "weights.pkl": False,
    "safetensors": False,
    ".hidden.json": False,
    "sub/adapter_config.json": False,
    "../adapter_config.json": False,
    "..": False,
    "": False,
    "line\n.json": False,
    "\udcff.json": False,
}


@pytest.mark.parametrize(("name", "allowed"), ALLOWED.items())
def test_only_weights_and_text_are_allowed(name: str, allowed: bool) -> None:
    assert is_allowed(name) is allowed


def test_a_forbidden_name_is_named_in_the_refusal() -> None:
    refused = refuse_name(["adapter_config.json", "adapter_model.bin"])

    assert refused is not None
    assert refused.reason is Refusal.FORBIDDEN_FILE
    assert "adapter_model.bin" in refused.message
    assert refuse_name(["adapter_config.json"]) is None


def test_the_digest_is_of_names_and_hashes_in_order_of_name() -> None:
    content = f"a.json\0{'1' * 64}\nb.json\0{'2' * 64}\n"
    files = [AdapterFile(name=f"{n}.json", size_bytes=1, sha256=h * 64) for n, h in (("b", "2"), ("a", "1"))]

    assert adapter_digest(files) == "sha256:" + hashlib.sha256(content.encode()).hexdigest()


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}\.json", fullmatch=True), st.binary(max_size=4), min_size=1), st.data()
)
def test_any_changed_file_changes_the_digest(contents: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(contents)))
    changed = contents | {name: contents[name] + b"!"}

    assert adapter_digest(a_file(*item) for item in contents.items()) != adapter_digest(
        a_file(*item) for item in changed.items()
    )


RANKS: dict[str, tuple[dict[str, Any], int]] = {
    "one rank": ({"r": 8}, 8),
    "a layer with a larger one": ({"r": 8, "rank_pattern": {"q_proj": 32}}, 32),
    "a layer with a smaller one": ({"r": 8, "rank_pattern": {"q_proj": 4}}, 8),
    "no pattern": ({"r": 8, "rank_pattern": None}, 8),
}


@pytest.mark.parametrize(("config", "rank"), RANKS.values(), ids=RANKS.keys())
def test_the_largest_rank_counts(config: dict[str, Any], rank: int) -> None:
    assert lora_rank(config) == rank


@pytest.mark.parametrize(
    "config", [{}, {"r": None}, {"r": "many"}, {"r": float("inf")}, {"r": 8, "rank_pattern": [64]}]
)
def test_a_config_without_rank_is_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rank"):
        lora_rank(config)


def test_a_published_adapter_is_served() -> None:
    assert refuse_adapter(a_manifest(), FILES, {"r": 16}, EXPECTED) is None


TAMPERED = (FILES[0], a_file(WEIGHTS_NAME, b"other weights"), FILES[2])
EXTRA = (*FILES, a_file("tokenizer.json"))
REFUSED: dict[str, tuple[AdapterManifest, tuple[AdapterFile, ...], dict[str, Any], Expected, Refusal, str]] = {
    "a pickle": (
        a_manifest(),
        (*FILES, a_file("adapter_model.bin")),
        {"r": 16},
        EXPECTED,
        Refusal.FORBIDDEN_FILE,
        "adapter_model.bin",
    ),
    "changed weights": (a_manifest(), TAMPERED, {"r": 16}, EXPECTED, Refusal.DIGEST_MISMATCH, WEIGHTS_NAME),
    "changed weights and manifest": (
        a_manifest(TAMPERED),
        TAMPERED,
        {"r": 16},
        EXPECTED,
        Refusal.DIGEST_MISMATCH,
        DIGEST,
    ),
    "a file that the manifest lacks": (
        a_manifest(),
        EXTRA,
        {"r": 16},
        EXPECTED,
        Refusal.DIGEST_MISMATCH,
        "tokenizer.json",
    ),
    "a file that is gone": (a_manifest(), FILES[:2], {"r": 16}, EXPECTED, Refusal.DIGEST_MISMATCH, "README.md"),
    "no weights": (
        a_manifest(FILES[:1]),
        FILES[:1],
        {"r": 16},
        Expected(adapter_digest(FILES[:1]), "tiny-llama", 16),
        Refusal.DIGEST_MISMATCH,
        WEIGHTS_NAME,
    ),
    "another base model": (
        a_manifest(base_model_name="other"),
        FILES,
        {"r": 16},
        EXPECTED,
        Refusal.WRONG_BASE_MODEL,
        "other",
    ),
    "a rank beyond the server's": (a_manifest(), FILES, {"r": 32}, EXPECTED, Refusal.RANK_TOO_LARGE, "maxLoraRank"),
    "a rank that the manifest hides": (
        a_manifest(rank=8),
        FILES,
        {"r": 8, "rank_pattern": {"q_proj": 64}},
        EXPECTED,
        Refusal.RANK_TOO_LARGE,
        "64",
    ),
    "no rank": (a_manifest(), FILES, {}, EXPECTED, Refusal.FORBIDDEN_FILE, "rank"),
    "a manifest that lists what lies elsewhere": (
        a_manifest((*FILES, a_file("../../etc/passwd"))),
        FILES,
        {"r": 16},
        EXPECTED,
        Refusal.DIGEST_MISMATCH,
        "../../etc/passwd",
    ),
    "code of its own": (
        a_manifest(),
        FILES,
        {"r": 16, "auto_mapping": {"base_model_class": "Llama", "parent_library": "evil.module"}},
        EXPECTED,
        Refusal.FORBIDDEN_FILE,
        "auto_mapping",
    ),
    "code of its own in no shape": (
        a_manifest(),
        FILES,
        {"r": 16, "auto_mapping": ["evil"]},
        EXPECTED,
        Refusal.FORBIDDEN_FILE,
        "auto_mapping",
    ),
    "code of a repository": (
        a_manifest(),
        FILES,
        {"r": 16, "auto_map": {"AutoModel": "modeling.Evil"}},
        EXPECTED,
        Refusal.FORBIDDEN_FILE,
        "auto_map",
    ),
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "as published": {"r": 16},
    "a class of Transformers": {
        "r": 16,
        "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama"},
    },
    "another path of the base model, which is never followed": {"r": 16, "base_model_name_or_path": "evil/model"},
}


@pytest.mark.parametrize("config", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_a_config_may_say(config: dict[str, Any]) -> None:
    assert refuse_adapter(a_manifest(), FILES, config, EXPECTED) is None


A, B = "base.layers.0.q_proj.lora_A.weight", "base.layers.0.q_proj.lora_B.weight"
HEADERS: dict[str, tuple[object, Refusal | None]] = {
    "of this rank": ({"__metadata__": {"format": "pt"}, A: {"shape": [16, 64]}, B: {"shape": [64, 16]}}, None),
    "of a larger rank": ({A: {"shape": [64, 16]}, B: {"shape": [16, 64]}}, Refusal.RANK_TOO_LARGE),
    "of a larger rank on one side": ({A: {"shape": [16, 64]}, B: {"shape": [64, 32]}}, Refusal.RANK_TOO_LARGE),
    "without LoRA weights": ({"lm_head.weight": {"shape": [16, 64]}}, Refusal.BROKEN_WEIGHTS),
    "without a shape": ({A: {}}, Refusal.BROKEN_WEIGHTS),
    "of one dimension": ({B: {"shape": [16]}}, Refusal.BROKEN_WEIGHTS),
    "of a shape without end": ({A: {"shape": [float("inf"), 1]}}, Refusal.BROKEN_WEIGHTS),
    "no table": ([1, 2], Refusal.BROKEN_WEIGHTS),
}


@pytest.mark.parametrize(("header", "reason"), HEADERS.values(), ids=HEADERS.keys())
def test_weights_have_their_own_word_on_the_rank(header: object, reason: Refusal | None) -> None:
    refused = refuse_weights(header, EXPECTED)
    assert (refused.reason if refused else None) is reason


@pytest.mark.parametrize(
    ("prefix", "size_bytes"),
    [(b"", 0), (b"\x80\x04", 2), (b"\xff" * 8, 100), (struct.pack("<Q", 93), 100), (struct.pack("<Q", 2**30), 2**40)],
    ids=["empty", "short", "endless", "beyond the file", "beyond memory"],
)
def test_a_header_that_cannot_be_is_not_read(prefix: bytes, size_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"header|safetensors"):
        header_bytes(prefix, size_bytes)
    assert header_bytes(struct.pack("<Q", 92), 100) == 92


@pytest.mark.parametrize(
    ("manifest", "found", "config", "expected", "reason", "named"), REFUSED.values(), ids=REFUSED.keys()
)
def test_anything_else_is_refused_with_a_reason(
    manifest: AdapterManifest,
    found: tuple[AdapterFile, ...],
    config: dict[str, Any],
    expected: Expected,
    reason: Refusal,
    named: str,
) -> None:
    refused = refuse_adapter(manifest, found, config, expected)

    assert refused is not None
    assert refused.reason is reason
    assert named in refused.message
    assert ":" in refused.message, "fact and remedy"
