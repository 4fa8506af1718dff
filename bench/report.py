"""What a benchmark hands back, and how it is shown."""

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class NotMeasurable(Exception):
    """A precondition is missing; the message says what to do about it."""


@dataclass(frozen=True)
class Figure:
    """One measured value. `met` is None where there is no goal."""

    name: str
    value: str
    how: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Report:
    """What one benchmark measured."""

    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


def facts() -> list[str]:
    """What the figures depend on besides the code."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit or 'unknown'}",
        f"machine: {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.machine()}",
        f"load average before: {load} (anything above 0 is somebody else's work in the figures)",
    ]


def table(report: Report) -> str:
    """The figures in Markdown, its columns aligned; then the notes."""
    verdicts = {None: "", True: "met", False: "MISSED"}
    rows = [(figure.name, figure.value, figure.goal, verdicts[figure.met], figure.how) for figure in report.figures]
    lines = list(_aligned([("figure", "value", "goal", "", "how measured"), *rows]))
    return "\n".join([*lines, *(f"- {note}" for note in report.notes)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
