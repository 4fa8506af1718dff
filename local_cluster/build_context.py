"""Which files of a build context count, by Docker's .dockerignore rules, and the hash that tells if they changed."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pattern:
    """One line of a .dockerignore."""

    expression: re.Pattern[str]
    keeps: bool
    """Written with a leading `!`: brings back what an earlier line left out."""


def parse_ignore_file(text: str) -> tuple[Pattern, ...]:
    patterns = []
    for line in text.splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keeps = rule.startswith("!")
        rule = rule.removeprefix("!").strip().strip("/").removeprefix("./")
        patterns.append(Pattern(re.compile(_expression(rule)), keeps))
    return tuple(patterns)


def is_ignored(path: str, patterns: tuple[Pattern, ...]) -> bool:
    """The last line that matches the path, or a directory above it, decides."""
    parts = path.split("/")
    names = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    ignored = False
    for pattern in patterns:
        if any(pattern.expression.fullmatch(name) for name in names):
            ignored = not pattern.keeps
    return ignored


def _expression(rule: str) -> str:
    """Go's filepath.Match, plus `**` for any number of directories."""
    expression, position = "", 0
    while position < len(rule):
        if rule.startswith("**/", position):
            expression, position = f"{expression}(?:.*/)?", position + 3
        elif rule.startswith("**", position):
            expression, position = f"{expression}.*", position + 2
        elif rule[position] == "*":
            expression, position = f"{expression}[^/]*", position + 1
        elif rule[position] == "?":
            expression, position = f"{expression}[^/]", position + 1
        else:
            expression, position = expression + re.escape(rule[position]), position + 1
    return expression


def ignore_patterns(context: Path, dockerfile: Path) -> tuple[Pattern, ...]:
    """`NAME.dockerignore` beside the Dockerfile comes before the context's own .dockerignore, as in BuildKit."""
    for candidate in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if candidate.exists():
            return parse_ignore_file(candidate.read_text())
    return ()


def context_files(context: Path, patterns: tuple[Pattern, ...]) -> Iterator[Path]:
    """The files that a build may read, in a fixed order."""
    may_keep = any(pattern.keeps for pattern in patterns)
    for directory, subdirectories, names in os.walk(context):
        relative = Path(directory).relative_to(context)
        if not may_keep:
            subdirectories[:] = [n for n in subdirectories if not is_ignored((relative / n).as_posix(), patterns)]
        subdirectories.sort()
        for name in sorted(names):
            if not is_ignored((relative / name).as_posix(), patterns):
                yield Path(directory) / name


def inputs_hash(
    context: Path, dockerfile: Path, arguments: Mapping[str, str], base_digests: Mapping[str, str | None]
) -> str:
    """Changes exactly when a rebuild could give another image."""
    digest = hashlib.sha256(repr((sorted(arguments.items()), sorted(base_digests.items()))).encode())
    digest.update(dockerfile.read_bytes())
    for path in context_files(context, ignore_patterns(context, dockerfile)):
        is_link = path.is_symlink()
        content = os.readlink(path).encode() if is_link else path.read_bytes()
        executable = not is_link and os.access(path, os.X_OK)
        header = f"\0{path.relative_to(context)}\0{is_link}{executable}{len(content)}\0"
        digest.update(header.encode() + content)
    return digest.hexdigest()


def local_images(dockerfile: str, arguments: Mapping[str, str]) -> set[str]:
    """The images of the node's own store that a Dockerfile or its build arguments name."""
    text = "\n".join([dockerfile, *arguments.values()])
    return set(re.findall(r"localhost/[\w./-]+:[\w.-]+", text))
