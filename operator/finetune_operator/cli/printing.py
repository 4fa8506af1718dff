"""Everything that is printed goes through here: colours on a terminal alone, whole lines where nobody has a window."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What could move the cursor, speak to the terminal or turn the reading direction: models and providers wrote it."""
UNBOUNDED_COLUMNS = 10_000
COLUMN_GAP = 3
Object = Mapping[str, Any]


class Column(NamedTuple):
    """One of a table; where there is no room, those of the highest rank go first, and rank 0 stays."""

    name: str
    rank: int = 0
    right: bool = False


class Signs(NamedTuple):
    """What an encoding can write."""

    good: str
    bad: str
    busy: str
    waiting: str
    bar: str
    empty: str


SIGNS = Signs("✔", "✘", "●", "○", "━", "─")
ASCII_SIGNS = Signs("+", "x", "*", "o", "=", "-")


def output() -> Console:
    """Standard output."""
    return _console(sys.stdout)


def errors() -> Console:
    """Standard error: errors, hints, questions; never a part of an answer."""
    return _console(sys.stderr)


def clean(text: str) -> str:
    """Text of others as it may be shown on a terminal."""
    return CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def signs(console: Console) -> Signs:
    return ASCII_SIGNS if console.options.ascii_only else SIGNS


def hint(text: str) -> None:
    """What to do next; only for people."""
    console = errors()
    if console.is_terminal:
        console.print(text, style="dim", soft_wrap=True, highlight=False, markup=False)


def note(text: str) -> None:
    """What a reader of the answer should know, in a script, too."""
    errors().print(text, style="yellow", soft_wrap=True, highlight=False, markup=False)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_yaml(value: Mapping[str, Any]) -> None:
    from finetune_operator.kube.yaml_text import yaml_text

    sys.stdout.write(yaml_text(value))


def print_data(value: Mapping[str, Any], form: str) -> None:
    """As `json` or `yaml`."""
    if form == "json":
        print_json(value)
    else:
        print_yaml(value)


def print_line(text: str | Text) -> None:
    output().print(text, soft_wrap=True, highlight=False, markup=False)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], width: int) -> Table:
    """As kubectl lays it out; columns that have no room are left out, the last one that stays is cut."""
    rows = list(rows)
    shown = fitting(columns, rows, width)
    made = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP, 0, 0), header_style="bold")
    for index in shown:
        column = columns[index]
        made.add_column(
            column.name, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis", min_width=3
        )
    for row in rows:
        made.add_row(*(row[index] for index in shown))
    return made


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int) -> list[int]:
    """Which columns are shown; those that are empty in all rows are not."""
    shown = [index for index, column in enumerate(columns) if column.rank == 0 or any(str(row[index]) for row in rows)]
    wide = {
        index: max([cell_len(columns[index].name), *(cell_len(str(row[index])) for row in rows)]) + COLUMN_GAP
        for index in shown
    }
    while sum(wide[index] for index in shown) > width and any(columns[index].rank for index in shown):
        shown.remove(max(shown, key=lambda index: (columns[index].rank, index)))
    return shown


def age(since: str | None, now: datetime) -> str:
    """As kubectl prints it: `45s`, `12m`, `3h20m`, `5d`."""
    return duration((now - datetime.fromisoformat(since)).total_seconds()) if since else ""


def duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 2:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if hours < 8 and minutes % 60 else f"{hours}h"
    return f"{days}d"


def _console(stream: Any) -> Console:
    found = Console(file=stream, highlight=False)
    return found if found.is_terminal else Console(file=stream, highlight=False, width=UNBOUNDED_COLUMNS)
