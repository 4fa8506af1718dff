"""What the documents tell people to follow, type or ask for is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.inputs import REPOSITORY
from tests.unit.web.dashboard.terminal import KINDS, documented, taken_by_ftctl

DOCUMENTS = sorted(
    file
    for pattern in ("README.md", "docs/*.md", "examples/**/*.md", "helm/*/README.md")
    for file in REPOSITORY.glob(pattern)
)
OF_OTHERS = {"pods", "pod", "secret", "serviceaccount", "rolebinding", "deployments,services", "finetuning"}
"""Kinds of Kubernetes, and our category, which kubectl gets but can't watch."""


def relative(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix()


def links(file: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        if "://" not in target:
            yield target


def anchors(file: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(file: Path, tool: str) -> Iterator[list[str]]:
    """Inline and in blocks, as a shell takes them apart; a block's line may go on behind a backslash."""
    text = file.read_text()
    blocks = "".join(re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(rf"(?:^|\| |\$\(){tool} [^|\n]*", blocks, re.MULTILINE)
    inline = re.findall(rf"`({tool} [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for command in (*lines, *inline):
        words = shlex.split(command.removeprefix("$("), comments=True)
        yield [word.rstrip(")") if command.startswith("$(") else word for word in words][1:]


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(file: Path) -> None:
    for link in links(file):
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_ftctl_knows_its_commands(file: Path) -> None:
    for words in commands(file, "ftctl"):
        if words[0].startswith("-"):
            continue
        try:
            taken_by_ftctl(words)
        except typer.BadParameter:
            # The name of a command, rather than one to be typed.
            assert len(words) == 1, words


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_kubectl_knows_the_kinds(file: Path) -> None:
    for words in commands(file, "kubectl"):
        bare = " ".join(words)
        bare = re.sub(r"(-n|--namespace) \S+ ?", "", bare).split()
        if bare[0] not in ("get", "patch", "wait", "scale", "delete") or len(bare) == 1:
            continue
        kinds = set(bare[1].partition("/")[0].split(","))
        assert kinds <= KINDS | OF_OTHERS, bare
        assert not {"-w", "--watch"} & set(bare) or (len(kinds) == 1 and kinds <= KINDS), f"{bare}: one kind at a time"


@pytest.mark.parametrize("file", DOCUMENTS, ids=relative)
def test_the_api_has_the_operations(file: Path) -> None:
    for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/(?:v1/fine|v1/api-keys|api/)[^\s`?]*)", file.read_text()):
        asked = re.sub(r"[{<][^}>]+[}>]", "something", path)
        assert any(method.lower() in found for found in documented(asked)), f"{method} {path}"
