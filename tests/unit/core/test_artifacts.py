"""Which adapter directories are served, and why others are not."""

import hashlib
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
    is_allowed,
    lora_rank,
    refuse_adapter,
    refuse_name,
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


@pytest.mark.parametrize("config", [{}, {"r": None}, {"r": "many"}])
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
}


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
