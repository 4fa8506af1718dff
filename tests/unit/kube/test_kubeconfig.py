"""The kubeconfig as kubectl reads it: tables of files, and a real plugin process."""

# ruff: noqa: S105, S106 - of these tests

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.kube.kubeconfig import Login, Unusable, kubeconfig_paths, read_access

FILE: dict[str, Any] = {
    "current-context": "one",
    "contexts": [
        {"name": "one", "context": {"cluster": "c1", "user": "u1", "namespace": "team-a"}},
        {"name": "two", "context": {"cluster": "c2", "user": "u2"}},
    ],
    "clusters": [
        {
            "name": "c1",
            "cluster": {"server": "https://one", "certificate-authority": "ca.crt", "proxy-url": "http://p"},
        },
        {"name": "c2", "cluster": {"server": "https://two", "certificate-authority-data": "Q0E="}},
    ],
    "users": [
        {"name": "u1", "user": {"token": "secret"}},
        {"name": "u2", "user": {"client-certificate": "me.crt", "client-key-data": "S0VZ"}},
    ],
}


def written(directory: Path, name: str = "config", /, **changes: Any) -> Path:
    path = directory / name
    path.write_text(yaml.safe_dump(FILE | {key.replace("_", "-"): value for key, value in changes.items()}))
    return path


def test_the_current_context(tmp_path: Path) -> None:
    access = read_access((written(tmp_path),))
    known = Login(access, interactive=False).credentials()
    assert (access.context, access.namespace, access.proxy) == ("one", "team-a", "http://p")
    assert (known.server, known.token, known.ca_path) == ("https://one", "secret", str(tmp_path / "ca.crt"))


def test_a_named_context_with_a_certificate(tmp_path: Path) -> None:
    access = read_access((written(tmp_path),), "two")
    known = Login(access, interactive=False).credentials()
    assert (access.namespace, known.token) == ("default", None)
    assert (known.certificate_path, known.private_key_data) == (str(tmp_path / "me.crt"), "S0VZ")
    assert (known.ca_data, known.ca_path) == ("Q0E=", None)


def test_the_first_file_to_name_something_wins(tmp_path: Path) -> None:
    other = [{"name": "u1", "user": {"token": "other"}}, {"name": "u3", "user": {"token": "third"}}]
    third = [{"name": "three", "context": {"cluster": "c1", "user": "u3"}}]
    first = written(tmp_path, "first")
    second = written(tmp_path, "second", users=other, contexts=third, current_context="three")
    files = (tmp_path / "absent", first, second)
    assert read_access(files).context == "one"
    assert read_access(files).user["token"] == "secret"
    assert read_access(files, "three").user["token"] == "third"


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        ({}, None, [Path("~/.kube/config").expanduser()]),
        ({"KUBECONFIG": "/a:/b:"}, None, [Path("/a"), Path("/b")]),
        ({"KUBECONFIG": ""}, None, [Path("~/.kube/config").expanduser()]),
        ({"KUBECONFIG": "/a"}, Path("/c"), [Path("/c")]),
    ],
)
def test_where_it_is(environment: dict[str, str], given: Path | None, expected: list[Path]) -> None:
    assert list(kubeconfig_paths(given, environment)) == expected


@pytest.mark.parametrize(
    ("changes", "context", "words"),
    [
        ({"current_context": ""}, None, "no current context"),
        ({}, "three", "no context three (there is: one, two)"),
        ({"clusters": []}, None, "names no cluster"),
        ({"users": [{"name": "u1", "user": {"token": "x", "as": "root"}}]}, None, "impersonates (root)"),
        (
            {"clusters": [{"name": "c1", "cluster": {"server": "https://x", "tls-server-name": "y"}}]},
            None,
            "tls-server-name",
        ),
    ],
)
def test_what_can_not_be_used(tmp_path: Path, changes: dict[str, Any], context: str | None, words: str) -> None:
    with pytest.raises(Unusable, match="context") as refusal:
        read_access((written(tmp_path, **changes),), context)
    assert words in str(refusal.value)


