"""How long each stage of the demo took, as `make demo` wrote it down."""

import json
from datetime import UTC, datetime

from bench.report import Figure, NotMeasurable, Report
from local_cluster.layout import cache_root


def measure() -> Report:
    """The last demo that came to its end; raises NotMeasurable where there was none."""
    file = cache_root() / "demo-durations.json"
    if not file.exists():
        raise NotMeasurable(f"{file} is missing: run `make demo` first")
    stages: dict[str, float] = json.loads(file.read_text())
    how = "wall clock of the demo"
    figures = [Figure(title, f"{seconds:.1f} s", how) for title, seconds in stages.items()]
    figures.append(Figure("all", f"{sum(stages.values()):.1f} s", "sum"))
    ended = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    note = (
        f"the demo that ended at {ended:%Y-%m-%d %H:%M} UTC; cold where it had to build cluster, images or base model"
    )
    return Report(tuple(figures), (note,))
