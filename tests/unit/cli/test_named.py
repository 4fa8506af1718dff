"""The pipeline's commands, the entry points, and what runs as a process: watching, the script for Ollama."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from finetune_operator.cli.failures import ExitCode
from finetune_operator.cli.ollama import script_of
from finetune_operator.resources.modelversion import ModelVersion
from tests.builders import merged
from tests.unit.cli.conftest import Ftctl, invoked
from tests.unit.cli.played_cluster import PlayedCluster, job, version
from tests.unit.store.ratings_database import rating, write_ratings

REPOSITORY = Path(__file__).parents[3]
NAMED = (
    "prepare-dataset", "create-openai-job", "check-job-status", "create-ollama-script", "evaluate-model",
    "setup-ab-test", "register-model", "list-models", "rollback-model", "cost-summary",
)  # fmt: skip
OWN = (
    "get", "watch", "status", "logs", "submit", "cancel", "suspend", "resume", "serve", "promote", "rollback", "vote",
    "evaluate", "base-models", "export", "cost", "dashboard", "lint",
)  # fmt: skip
RUN = (sys.executable, "-m", "finetune_operator.cli.main")
HEAVY = ("aiohttp", "kopf", "pydantic", "yaml", "rich.table")


def test_every_command_is_listed_and_has_help() -> None:
    listed = invoked("--help").out
    for name in (*OWN, *NAMED):
        assert re.search(rf"^│ {name} ", listed, re.MULTILINE), name
        if name != "prepare-dataset":
            ended = invoked(name, "--help")
            assert (ended.code, ended.err) == (ExitCode.DONE, ""), name


def test_the_commands_are_installed_under_both_names() -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["ftctl"] == scripts["kubectl-finetune"] == "finetune_operator.cli.main:main"
    assert scripts["kubectl_complete-finetune"] == "finetune_operator.cli.plugin_completion:main"


def test_help_imports_nothing_that_only_commands_need() -> None:
    code = f"import sys, finetune_operator.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("called", "shown"), [("ftctl", "ftctl"), ("kubectl-finetune", "kubectl finetune")])
def test_help_names_the_command_as_it_was_called(called: str, shown: str) -> None:
    code = f"import sys; sys.argv = ['/bin/{called}', 'get', '-h']; from finetune_operator.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"Usage: {shown} get [OPTIONS]" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    environment = os.environ | {"_FTCTL_COMPLETE": f"source_{shell}"}
    code = "import sys; sys.argv = ['ftctl']; from finetune_operator.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "_FTCTL_COMPLETE" in done.stdout


def test_the_plugin_leaves_kubectl_its_own_completion() -> None:
    code = (
        "import sys; sys.argv = ['/bin/kubectl-finetune', '--show-completion', 'bash']; "
        "from finetune_operator.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "ftctl --install-completion" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    command = f"{' '.join(RUN)} lint {REPOSITORY / 'examples'} -o json | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


def test_colours_are_for_terminals_that_want_them() -> None:
    for variables, coloured in (
        ({"FORCE_COLOR": "1"}, True),
        ({}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ):
        base = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
        done = subprocess.run(
            [*RUN, "get", "nonsense"], capture_output=True, text=True, check=False, env=base | variables
        )
        assert done.returncode == ExitCode.USAGE
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", done.stderr)) == coloured, variables


async def test_changes_are_lines_without_a_terminal(ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path) -> None:
    await ftctl("get", "jobs")
    process = await asyncio.create_subprocess_exec(
        *RUN, "watch", "-o", "json", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"KUBECONFIG": str(tmp_path / "editor.kubeconfig")},
    )  # fmt: skip
    assert process.stdout is not None

    async def until(name: str, phase: str) -> None:
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():  # type: ignore[union-attr]
                body = json.loads(line)
                if (body["metadata"]["name"], body["status"].get("phase")) == (name, phase):
                    return
        raise AssertionError("the watch ended")

    await until("plato-2", "Training")
    await cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")
    await until("plato-2", "Succeeded")
    process.terminate()
    await process.communicate()


async def test_who_may_not_read_can_not_watch(ftctl: Ftctl, cluster: PlayedCluster) -> None:
    ended = await ftctl("watch", user="nobody")
    assert (ended.code, ended.out) == (ExitCode.REFUSED, "")


def test_a_dataset_is_prepared_here(tmp_path: Path) -> None:
    url = write_ratings(tmp_path / "ratings.db", [rating(number) for number in range(60)])
    (tmp_path / "url").write_text(url)
    out = tmp_path / "out"
    done = subprocess.run(
        [*RUN, "prepare-dataset", str(out), "--format", "OpenAI", "--url-file", str(tmp_path / "url")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["sample_count"] == 60
    assert json.loads((out / "train.jsonl").read_text().splitlines()[0])["messages"]


COMMAND = """#!/bin/sh
echo "{name} $*" >> "$CALLS"
case "{name} $*" in
  *" apply "*) cat > "$CALLS.pod" ;;
  *" cp "*) for target; do :; done; mkdir "$target" ;;
  "hf "*) for target; do :; done; mkdir "$target" ;;
