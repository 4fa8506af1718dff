"""The kubeconfig as kubectl reads it: several files, contexts, tokens, certificates and exec plugins.

kopf's own reader, which the operator uses, knows the current context alone and no plugins, by which most people log in
at a cloud.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kopf
import yaml

DEFAULT_PATH = "~/.kube/config"
DEFAULT_NAMESPACE = "default"
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}
PATH_FIELDS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
EXEC_TIMEOUT_SECONDS = 120
RENEW_BEFORE = timedelta(seconds=60)

Section = dict[str, Any]


class Unusable(Exception):
    """Nobody can log in with it; the text says what to change."""


@dataclass(frozen=True)
class Access:
    """One context: where the API server is, and as whom to ask it."""

    context: str
    namespace: str
    server: str
    cluster: Section
    user: Section

    @property
    def proxy(self) -> str | None:
        found: str | None = self.cluster.get("proxy-url")
        return found


def kubeconfig_paths(given: Path | None, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Files in the order in which they count: the first one to name something wins."""
    if given is not None:
        return (given,)
    listed = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part.strip()]
    return tuple(Path(part.strip()).expanduser() for part in listed or [DEFAULT_PATH])


def read_access(paths: tuple[Path, ...], context: str | None = None) -> Access:
    """The named context, or the current one. Raises `Unusable`."""
    current, found = _merged(paths)
    name = context or current
    if not name:
        raise Unusable(
            "the kubeconfig has no current context: name one with --context, or `kubectl config use-context`"
        )
    chosen = found["contexts"].get(name)
    if chosen is None:
        there = ", ".join(sorted(found["contexts"])) or "none"
        raise Unusable(f"the kubeconfig has no context {name} (there is: {there})")
    cluster = found["clusters"].get(chosen.get("cluster", ""))
    if not cluster or not cluster.get("server"):
        raise Unusable(f"context {name} names no cluster that the kubeconfig has: see `kubectl config view`")
    if cluster.get("tls-server-name"):
        raise Unusable(f"context {name} has tls-server-name, which is not supported: use the name in its certificate")
    user = found["users"].get(chosen.get("user", ""), {})
    if user.get("as") or user.get("as-groups"):
        raise Unusable(f"context {name} impersonates ({user.get('as')}), which is not supported: use another user")
    return Access(name, chosen.get("namespace") or DEFAULT_NAMESPACE, cluster["server"], cluster, user)


