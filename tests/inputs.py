"""What the outcome of the images' tests can depend on, as one digest: `go test` keeps passes by the same rule.

Everything that their modules import from this repository, however indirectly; the images' own programs and locks,
which run as programs of their own; the libraries by the project's lock; the interpreter.
"""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grimp

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = (REPOSITORY, REPOSITORY / "operator")
"""Where packages lie."""
PACKAGES = ("finetune_operator", "tests", "demo", "local_cluster")
TESTS = "tests.images"
TREES = (
    "tests/images",
    "trainer_image",
    "server_image",
    "operator/finetune_operator/contract",
    "operator/finetune_operator/core",
)
FILES = ("uv.lock", "pyproject.toml", "tests/conftest.py", "tests/inputs.py")


def digest() -> str:
    """Of what the images' tests can depend on; the same in every clone."""
    return _digest(imported() | listed())


def digest_of_tree() -> str:
    """Of everything that git does not ignore."""
    return _digest(_present())


def _digest(files: Iterable[Path]) -> str:
    """Of names, contents and the interpreter."""
    whole = hashlib.sha256(f"{sys.version} {platform.machine()}\n".encode())
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{file.relative_to(REPOSITORY).as_posix()} {content}\n".encode())
    return whole.hexdigest()


def imported() -> set[Path]:
    """The files of every module of this repository that the tests import, directly or not."""
    for source in map(str, SOURCES):
        if source not in sys.path:
            sys.path.append(source)
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    tests = {name for name in graph.modules if name.startswith(f"{TESTS}.")}
    modules = tests.union(*(graph.find_upstream_modules(name) for name in tests))
    packages = {name.rpartition(".")[0] for name in modules}
    return {file for name in modules | packages for file in _files(name)}


def listed() -> set[Path]:
    return _present(*TREES) | {REPOSITORY / name for name in FILES}


def _present(*below: str) -> set[Path]:
    """Files that git does not ignore, new ones among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *below]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    return {file for name in listed.split("\0") if name and (file := REPOSITORY / name).is_file()}


def _files(module: str) -> list[Path]:
    path = Path(*module.split("."))
    candidates = [source / name for source in SOURCES for name in (path.with_suffix(".py"), path / "__init__.py")]
    return [file for file in candidates if file.is_file()]
