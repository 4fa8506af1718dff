"""Directories of merged weights that the server reads before it starts: whatever lies there, the answer is a reason."""

import hashlib
import importlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from finetune_operator.contract.adapters import AdapterFile
from finetune_operator.contract.artifacts import MergedWeights, WeightsRefused
from finetune_operator.core.artifacts import MANIFEST_NAME, Refusal, Refused
from finetune_operator.core.merged_weights import weights_manifest

SERVER_IMAGE = Path(__file__).parents[3] / "server_image"
ADAPTER = "sha256:" + "a" * 64
HEADER = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}}).encode()
WEIGHTS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(128)


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
    merged = tmp_path / "artifacts" / "job" / "merged"
    merged.mkdir(parents=True)
    (merged / "config.json").write_text('{"model_type": "llama"}')
    (merged / "tokenizer_config.json").write_text("{}")
    (merged / "model.safetensors").write_bytes(WEIGHTS)
    return tmp_path / "artifacts"


def publish(directory: Path) -> str:
    """A manifest that agrees with whatever lies there: its author may be the one who put it there."""
    files = [
        AdapterFile(
            name=file.name, size_bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
        )
        for file in sorted(directory.iterdir())
        if file.is_file() and not file.is_symlink() and file.name != MANIFEST_NAME
    ]
    manifest = weights_manifest("tiny-llama", ADAPTER, files)
    (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))
    return manifest.digest


def expected(root: Path, digest: str, path: str = "{root}/job/merged") -> MergedWeights:
    return MergedWeights(
        name="plato-v1",
        path=path.format(root=root),
        digest=digest,
        base_model_name="tiny-llama",
        adapter_digest=ADAPTER,
    )


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


def test_a_server_that_refuses_says_why_and_ends(root: Path, tmp_path: Path) -> None:
    merged = expected(root, publish(root / "job" / "merged"))
    (root / "job" / "merged" / "notes.txt").symlink_to("/etc/passwd")
    (tmp_path / "merged.json").write_text(merged.model_dump_json(by_alias=True))
    command = [sys.executable, str(SERVER_IMAGE / "serve.py"), "--merged", str(tmp_path / "merged.json")]
    command += ["--artifacts", str(root), "--termination-message", str(tmp_path / "said"), "--", "--model", merged.path]

    done = subprocess.run(
        command, env=os.environ | {"VLLM_API_KEY": "key"}, capture_output=True, text=True, check=False, timeout=60
    )

    said = WeightsRefused.model_validate_json((tmp_path / "said").read_bytes())
    assert (done.returncode, said.reason) == (49, "ForbiddenFile")
    assert "'notes.txt' in the merged model is not a plain file" in said.message
    logged = json.loads(done.stdout.splitlines()[-1])
    assert (logged["message"], logged["version"], logged["reason"]) == (
        "merged weights refused",
        "plato-v1",
        "ForbiddenFile",
    )
