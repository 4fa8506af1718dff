"""How a server of merged weights begins: what it starts, what ends it for good, and what the next start may mend."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from finetune_operator.contract.artifacts import MergedWeights, WeightsRefused
from finetune_operator.core.artifacts import MANIFEST_NAME
from tests.unit.server_image.merged_directory import SERVER_IMAGE, expected, make_weights, publish

FLAGS = ("--model", "/elsewhere", "--served-model-name", "other", "--port", "8000")


class Replaced(Exception):
    """The process would be vLLM now."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, in this process: it does not become vLLM, and its handler of SIGTERM is gone with the test."""
    monkeypatch.syspath_prepend(str(SERVER_IMAGE))
    module = importlib.import_module("serve")

    def replace(path: str, argv: list[str]) -> None:
        raise Replaced(*argv)

    monkeypatch.setattr(module.os, "execv", replace)
    monkeypatch.setattr(module.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setenv("VLLM_API_KEY", "key")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_weights(tmp_path / "artifacts")


@pytest.fixture
def merged(root: Path) -> MergedWeights:
    return expected(root, publish(root / "job" / "merged"))


def options(root: Path, merged: MergedWeights, *flags: str, patience_seconds: float = 0.0) -> list[str]:
    beside = root.parent
    (beside / "merged.json").write_text(merged.model_dump_json(by_alias=True))
    return [
        *(str(SERVER_IMAGE / "serve.py"), "--merged", str(beside / "merged.json"), "--artifacts", str(root)),
        *("--termination-message", str(beside / "said"), "--patience-seconds", str(patience_seconds)),
        *("--", *flags),
    ]


@pytest.fixture
def start(
    serve: ModuleType, root: Path, merged: MergedWeights, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, ...]]:
    """Runs it to its end, which is the one that it is to have, or vLLM: its arguments."""

    def run(*flags: str, patience_seconds: float = 0.0) -> tuple[str, ...]:
        monkeypatch.setattr(sys, "argv", options(root, merged, *flags, patience_seconds=patience_seconds))
        with pytest.raises(Replaced) as replaced:
            serve.main()
        return tuple(replaced.value.args)

    return run


def last_of(arguments: tuple[str, ...], flag: str) -> str:
    """What argparse takes of several."""
    return [value for name, value in pairwise(arguments) if name == flag][-1]


def test_what_was_verified_is_what_vllm_is_told_to_load(
    start: Callable[..., tuple[str, ...]], merged: MergedWeights
) -> None:
    arguments = start(*FLAGS)
    assert (last_of(arguments, "--model"), last_of(arguments, "--served-model-name")) == (merged.path, "plato-v1")
    assert last_of(arguments, "--port") == "8000"
    assert arguments[-5:] == ("--model", merged.path, "--served-model-name", "plato-v1", "--no-trust-remote-code")


@pytest.mark.parametrize(
    "flag", ["--trust-remote-code", "--trust_remote_code", "--trust-remote", "--trust-remote-code=1"]
)
def test_a_server_that_would_import_a_models_code_does_not_start(
    start: Callable[..., tuple[str, ...]], root: Path, flag: str
) -> None:
    with pytest.raises(SystemExit, match=r"--trust-remote-code has code of a model run.*: remove the flag"):
        start(flag)
    assert not (root.parent / "said").exists(), "nothing is said of the weights"


def test_one_that_would_not_starts(start: Callable[..., tuple[str, ...]]) -> None:
    assert start("--no-trust-remote-code", "--tokenizer-mode", "auto")


