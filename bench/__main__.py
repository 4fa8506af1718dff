"""Run benchmarks by name, or all of them: python -m bench [name ...]

Figures compare within one run only. Exit code 1 where a figure could not be measured; a missed goal is shown, and is
no error.
"""

import argparse
import sys
from collections.abc import Callable, Mapping

from bench import (
    api_writes,
    backend_speed,
    dataset_export,
    demo_stages,
    gateway_cost,
    hot_load,
    packing_speed,
    pages_at_scale,
    resume_overhead,
    route_change,
    trainer_overhead,
    vote_statistics,
)
from bench.report import NotMeasurable, Report, facts, table

BENCHMARKS: Mapping[str, tuple[str, Callable[[], Report]]] = {
    "api_writes": ("Kubernetes API requests of a FineTuneJob's life", api_writes.measure),
    "route_change": ("A ModelVersion written to the first answer by the new route, under load", route_change.measure),
    "hot_load": ("ModelVersion created to its first token, against a bare load and a pod restart", hot_load.measure),
    "hot_load_large": ("The same with an adapter of 100 MB", hot_load.measure_large),
    "trainer_overhead": ("Steps per second with and without the product's callbacks", trainer_overhead.measure),
    "resume_overhead": ("What one interruption adds to a training's steps", resume_overhead.measure),
    "packing": ("Tokens per second packed and unpacked, on skewed lengths", packing_speed.measure),
    "backends": ("Unsloth against HuggingFace on the same rows", backend_speed.measure),
    "dataset_export": ("A million ratings to a dataset, against DuckDB's own copy", dataset_export.measure),
    "demo_stages": ("Time of each stage of the last `make demo`", demo_stages.measure),
    "pages_at_scale": ("Lists and pages with 100,000 trainings and a million votes", pages_at_scale.measure),
    "vote_statistics": ("What one vote costs the statistics of an ABTest", vote_statistics.measure),
    "gateway": ("What the gateway costs", gateway_cost.measure),
}


def main() -> int:
    names = "\n".join(f"  {name:18}{title}" for name, (title, _) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="all where none is given")
    chosen = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(chosen) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print("\n".join(facts()), flush=True)
    missing: list[str] = []
    for name in chosen:
        title, measure = BENCHMARKS[name]
        print(f"\n## {name}: {title}\n", flush=True)
        try:
            print(table(measure()), flush=True)
        except NotMeasurable as error:
            missing.append(name)
            print(f"NOT MEASURED: {error}", flush=True)
    if missing:
        print(f"\nnot measured: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
