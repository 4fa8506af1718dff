"""`bench.gateway.measure` in a process of its own, since it pins itself to one core: the gateway against its peers."""

import json
import operator
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench.gateway.measure import OURS, PEERS, Figures
from bench.report import REPOSITORY, Figure, NotMeasurable, Report

SHOWN_LOG_CHARACTERS = 1500
HOW = "median of 5 rounds, direct and through each gateway in turn"
Judge = Callable[[float, float], bool]
AT_LEAST: tuple[str, Judge] = (">=", operator.ge)
AT_MOST: tuple[str, Judge] = ("<=", operator.le)
GOALS: Mapping[str, tuple[tuple[str, Judge], float]] = {
    "requests/s, one core": (AT_LEAST, 2500),
    "added p50 ms at 100/s": (AT_MOST, 0.5),
    "added p99 ms at 100/s": (AT_MOST, 3),
    "first token beside 200 streams, added p50 ms": (AT_MOST, 1),
    "first token of 200 streams at once, added p50 ms": (AT_MOST, 1),
    "abort reaches the engine, ms": (AT_MOST, 5),
    "idle MiB": (AT_MOST, 80),
    "cold start s": (AT_MOST, 1),
}
RATIO_GOALS: Mapping[str, float] = {"nginx": 0.1, "Portkey": 3, "LiteLLM": 25}
"""Of requests per second and core, ours over theirs."""


def measure() -> Report:
    """All figures of the gateway and its peers; raises NotMeasurable with the end of the log where it fails."""
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
        found: Figures = json.loads(output.read_text())
    return Report(
        tuple(_figures(found["measured"])),
        (
            *(f"{peer}: not measurable: {reason}" for peer, reason in found["not_measurable"].items()),
            "memory and cold start are of the one process of each gateway; added latencies may be queueing, where a "
            "gateway can't hold 100 requests/s",
            "of 200 requests that come in one moment, half wait for the CPU time of 100 others: at 2,500 a second and "
            "core that is 40 ms, whatever passes them on",
        ),
    )


def _figures(found: Mapping[str, Mapping[str, float]]) -> Iterator[Figure]:
    for name, value in found[OURS].items():
        (sign, judge), goal = GOALS.get(name, (AT_LEAST, None))
        told = "" if goal is None else f"{sign} {goal:g}"
        yield Figure(name, _shown(value), HOW, told, None if goal is None else judge(value, goal))
    peers = [peer for peer in PEERS if peer in found]
    for peer in peers:
        goal = RATIO_GOALS[peer]
        ratio = found[OURS]["requests/s, one core"] / found[peer]["requests/s, one core"]
        yield Figure(f"requests/s, ours / {peer}", _shown(ratio), HOW, f">= {goal:g}", ratio >= goal)
    for peer in peers:
        for name, value in found[peer].items():
            yield Figure(f"{peer}: {name}", _shown(value), HOW)


def _shown(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
