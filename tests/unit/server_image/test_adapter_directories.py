"""Directories that the server reads before it loads an adapter: whatever lies there, the answer is a reason."""

import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_operator.contract.adapters import AdapterFile, AdapterManifest
from finetune_operator.core.artifacts import (
    CONFIG_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Expected,
    Refusal,
    Refused,
    adapter_digest,
)
from tests.unit.server_image.modules import load_server_module

HEADER = {"base.q_proj.lora_A.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}}
DEPTH = 100_000


server = load_server_module("adapters")


def weights(header: object = HEADER) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(128)


def publish(directory: Path) -> Expected:
    """A manifest that agrees with whatever lies there: its author may be the one who put it there."""
    files = tuple(
        AdapterFile(
            name=file.name, size_bytes=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
        )
        for file in sorted(directory.iterdir())
        if file.is_file() and file.name != MANIFEST_NAME
    )
    manifest = AdapterManifest(base_model_name="tiny-llama", rank=8, files=files, digest=adapter_digest(files))
    (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True))
    return Expected(manifest.digest, "tiny-llama", 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    adapter = tmp_path / "artifacts" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / CONFIG_NAME).write_text(json.dumps({"r": 8}))
    (adapter / WEIGHTS_NAME).write_bytes(weights())
    return tmp_path / "artifacts"


def refused(root: Path, expected: Expected, path: str = "{root}/adapter") -> Refused | None:
    found: Refused | None = server.refuse_directory(path.format(root=root), expected, root)
    return found


def test_a_published_adapter_is_taken(root: Path) -> None:
    assert refused(root, publish(root / "adapter")) is None


def config_of(text: str) -> Callable[[Path], None]:
    return lambda adapter: (adapter / CONFIG_NAME).write_text(text) and None


def weights_of(content: bytes) -> Callable[[Path], None]:
    return lambda adapter: (adapter / WEIGHTS_NAME).write_bytes(content) and None


PUBLISHED_BY_AN_ATTACKER: dict[str, tuple[Callable[[Path], None], Refusal, str]] = {
    "a pickle": (lambda a: (a / "adapter_model.bin").write_bytes(b"\x80\x04") and None, Refusal.FORBIDDEN_FILE, ".bin"),
    "a checkpoint": (lambda a: (a / "optimizer.pt").write_bytes(b"PK") and None, Refusal.FORBIDDEN_FILE, ".pt"),
    "a program": (lambda a: (a / "modeling.py").write_text("import os") and None, Refusal.FORBIDDEN_FILE, ".py"),
    "a pickle by the name of weights": (weights_of(b"\x80\x04."), Refusal.BROKEN_WEIGHTS, "no safetensors"),
    "a header without end": (weights_of(b"\xff" * 64), Refusal.BROKEN_WEIGHTS, "header"),
    "a header that is no JSON": (weights_of(struct.pack("<Q", 4) + b"\0" * 64), Refusal.BROKEN_WEIGHTS, "JSON"),
    "a header as deep as a well": (
        weights_of(struct.pack("<Q", DEPTH) + b"[" * DEPTH),
        Refusal.BROKEN_WEIGHTS,
        "JSON",
    ),
    "a rank that its config hides": (
        weights_of(weights({"q_proj.lora_A.weight": {"shape": [64, 4]}})),
        Refusal.RANK_TOO_LARGE,
        "64",
    ),
    "a config as deep as a well": (config_of("[" * DEPTH), Refusal.MANIFEST_MISSING, CONFIG_NAME),
    "a config without end": (config_of(" " * 2_000_000), Refusal.MANIFEST_MISSING, "larger than"),
    "a config that is a list": (config_of("[8]"), Refusal.FORBIDDEN_FILE, "rank"),
    "a config with code": (
        config_of('{"r": 8, "auto_mapping": {"parent_library": "os"}}'),
        Refusal.FORBIDDEN_FILE,
        "auto_mapping",
    ),
    "a pipe": (lambda a: os.mkfifo(a / "notes.txt"), Refusal.FORBIDDEN_FILE, "notes.txt"),
    "a link out": (lambda a: (a / "notes.txt").symlink_to("/etc/passwd"), Refusal.FORBIDDEN_FILE, "notes.txt"),
    "a link to a device": (lambda a: (a / "notes.txt").symlink_to("/dev/zero"), Refusal.FORBIDDEN_FILE, "notes.txt"),
    "a directory": (lambda a: (a / "more.json").mkdir(), Refusal.FORBIDDEN_FILE, "more.json"),
}


@pytest.mark.parametrize(
    ("spoil", "reason", "named"), PUBLISHED_BY_AN_ATTACKER.values(), ids=PUBLISHED_BY_AN_ATTACKER.keys()
)
def test_what_agrees_with_its_manifest_can_be_refused_all_the_same(
    root: Path, spoil: Callable[[Path], None], reason: Refusal, named: str
) -> None:
    adapter = root / "adapter"
    publish(adapter)
    spoil(adapter)
    links = [file for file in adapter.iterdir() if file.is_symlink()]
    expected = publish(adapter) if not links else Expected("sha256:0", "tiny-llama", 16)
    answer = refused(root, expected)
    assert answer is not None
    assert answer.reason is reason
    assert named in answer.message


def test_a_hard_link_is_refused(root: Path, tmp_path: Path) -> None:
    expected = publish(root / "adapter")
    os.link(root / "adapter" / WEIGHTS_NAME, tmp_path / "kept-by-the-attacker")
    answer = refused(root, expected)
    assert answer is not None
    assert (answer.reason, "hard link" in answer.message) == (Refusal.FORBIDDEN_FILE, True)


def test_a_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = publish(root / "adapter")
    # A socket's path has a hundred bytes at most.
    monkeypatch.chdir(root / "adapter")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("notes.txt")
        answer = refused(root, expected)
    assert answer is not None
    assert answer.reason is Refusal.FORBIDDEN_FILE


PATHS = {
    "relative": "adapter",
    "outside": "/etc",
    "above": "{root}/../outside",
    "a detour": "{root}/adapter/../adapter",
    "a link out": "{root}/out",
    "a link within": "{root}/within",
    "below a link": "{root}/up/adapter",
    "a link to itself": "{root}/loop",
    "no path": "{root}/\0",
    "too long": "{root}/" + "a" * 5000,
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_only_the_adapters_own_directory_is_looked_at(root: Path, path: str) -> None:
    expected = publish(root / "adapter")
    (root / "out").symlink_to("/etc")
    (root / "within").symlink_to(root / "adapter")
    (root / "up").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    answer = refused(root, expected, path)
    assert answer is not None
    assert answer.reason in (Refusal.OUTSIDE_ROOT, Refusal.MANIFEST_MISSING)
    assert answer.reason is Refusal.OUTSIDE_ROOT or path == PATHS["too long"]