class Login:
    """Credentials of an `Access`, renewed by its plugin or from its token's file when they have run out."""

    def __init__(self, access: Access, *, interactive: bool) -> None:
        self._access = access
        self._interactive = interactive
        self._known: kopf.ConnectionInfo | None = None
        self._until: datetime | None = None

    def credentials(self) -> kopf.ConnectionInfo:
        """Raises `Unusable`. A plugin may take its time, and ask the user."""
        user = self._access.user
        if self._known is None or user.get("tokenFile") or self._ran_out():
            own = self._from_plugin(user["exec"]) if user.get("exec") else _own(user)
            cluster = self._access.cluster
            own = replace(
                own,
                server=self._access.server,
                ca_path=None if cluster.get("certificate-authority-data") else cluster.get("certificate-authority"),
                ca_data=cluster.get("certificate-authority-data"),
                insecure=cluster.get("insecure-skip-tls-verify"),
            )
            self._known = own
        return self._known

    def _ran_out(self) -> bool:
        return self._until is not None and datetime.now(UTC) > self._until - RENEW_BEFORE

    def _from_plugin(self, plugin: Section) -> kopf.ConnectionInfo:
        told = {
            "apiVersion": plugin.get("apiVersion", "client.authentication.k8s.io/v1"),
            "kind": "ExecCredential",
            "spec": {"interactive": self._interactive}
            | ({"cluster": _told(self._access)} if plugin.get("provideClusterInfo") else {}),
        }
        added = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
        command = [_program(plugin), *map(str, plugin.get("args") or ())]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own plugin, as an argument list
                command,
                env={**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(told)},
                stdin=None if self._interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=EXEC_TIMEOUT_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            hint = plugin.get("installHint") or "install it, or use another context"
            raise Unusable(
                f"the login plugin {command[0]} of context {self._access.context} is missing: {hint}"
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unusable(f"the login plugin {command[0]} did not answer: {error}") from None
        if done.returncode != 0:
            raise Unusable(
                f"the login plugin {command[0]} ended with {done.returncode}: log in with it, then try again"
            )
        try:
            status = json.loads(done.stdout)["status"]
            until = status.get("expirationTimestamp")
            self._until = datetime.fromisoformat(until) if until else None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unusable(f"the login plugin {command[0]} printed no ExecCredential: update it") from None
        return kopf.ConnectionInfo(
            server=self._access.server,
            token=status.get("token"),
            certificate_data=status.get("clientCertificateData"),
            private_key_data=status.get("clientKeyData"),
        )


def _own(user: Section) -> kopf.ConnectionInfo:
    token = user.get("token") or ((user.get("auth-provider") or {}).get("config") or {}).get("access-token")
    if user.get("tokenFile"):
        try:
            token = Path(user["tokenFile"]).read_text().strip()
        except OSError as error:
            raise Unusable(f"{user['tokenFile']}: {error.strerror}; it should hold the token") from None
    # Data wins over a path of the same, as for kubectl; kopf takes no more than one of them.
    certificate, key = user.get("client-certificate-data"), user.get("client-key-data")
    return kopf.ConnectionInfo(
        server="",
        token=token,
        username=user.get("username"),
        password=user.get("password"),
        certificate_data=certificate,
        certificate_path=None if certificate else user.get("client-certificate"),
        private_key_data=key,
        private_key_path=None if key else user.get("client-key"),
    )


def _told(access: Access) -> Section:
    """The cluster as a plugin reads it."""
    told = {
        "server": access.server,
        "certificate-authority-data": access.cluster.get("certificate-authority-data"),
        "insecure-skip-tls-verify": access.cluster.get("insecure-skip-tls-verify"),
        "proxy-url": access.proxy,
    }
    return {name: value for name, value in told.items() if value is not None}


def _program(plugin: Section) -> str:
    """A path of a plugin is relative to its kubeconfig, a bare name is looked up."""
    command = str(plugin.get("command", ""))
    base = plugin.get("directory")
    return str(Path(base) / command) if base and os.sep in command and not os.path.isabs(command) else command


def _merged(paths: tuple[Path, ...]) -> tuple[str, dict[str, dict[str, Section]]]:
    """The current context, and what the files name by section; absent files are empty ones, but not all of them."""
    current = ""
    found: dict[str, dict[str, Section]] = {section: {} for section in SECTIONS}
    read = 0
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
            document = yaml.safe_load(text) or {}
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(f"{path} is no kubeconfig: {error}") from None
        except yaml.YAMLError as error:
            # What the parser says quotes the line, which may be a token.
            line = _line_of(error, text)
            raise Unusable(f"{path} is no kubeconfig: it can't be read as YAML, look at line {line}") from None
        read += 1
        if not isinstance(document, dict):
            raise Unusable(f"{path} is no kubeconfig: it should be a mapping with clusters, users and contexts")
        current = current or document.get("current-context") or ""
        for section, member in SECTIONS.items():
            for entry in document.get(section) or ():
                found[section].setdefault(entry["name"], _placed(entry.get(member) or {}, path.parent))
    if not read:
        raise Unusable(f"there is no kubeconfig at {', '.join(map(str, paths))}: set KUBECONFIG or pass --kubeconfig")
    return current, found


def _line_of(error: yaml.YAMLError, text: str) -> int:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return int(error.problem_mark.line) + 1
    return text.count("\n", 0, getattr(error, "position", 0)) + 1


def _placed(section: Section, directory: Path) -> Section:
    """Paths are relative to their file."""
    placed = {name: str(directory / section[name]) for name in PATH_FIELDS if section.get(name)}
    if section.get("exec"):
        placed["exec"] = section["exec"] | {"directory": str(directory)}
    return section | placed