@pytest.mark.parametrize(("text", "words"), [("a: [", "is no kubeconfig"), ("- 1", "should be a mapping")])
def test_what_is_no_kubeconfig(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(Unusable) as refusal:
        read_access((tmp_path / "config",))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "line",
    ["token: hunter2: x", "token: [hunter2", 'token: "hunter2', "token: *hunter2", "token: !hunter2", "hunter2\x00"],
)
def test_what_can_not_be_read_is_told_by_its_line_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / "config").write_text(f"users:\n- name: ada\n  user:\n    {line}\n")
    with pytest.raises(Unusable, match=r"is no kubeconfig: it can't be read as YAML, look at line [45]") as refusal:
        read_access((tmp_path / "config",))
    assert "hunter2" not in str(refusal.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="set KUBECONFIG or pass --kubeconfig"):
        read_access((tmp_path / "none",))


def test_a_token_file_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    access = read_access((written(tmp_path, users=[{"name": "u1", "user": {"tokenFile": "token"}}]),))
    login = Login(access, interactive=False)
    assert login.credentials().token == "first"
    (tmp_path / "token").write_text("second\n")
    assert login.credentials().token == "second"
    (tmp_path / "token").unlink()
    with pytest.raises(Unusable, match="it should hold the token"):
        login.credentials()


def plugin(directory: Path, body: str, **members: Any) -> Login:
    """A login by a program of this directory, which tells how often it ran and what it was told."""
    program = directory / "login"
    program.write_text(
        f'#!/bin/sh\necho x >> "{directory}/runs"\necho "$KUBERNETES_EXEC_INFO" > "{directory}/told"\n{body}'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "args": ["a b"]} | members
    return Login(read_access((written(directory, users=[{"name": "u1", "user": {"exec": entry}}]),)), interactive=False)


def answer(**status: str) -> str:
    return f"cat <<'END'\n{json.dumps({'kind': 'ExecCredential', 'status': status})}\nEND\n"


def test_a_plugin_logs_in_once(tmp_path: Path) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    login = plugin(tmp_path, answer(token="of-plugin", expirationTimestamp=later), provideClusterInfo=True)
    assert [login.credentials().token for _ in range(3)] == ["of-plugin"] * 3
    assert login.credentials().server == "https://one"
    assert (tmp_path / "runs").read_text() == "x\n"
    told = json.loads((tmp_path / "told").read_text())
    assert (told["kind"], told["spec"]["interactive"]) == ("ExecCredential", False)
    assert told["spec"]["cluster"]["server"] == "https://one"


def test_a_plugin_logs_in_anew_before_its_token_runs_out(tmp_path: Path) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    login = plugin(tmp_path, answer(token="short", expirationTimestamp=soon))
    login.credentials()
    login.credentials()
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_plugin_with_a_certificate_and_variables(tmp_path: Path) -> None:
    body = answer(clientCertificateData="CERT", clientKeyData="KEY") + 'echo "$HUE $1" > seen\n'
    login = plugin(tmp_path, body, env=[{"name": "HUE", "value": "blue"}])
    directory = os.getcwd()
    os.chdir(tmp_path)
    try:
        known = login.credentials()
    finally:
        os.chdir(directory)
    assert (known.certificate_data, known.private_key_data, known.token) == ("CERT", "KEY", None)
    assert (tmp_path / "seen").read_text() == "blue a b\n"


@pytest.mark.parametrize(
    ("body", "members", "words"),
    [
        ("exit 3", {}, "ended with 3: log in with it"),
        ("echo nonsense", {}, "printed no ExecCredential"),
        ("echo '{}'", {}, "printed no ExecCredential"),
        ("", {"command": "./absent", "installHint": "get it at example.com"}, "is missing: get it at example.com"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, body: str, members: dict[str, Any], words: str) -> None:
    with pytest.raises(Unusable) as refusal:
        plugin(tmp_path, body, **members).credentials()
    assert words in str(refusal.value)
