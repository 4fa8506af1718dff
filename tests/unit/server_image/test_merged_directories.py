"""Directories of merged weights that the server reads before it starts: whatever lies there, the answer is a reason."""

import importlib
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from finetune_operator.contract.artifacts import MergedWeights
from finetune_operator.core.artifacts import MANIFEST_NAME, Refusal, Refused
from tests.unit.server_image.merged_directory import SERVER_IMAGE, WEIGHTS, expected, make_weights, publish


@pytest.fixture(scope="module")
def server() -> ModuleType:
    """The image has it beside its program and not in a package."""
    sys.path.insert(0, str(SERVER_IMAGE))
    try:
        return importlib.import_module("merged")
    finally:
        sys.path.pop(0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_weights(tmp_path / "artifacts")


def refused(server: ModuleType, root: Path, merged: MergedWeights) -> Refused:
    found = server.refuse_weights(merged, root)
    assert isinstance(found, Refused)
    return found


def test_published_weights_are_taken(server: ModuleType, root: Path) -> None:
    digest = publish(root / "job" / "merged")
    assert server.refuse_weights(expected(root, digest), root) is None


def text_of(name: str, text: str) -> Callable[[Path], None]:
    return lambda merged: (merged / name).write_text(text) and None


def weights_of(content: bytes) -> Callable[[Path], None]:
    return lambda merged: (merged / "model.safetensors").write_bytes(content) and None


PUBLISHED_BY_AN_ATTACKER: dict[str, tuple[Callable[[Path], None], Refusal, str]] = {
    "a pickle": (lambda m: (m / "pytorch_model.bin").write_bytes(b"\x80") and None, Refusal.FORBIDDEN_FILE, ".bin"),
    "a program": (text_of("modeling.py", "import os"), Refusal.FORBIDDEN_FILE, ".py"),
    "a pickle by the name of weights": (weights_of(b"\x80\x04."), Refusal.BROKEN_WEIGHTS, "no safetensors"),
    "a header without end": (weights_of(b"\xff" * 64), Refusal.BROKEN_WEIGHTS, "header"),
    "a header that is no JSON": (weights_of(struct.pack("<Q", 4) + b"\0" * 64), Refusal.BROKEN_WEIGHTS, "JSON"),
    "code by its name": (
        text_of("config.json", '{"auto_map": {"AutoModel": "evil--m.M"}}'),
        Refusal.FORBIDDEN_FILE,
        "config.json names code to import",
    ),
    "code of a tokenizer": (
        text_of("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["t.T", null]}}'),
        Refusal.FORBIDDEN_FILE,
        "tokenizer_config.json names code to import",
    ),
    "code of a processor": (
        text_of("preprocessor_config.json", '{"auto_map": {"AutoProcessor": "p.P"}}'),
        Refusal.FORBIDDEN_FILE,
        "preprocessor_config.json names code to import",
    ),
    "code of a part": (
        text_of("config.json", '{"parts": [{"vision_config": {"auto_map": {"AutoConfig": "c.C"}}}]}'),
        Refusal.FORBIDDEN_FILE,
        "config.json names code to import",
    ),
    "a config as deep as a well": (text_of("config.json", "[" * 100_000), Refusal.BROKEN_WEIGHTS, "no JSON"),
    "a config without end": (text_of("config.json", " " * 17_000_000), Refusal.BROKEN_WEIGHTS, "too large"),
    "a config that is a list": (text_of("config.json", "[8]"), Refusal.FORBIDDEN_FILE, "no table"),
    "a pipe": (lambda m: os.mkfifo(m / "notes.txt"), Refusal.FORBIDDEN_FILE, "is not a plain file"),
    "a link out": (lambda m: (m / "notes.txt").symlink_to("/etc/passwd"), Refusal.FORBIDDEN_FILE, "notes.txt"),
    "a directory": (lambda m: (m / "more.json").mkdir(), Refusal.FORBIDDEN_FILE, "more.json"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), Refusal.DIGEST_MISMATCH, "*.safetensors"),
}


@pytest.mark.parametrize(
    ("spoil", "reason", "named"), PUBLISHED_BY_AN_ATTACKER.values(), ids=PUBLISHED_BY_AN_ATTACKER.keys()
)
def test_what_agrees_with_its_manifest_can_be_refused_all_the_same(
    server: ModuleType, root: Path, spoil: Callable[[Path], None], reason: Refusal, named: str
) -> None:
    spoil(root / "job" / "merged")
    answer = refused(server, root, expected(root, publish(root / "job" / "merged")))
    assert answer.reason is reason
    assert named in answer.message


def unlink(name: str) -> Callable[[Path], None]:
    return lambda merged: (merged / name).unlink()


CHANGED: dict[str, tuple[Callable[[Path], None], Refusal, str]] = {
    "a file is gone": (unlink("tokenizer_config.json"), Refusal.DIGEST_MISMATCH, "'tokenizer_config.json' is missing"),
    "weights have changed": (weights_of(WEIGHTS[:-1] + b"\1"), Refusal.DIGEST_MISMATCH, "model.safetensors"),
    "no manifest": (unlink(MANIFEST_NAME), Refusal.MANIFEST_MISSING, MANIFEST_NAME),
    "a broken manifest": (text_of(MANIFEST_NAME, "{"), Refusal.MANIFEST_MISSING, MANIFEST_NAME),
    "a hard link": (
        lambda m: os.link(m / "model.safetensors", m.parent / "kept"),
        Refusal.FORBIDDEN_FILE,
        "hard link",
    ),
}


@pytest.mark.parametrize(("spoil", "reason", "named"), CHANGED.values(), ids=CHANGED.keys())
def test_what_changed_after_the_publication_is_refused(
    server: ModuleType, root: Path, spoil: Callable[[Path], None], reason: Refusal, named: str
) -> None:
    digest = publish(root / "job" / "merged")
    spoil(root / "job" / "merged")
    answer = refused(server, root, expected(root, digest))
    assert answer.reason is reason
    assert named in answer.message


OTHERS: dict[str, tuple[dict[str, str], Refusal]] = {
    "another digest": ({"digest": "sha256:" + "0" * 64}, Refusal.DIGEST_MISMATCH),
    "another base model": ({"base_model_name": "other"}, Refusal.WRONG_BASE_MODEL),
    "another adapter": ({"adapter_digest": "sha256:" + "0" * 64}, Refusal.WRONG_ADAPTER),
    "no directory": ({"path": "{root}/nowhere"}, Refusal.MANIFEST_MISSING),
    "outside": ({"path": "/etc"}, Refusal.OUTSIDE_ROOT),
    "above": ({"path": "{root}/../elsewhere"}, Refusal.OUTSIDE_ROOT),
    "a link within": ({"path": "{root}/within"}, Refusal.OUTSIDE_ROOT),
    "a link out": ({"path": "{root}/out"}, Refusal.OUTSIDE_ROOT),
}


@pytest.mark.parametrize(("changes", "reason"), OTHERS.values(), ids=OTHERS.keys())
def test_only_what_is_meant_is_served(server: ModuleType, root: Path, changes: dict[str, str], reason: Refusal) -> None:
    (root / "within").symlink_to(root / "job" / "merged")
    (root / "out").symlink_to("/etc")
    meant = expected(root, publish(root / "job" / "merged"))
    told = {name: value.format(root=root) for name, value in changes.items()}
    assert refused(server, root, meant.model_copy(update=told)).reason is reason


def test_a_vocabulary_is_not_read_for_code(server: ModuleType, root: Path) -> None:
    """It may be as large as it likes, and have any word."""
    (root / "job" / "merged" / "vocab.json").write_text('{"auto_map": 7}' + " " * 17_000_000)
    assert server.refuse_weights(expected(root, publish(root / "job" / "merged")), root) is None


def test_what_is_no_directory_is_none(server: ModuleType, root: Path) -> None:
    merged = expected(root, publish(root / "job" / "merged"), "{root}/job/file")
    (root / "job" / "file").touch()
    assert refused(server, root, merged).reason is Refusal.MANIFEST_MISSING


@pytest.mark.parametrize("place", ["{root}/elsewhere/merged", "{root}/job/merged/model.safetensors/merged"])
def test_a_job_that_can_not_be_looked_into_says_nothing_of_its_weights(
    server: ModuleType, root: Path, place: str
) -> None:
    """Such a volume is not mounted, or not whole yet."""
    with pytest.raises(OSError, match=r"elsewhere|safetensors"):
        server.refuse_weights(expected(root, publish(root / "job" / "merged"), place), root)
