"""YAML files of resources as kubectl reads them, with the line of each part, and what is wrong with our kinds."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from finetune_operator.cli.failures import usage
from finetune_operator.core.schema_check import Mistake, Schema, mistakes
from finetune_operator.kube.paths import NAME_MAX_CHARACTERS, SUBDOMAIN
from finetune_operator.resources.common import API_VERSION, GROUP
from finetune_operator.resources.crd import DEFINITIONS, custom_resource_definition

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
STDIN = "-"
MAX_PARTS = 100_000

Lines = dict[tuple[str | int, ...], int]


@dataclass(frozen=True)
class Document:
    """One resource of a file."""

    file: str
    body: dict[str, Any]
    lines: Lines

    @property
    def is_ours(self) -> bool:
        return (
            str(self.body.get("apiVersion", "")).partition("/")[0] == GROUP or str(self.body.get("kind")) in schemas()
        )

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """Of what is there of the path: what is missing has its parent's."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass(frozen=True)
class Finding:
    """Something to change, as an editor can jump to it."""

    file: str
    line: int
    path: str
    message: str


class _Loader(yaml.SafeLoader):
    """Numbers and booleans as Kubernetes has them: `2e-4` is a number, `yes` and a date are text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":timestamp", ":bool"))]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9.]+[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


@cache
def schemas() -> dict[str, Schema]:
    """By kind, as the CRDs have them."""
    return {
        definition.kind: custom_resource_definition(definition)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for definition in DEFINITIONS
    }


def files_of(given: Iterable[str]) -> Iterator[str]:
    """Files as they are, and the YAML files below directories. Raises `Failed`."""
    for name in given:
        path = Path(name)
        if name != STDIN and path.is_dir():
            below = sorted(str(each) for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file())
            if not below:
                raise usage(f"there is no YAML file below {name}")
            yield from below
        else:
            yield name


def read_documents(file: str) -> Iterator[Document]:
    """Lists are taken apart. Raises `Failed` for what is no YAML."""
    try:
        content = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise usage(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise usage(f"{file}: no text in UTF-8") from None
    loader = _Loader(content)
    try:
        while loader.check_node():
            node = loader.get_node()
            lines: Lines = {}
            _mark(file, node, (), lines)
            yield from _split(file, loader.construct_document(node), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise usage(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise usage(f"{file}: an anchor contains itself") from None
    finally:
        loader.dispose()


def findings(document: Document) -> list[Finding]:
    """What the API server would refuse, in the order of the lines."""
    found = [
        Finding(
            document.file,
            document.line_of(mistake.path),
            str(Mistake(mistake.path, "")).removesuffix(": "),
            mistake.message,
        )
        for mistake in _mistakes(document.body)
    ]
    return sorted(found, key=lambda finding: (finding.line, finding.path))


def _mistakes(body: Mapping[str, Any]) -> list[Mistake]:
    kind = str(body.get("kind"))
    if kind not in schemas():
        return [Mistake(("kind",), f"{kind!r} is no kind of {GROUP}: write {', '.join(schemas())}")]
    if body.get("apiVersion") != API_VERSION:
        return [Mistake(("apiVersion",), f"must be {API_VERSION}")]
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
        return [Mistake(("metadata", "name"), "is missing or no text: give it a name")]
    name = metadata["name"]
    if len(name) > NAME_MAX_CHARACTERS or not SUBDOMAIN.fullmatch(name):
        return [Mistake(("metadata", "name"), f"{name!r} is no name: use lowercase letters, digits, '-' and '.'")]
    return mistakes(schemas()[kind], body)


def _split(file: str, value: Any, lines: Lines) -> Iterator[Document]:
    if value is None:
        return
    if not isinstance(value, dict):
        raise usage(f"{file}:{lines.get((), 1)}: a resource is a mapping with apiVersion, kind, metadata and spec")
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            start = ("items", index)
            yield from _split(file, item, {path[2:]: line for path, line in lines.items() if path[:2] == start})
        return
    yield Document(file, value, lines)


def _mark(file: str, node: Any, path: tuple[str | int, ...], lines: Lines) -> None:
    """Raises `Failed` for a key that is there twice, of which YAML readers take one or the other."""
    if len(lines) > MAX_PARTS:
        raise usage(f"{file}: more than {MAX_PARTS} parts, or anchors that unfold to them")
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise usage(f"{file}:{line}: {name} is there twice: remove one")
            seen.add(name)
            lines[(*path, name)] = line
            _mark(file, value, (*path, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(file, value, (*path, index), lines)