esac
"""
HUB = {"name": "qwen", "source": {"hub": {"id": "Qwen/Qwen3-0.6B", "revision": "c" * 40}}}


def run_script(directory: Path, text: str) -> list[str]:
    """What it calls of kubectl, hf and ollama, each of them played."""
    for name in ("kubectl", "hf", "ollama"):
        (directory / name).write_text(COMMAND.format(name=name))
        (directory / name).chmod(0o755)
    (directory / "script.sh").write_text(text)
    calls = directory / "calls"
    environment = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "CALLS": str(calls), "BASE_MODEL": "/base"}
    subprocess.run(["sh", "script.sh", "mine"], cwd=directory, env=environment, check=True, capture_output=True)
    return calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("changes", "has_modelfile", "copied", "begins"),
    [
        ({}, False, ["adapter"], "FROM ./base\nADAPTER ./adapter"),
        ({"baseModel": HUB}, False, ["adapter"], "FROM ./base\nADAPTER ./adapter"),
        ({"artifact": {"mergedDigest": "sha256:" + "b" * 64}}, False, ["merged"], "FROM ./merged"),
        ({"artifact": {"mergedDigest": "sha256:" + "b" * 64}}, True, ["merged", "Modelfile"], None),
    ],
)
def test_the_script_for_ollama(
    tmp_path: Path, changes: dict[str, object], has_modelfile: bool, copied: list[str], begins: str | None
) -> None:
    body = merged(version("plato-v1", "Ready"), {"metadata": {"uid": "x"}, "spec": changes})
    text = script_of(
        ModelVersion.parse(body), has_modelfile=has_modelfile, architecture="LlamaForCausalLM", image="tar"
    )

    calls = run_script(tmp_path, text)

    pod = json.loads((tmp_path / "calls.pod").read_text())
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {"claimName": "artifacts", "readOnly": True}
    assert [call.split("/")[-1].split()[0] for call in calls if " cp " in call] == copied
    assert all("--namespace finetune" in call for call in calls if call.startswith("kubectl"))
    assert [call for call in calls if call.startswith("ollama")] == ["ollama create mine -f Modelfile"]
    assert calls[-1].startswith("kubectl --namespace finetune delete pod ollama-plato-v1")
    assert any(call.startswith("hf download Qwen/Qwen3-0.6B --revision") for call in calls) == ("baseModel" in changes)
    if begins:
        modelfile = (tmp_path / "plato-v1" / "Modelfile").read_text()
        assert begins in "\n".join(line for line in modelfile.splitlines() if not line.startswith("#"))


async def test_the_script_knows_whether_the_training_made_a_modelfile(
    ftctl: Ftctl, cluster: PlayedCluster, tmp_path: Path
) -> None:
    artifacts = [{"name": "Modelfile", "type": "Modelfile", "sizeBytes": 1, "path": "Modelfile"}]
    cluster.put("finetunejobs", job("plato-1", "Succeeded", artifacts=artifacts))
    file = tmp_path / "ollama.sh"
    ended = await ftctl("create-ollama-script", "plato-v1", str(file))
    assert (ended.code, ended.out, ended.err) == (ExitCode.DONE, "", "")
    assert "/artifacts/default/plato/1/Modelfile Modelfile" in file.read_text()
