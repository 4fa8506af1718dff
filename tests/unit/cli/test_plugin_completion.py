"""`kubectl finetune <Tab>`: what kubectl's own completion is told by the executable that it looks for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = {
    "kubectl-finetune": "finetune_operator.cli.main",
    "kubectl_complete-finetune": "finetune_operator.cli.plugin_completion",
}


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Both executables in a directory, as pip installs them."""
    for name, module in MODULES.items():
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
        script.chmod(0o755)
    return tmp_path


def told(*command: str | Path, path: Path) -> list[str]:
    variables = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    return done.stdout.splitlines()


CASES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "a command": (("res",), ["resume"]),
    "several": (("re",), ["resume", "retry", "register-model"]),
    "an option": (("get", "--out"), ["--output"]),
    "its values": (("get", "-o", ""), ["table", "wide", "yaml", "json", "name"]),
    "behind an argument": (("logs", "plato-1", "--fol"), ["--follow"]),
    "of no command": (("trane",), []),
    "what a shell would read otherwise": (("get", "it's $(reboot) \"a"), []),
}


@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES.keys())
def test_words_are_completed_as_ftctl_completes_them(
    installed: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    *lines, directive = told(installed / "kubectl_complete-finetune", *words, path=installed)
    assert [line.partition("\t")[0] for line in lines] == expected
    assert directive == ":0"


def test_each_command_is_there_with_its_help(installed: Path) -> None:
    *lines, _ = told(installed / "kubectl_complete-finetune", "", path=installed)
    shown = dict(line.split("\t") for line in lines)
    assert {"get", "submit", "vote", "list-models"} <= shown.keys()
    assert all(shown.values())


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl")
@pytest.mark.parametrize(("words", "expected"), CASES.values(), ids=CASES.keys())
def test_kubectl_itself_takes_it(installed: Path, words: tuple[str, ...], expected: list[str]) -> None:
    *lines, directive = told("kubectl", "__complete", "finetune", *words, path=installed)
    assert [line.partition("\t")[0] for line in lines] == expected
    assert directive == ":0"
