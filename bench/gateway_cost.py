"""`bench.gateway.measure` in a process of its own, since it pins itself to one core."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import REPOSITORY, Figure, NotMeasurable, Report

SHOWN_LOG_CHARACTERS = 1500
HOW = "median of 5 rounds, direct and through the gateway in turn"


def measure() -> Report:
    """All figures of the gateway; raises NotMeasurable with the end of its log where it fails."""
    if len(os.sched_getaffinity(0)) < 2:
        raise NotMeasurable(
            "the gateway and its load need a core each, and there is one: run this on two cores or more"
        )
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "figures.json"
        command = [sys.executable, "-m", "bench.gateway.measure", "--output", str(output)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotMeasurable(f"`{' '.join(command[1:])}` failed: {done.stderr[-SHOWN_LOG_CHARACTERS:].strip()}")
        figures: dict[str, float] = json.loads(output.read_text())
    return Report(
        tuple(Figure(name, f"{value:.3g}" if value < 100 else f"{value:.0f}", HOW) for name, value in figures.items()),
        ("memory and cold start are of the one gateway process of the run",),
    )