def test_a_server_that_refuses_says_why_and_ends(root: Path, merged: MergedWeights) -> None:
    (root / "job" / "merged" / "notes.txt").symlink_to("/etc/passwd")

    done = subprocess.run(
        [sys.executable, *options(root, merged)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=of_server(),
    )

    said = WeightsRefused.model_validate_json((root.parent / "said").read_bytes())
    assert (done.returncode, said.reason) == (49, "ForbiddenFile")
    assert "'notes.txt' in the merged model is not a plain file" in said.message
    logged = json.loads(done.stdout.splitlines()[-1])
    assert (logged["message"], logged["version"]) == ("merged weights refused", "plato-v1")
    assert logged["reason"] == "ForbiddenFile"


def of_server() -> dict[str, str]:
    return os.environ | {"VLLM_API_KEY": "key"}


def failing(times: int, really: Callable[..., Any], number: int = errno.EIO) -> Callable[..., Any]:
    """As `really` does, but for its first calls."""
    left = [number] * times

    def call(*arguments: Any) -> Any:
        if left:
            raise OSError(left.pop(), "the volume is away")
        return really(*arguments)

    return call


UNREAD = ("file_states", "refuse_weights")
NUMBERS = (errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES)


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("number", NUMBERS, ids=[errno.errorcode[number] for number in NUMBERS])
def test_a_volume_that_can_not_be_read_refuses_nothing(
    start: Callable[..., tuple[str, ...]],
    serve: ModuleType,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
) -> None:
    """The kubelet starts the server again."""
    monkeypatch.setattr(serve, name, failing(1, getattr(serve, name), number))
    with pytest.raises(SystemExit) as end:
        start()
    assert end.value.code == 75
    assert not (root.parent / "said").exists()


def test_one_file_of_many_that_can_not_be_read_refuses_nothing(
    start: Callable[..., tuple[str, ...]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("merged")
    monkeypatch.setattr(module, "hashed", failing(1, module.hashed))
    with pytest.raises(SystemExit) as end:
        start()
    assert end.value.code == 75
    assert not (root.parent / "said").exists()


@pytest.mark.parametrize("name", UNREAD)
def test_a_volume_that_comes_back_is_read(
    start: Callable[..., tuple[str, ...]], serve: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(serve, name, failing(3, getattr(serve, name)))
    assert start(patience_seconds=30.0)


def test_a_manifest_that_comes_late_is_found(
    start: Callable[..., tuple[str, ...]], serve: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, aside = root / "job" / "merged" / MANIFEST_NAME, root / "aside"
    manifest.rename(aside)
    monkeypatch.setattr(serve.time, "sleep", lambda seconds: aside.rename(manifest))
    assert start(patience_seconds=30.0)


def test_a_manifest_that_does_not_come_refuses_the_weights(start: Callable[..., tuple[str, ...]], root: Path) -> None:
    (root / "job" / "merged" / MANIFEST_NAME).unlink()
    with pytest.raises(SystemExit) as end:
        start(patience_seconds=0.2)
    said = WeightsRefused.model_validate_json((root.parent / "said").read_bytes())
    assert (end.value.code, said.reason) == (49, "ManifestMissing")


def rewrite(file: Path) -> None:
    """The same bytes at the same time: the inode knows."""
    status, content = file.stat(), file.read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(file: Path) -> None:
    another = file.with_name("another.txt")
    another.write_bytes(file.read_bytes())
    another.rename(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "rewritten": rewrite,
    "replaced": replace,
    "removed": Path.unlink,
    "added": lambda file: (file.parent / "model.safetensors.json").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_files_that_change_while_they_are_checked_are_checked_anew(
    start: Callable[..., tuple[str, ...]],
    serve: ModuleType,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
) -> None:
    def check(*arguments: Any) -> Any:
        found = serve_refuse(*arguments)
        # Beyond the resolution of the file system's clock.
        time.sleep(0.02)
        change(root / "job" / "merged" / "model.safetensors")
        return found

    serve_refuse = serve.refuse_weights
    monkeypatch.setattr(serve, "refuse_weights", check)
    with pytest.raises(SystemExit) as end:
        start()
    assert end.value.code == 75
    problem = json.loads(capsys.readouterr().out.splitlines()[-1])["problem"]
    assert "'model.safetensors" in problem
    assert "changed while it was checked" in problem
    assert not (root.parent / "said").exists()


def test_sigterm_ends_it_while_it_hashes(root: Path, merged: MergedWeights) -> None:
    """As a container's first process, it would be deaf without a handler."""
    with (root / "job" / "merged" / "model.safetensors").open("r+b") as weights:
        weights.truncate(1 << 38)
    command = [sys.executable, *options(root, merged)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=of_server()) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["message"] == "checking merged weights"
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 143
        finally:
            process.kill()
    assert not (root.parent / "said").exists()
