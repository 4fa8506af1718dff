"""Whether a command that a page shows would be taken by whom it calls."""

import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import typer

from finetune_operator.cli.main import app as ftctl
from finetune_operator.resources.crd import DEFINITIONS, custom_resource_definition
from tests.unit.web.contract.test_contract import document

TOOLS = ("ftctl ", "kubectl ", "curl ")
DOCUMENT = document()
KINDS = {
    name
    for definition in DEFINITIONS
    for names in [custom_resource_definition(definition)["spec"]["names"]]
    for name in (names["plural"], names["singular"], *names.get("shortNames", ()))
} | {"pods"}


def obeyed(line: str) -> None:
    """Whoever is called would take it."""
    tool, *words = shlex.split(line)
    {"ftctl": taken_by_ftctl, "kubectl": taken_by_kubectl, "curl": taken_by_rest}[tool](words)


def taken_by_ftctl(words: list[str]) -> None:
    """Its own parser finds no unknown command, option or value, and nothing that is missing."""
    group: Any = typer.main.get_command(ftctl)
    whole = group.make_context("ftctl", list(words))
    name, command, rest = group.resolve_command(whole, [*whole._protected_args, *whole.args])
    command.make_context(name, list(rest), parent=whole)


def taken_by_kubectl(words: list[str]) -> None:
    verb, *rest = words
    if verb in ("get", "patch", "delete", "wait"):
        assert set(rest[0].split(",")) <= KINDS | {"pod"}, rest[0]
    else:
        assert verb in ("apply", "logs", "create", "cp"), words


def taken_by_rest(words: list[str]) -> None:
    """The document has the operation, and each name in the query."""
    url = urlsplit(next(word for word in words if word.startswith("$API/")).removeprefix("$API"))
    method = words[words.index("-X") + 1].lower() if "-X" in words else "get"
    operations = [found[method] for found in documented(url.path) if method in found]
    assert operations, f"no {method} {url.path}"
    known = {each["name"] for operation in operations for each in operation.get("parameters", ())}
    assert {name for name, _ in parse_qsl(url.query)} <= known, url.query
    assert ("-d" in words) == any("requestBody" in operation for operation in operations), (
        f"a body of {method} {url.path}"
    )


def documented(path: str) -> Iterator[dict[str, Any]]:
    for pattern, found in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path):
            yield found
