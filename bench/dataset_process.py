"""One run of `bench.dataset_export`, in a process that imports nothing else, since its memory is measured."""

import json
import os
import sys
import time
from pathlib import Path


def _copy(address: str, directory: Path) -> str:
    import duckdb

    from finetune_operator.store.datasets.engine import load_scanner

    connection = duckdb.connect(config={"threads": 1, "preserve_insertion_order": False})
    load_scanner(connection, "sqlite" if "TYPE sqlite" in address else "postgresql")
    connection.execute(f"ATTACH {address}")
    connection.execute(
        "COPY (SELECT [{'role': 'user', 'content': prompt}, {'role': 'assistant', 'content': response}] AS messages "  # noqa: S608 - the directory is ours
        "FROM source.ml_analysis_rating WHERE is_gold_star::BOOLEAN AND use_as_sample_response::BOOLEAN "
        f"AND rating >= 4) TO '{directory}/copy.jsonl' (FORMAT json)"
    )
    return ""


def _export(address: str, directory: Path) -> str:
    from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
    from finetune_operator.contract.places import DATABASE_URL_VARIABLE
    from finetune_operator.store.datasets.export import Export

    config = DatasetConfig(source=RatingsSource())
    return Export(config, "ChatML", Path(), {DATABASE_URL_VARIABLE: address}, directory).write().digest


def main() -> None:
    what, directory, address = sys.argv[1], Path(sys.argv[2]), os.environ["DATASET_EXPORT_ADDRESS"]

    if what == "export":
        import finetune_operator.store.datasets.export  # noqa: F401 - imported before the clock starts
    else:
        import duckdb  # noqa: F401 - as above
    begun, used = time.perf_counter(), time.process_time()
    digest = (_copy if what == "copy" else _export)(address, directory)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - used
    highest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    memory_mb = int(highest.split()[1]) * 1024 / 1e6
    told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": memory_mb, "digest": digest}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
