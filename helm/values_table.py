"""The table of values in the chart's README, made from the comments in values.yaml.

    python helm/values_table.py [--check]

A value is documented by the lines `# -- ...` above it, which may go on in further comment lines.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHART = Path(__file__).resolve().parent / "finetune-operator"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
KEY_LINE = re.compile(r"^( *)([A-Za-z]+):(?: +(.*))?$")
INDENT = 2


class Value(NamedTuple):
    """One documented value; `default` is as written, empty where the value is a block of its own."""

    path: str
    default: str
    description: str


def documented_values(text: str) -> Iterator[Value]:
    """All values below a `# --` comment, in the file's order."""
    path: list[str] = []
    description: list[str] = []
    for line in text.splitlines():
        comment = line.strip().removeprefix("#").strip() if line.strip().startswith("#") else None
        if comment is not None:
            if comment.startswith("-- "):
                description = [comment.removeprefix("-- ")]
            elif description:
                description.append(comment)
        elif key := KEY_LINE.match(line):
            path = [*path[: len(key[1]) // INDENT], key[2]]
            if description:
                yield Value(".".join(path), key[3] or "", " ".join(description))
            description = []


def table(text: str) -> str:
    """The README's table. A block's default is in values.yaml, where it reads better."""
    rows = [
        f"| `{value.path}` | {f'`{value.default}`' if value.default else 'see values.yaml'} | {value.description} |"
        for value in documented_values(text)
    ]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows]) + "\n"


def main(arguments: list[str]) -> int:
    """Writes the table into the README, or only says whether it is right."""
    readme = CHART / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    wanted = f"{before}{BEGIN}{table((CHART / 'values.yaml').read_text())}{END}{after}"
    if wanted == text:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{readme} differs from values.yaml; run `python helm/values_table.py`\n")
        return 1
    readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
