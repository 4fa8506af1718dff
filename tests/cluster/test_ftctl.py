"""`ftctl` on a real API server: a process with a kubeconfig, real tokens, real RBAC, the real schema."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.cli.failures import ExitCode
from tests.cluster.rest_api import rest_api, token_with
from tests.cluster.world import World
from tests.waiting import eventually


@dataclass(frozen=True)
class Ftctl:
    """One user's command line."""

    kubeconfig: Path
    token: str

    async def __call__(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "finetune_operator.cli.main", *arguments,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "NO_COLOR": "1"} | variables,
        )  # fmt: skip
        out, err = await process.communicate()
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return process.returncode, out.decode(), err.decode()


async def user(world: World, directory: Path, name: str, cluster_role: str | None = None) -> Ftctl:
    """With a token, in the world's namespace, once the ClusterRoles are aggregated."""
    cluster = {"server": world.plane.server, "certificate-authority-data": world.plane.authority}
    token = await token_with(world, name, cluster_role)
    config: dict[str, Any] = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": world.namespace}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file = directory / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    ftctl = Ftctl(file, token)

    async def may() -> bool:
        return (await ftctl("get", "jobs"))[0] == ExitCode.DONE

    if cluster_role:
        await eventually(may)
    return ftctl


async def test_a_training_from_submission_to_its_end(world: World, tmp_path: Path) -> None:
    ftctl = await user(world, tmp_path, "editor", "edit")
    flags = ("--base-model", "volume://models/tiny", "--model", "plato", "--quantization", "none")

    code, out, err = await ftctl("submit", "mine", *flags, "--dry-run", "server", "-o", "json")
    assert code == ExitCode.DONE, err
    assert json.loads(out)["spec"]["training"]["epochs"] == 3, "a default of the schema"
    assert await world.names("finetunejobs") == []

    assert await ftctl("submit", "mine", *flags) == (ExitCode.DONE, "job/mine made\n", "")
    stored = await world.get("finetunejobs", "mine")
    managers = {entry["manager"] for entry in stored["metadata"]["managedFields"] if "subresource" not in entry}
    assert managers == {f"system:serviceaccount:{world.namespace}:editor (ftctl)"}
    code, _, err = await ftctl("submit", "mine", *flags)
    assert (code, "already exists" in err) == (ExitCode.FAILED, True)

    assert (await ftctl("status", "mine"))[0] == ExitCode.TIMED_OUT
    assert (await ftctl("status", "mine", "--timeout", "1s"))[0] == ExitCode.TIMED_OUT
    waiting = asyncio.create_task(ftctl("status", "mine", "--timeout", "5m", "-o", "json"))
    code, out, err = await ftctl("cancel", "mine")
    assert (code, "pass --yes" in err) == (ExitCode.USAGE, True)
    assert (await ftctl("cancel", "mine", "--yes"))[0] == ExitCode.DONE
    code, out, _ = await waiting
    assert (code, json.loads(out)["status"]["phase"]) == (ExitCode.FAILED, "Cancelled")
    code, out, _ = await ftctl("get")
    assert (code, "job mine  Cancelled" in out) == (ExitCode.DONE, True)


async def test_rbac_decides_and_is_quoted(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await user(world, tmp_path, "editor", "edit")
    reader = await user(world, tmp_path, "reader", "view")
    nobody = await user(world, tmp_path, "nobody")
    flags = ("submit", "mine", "--base-model", "volume://models/tiny", "--quantization", "none")

    for ftctl, arguments, expected in (
        (editor, flags, ExitCode.DONE),
        (reader, flags, ExitCode.REFUSED),
        (reader, ("get", "job", "mine"), ExitCode.DONE),
        (reader, ("get",), ExitCode.DONE),
        (reader, ("suspend", "mine"), ExitCode.REFUSED),
        (reader, ("cancel", "mine", "--yes"), ExitCode.REFUSED),
        (nobody, ("get",), ExitCode.REFUSED),
        (nobody, ("status", "mine"), ExitCode.REFUSED),
        (editor, ("get", "jobs", "-n", "kube-system"), ExitCode.REFUSED),
        (editor, ("get", "jobs", "-A"), ExitCode.REFUSED),
        (editor, ("get", "job", "yours"), ExitCode.REFUSED),
        (editor, ("suspend", "mine"), ExitCode.DONE),
    ):
        code, out, err = await ftctl(*arguments)
        assert code == expected, (arguments, out, err)
        if "yours" in arguments:
            assert "there is no job yours" in err
        elif expected is ExitCode.REFUSED:
            assert "is forbidden: User" in err
    assert (await world.get("finetunejobs", "mine"))["spec"]["suspend"] is True


async def test_versions_are_promoted_and_taken_back(world: World, tmp_path: Path) -> None:
    await world.serve("plato-v1", "plato-v2")
    ftctl = await user(world, tmp_path, "editor", "edit")
    for version in ("plato-v1", "plato-v2"):
        assert (await ftctl("promote", version, "--yes"))[0] == ExitCode.DONE
        code, out, _ = await ftctl("status", f"version/{version}", "--for", "Deployed", "--timeout", "2m")
        assert (code, f"version/{version} Deployed" in out) == (ExitCode.DONE, True)
    code, out, err = await ftctl("rollback", "plato", "--yes")
    assert (code, out) == (ExitCode.DONE, "version/plato-v1 answers plato once it is loaded\n"), err
    await world.reaches("modelversions", "plato-v1", state="Deployed")
    await world.reaches("modelversions", "plato-v2", state="Ready")
    history = (await world.get("modelversions", "plato-v2"))["status"]["history"]
    assert history[0]["who"] == f"system:serviceaccount:{world.namespace}:editor (ftctl)", "its promotion"


async def test_a_vote_by_the_kubeconfigs_user(resting_world: World, tmp_path: Path) -> None:
    """At an address, since no kubelet runs here that could forward a port; who asks and what they may is real."""
    world = resting_world
    editor = await user(world, tmp_path, "editor", "edit")
    artifact = ("--uri", "volume://artifacts/x/adapter", "--digest", "sha256:" + "a" * 64)
    code, _, err = await editor("register-model", "plato", "--base-model", "volume://models/tiny", *artifact, "--serve")
    assert code == ExitCode.DONE, err
    code, _, err = await editor("setup-ab-test", "plato-v1", "--name", "duel", "--prompt", "What is virtue?")
    assert code == ExitCode.DONE, err
    async with rest_api(world, tmp_path) as api:
        code, _, err = await editor("vote", "duel", FTCTL_SERVER=api.url, FTCTL_TOKEN=editor.token)
        # No gateway answers here.
        assert (code, "nothing was stored, try again" in err) == (ExitCode.UNAVAILABLE, True), err
        reader = await user(world, tmp_path, "reader", "view")
        code, _, err = await reader("vote", "duel", FTCTL_SERVER=api.url, FTCTL_TOKEN=reader.token)
        assert (code, "`create` on abtests/votes" in err) == (ExitCode.REFUSED, True)
