"""A batch inference of a few sums, whose engine is a double, and the files that it leaves."""

import asyncio
import json
from pathlib import Path
from typing import Any

from finetune_operator.contract.batch_inference import AskedModel, BatchInferenceConfig, BatchReport, SamplingConfig
from finetune_operator.contract.dataset import DatasetConfig, VolumeSource
from finetune_operator.contract.places import BatchPaths
from finetune_operator.contract.training import JobIdentity
from finetune_operator.evaluator.batch import Surroundings, run
from tests.unit.evaluator.engine_double import IMPATIENT, KEY, EngineDouble

BASE, TUNED = "org/tiny", "plato-v2"
ANSWERS = {f"{number}+{number}?": f"it is {2 * number}" for number in range(12)}
BATCH = JobIdentity(namespace="finetune", name="sums", uid="uid-1")


def double(**options: Any) -> EngineDouble:
    return EngineDouble({BASE: {}, TUNED: dict(ANSWERS)}, **options)


def surroundings(directory: Path, **environment: str) -> Surroundings:
    return Surroundings(
        artifacts=directory / "artifacts",
        termination_log=directory / "termination-log",
        environment={"VLLM_API_KEY": KEY, "POD_NAME": "batch-1", **environment},
        patience=IMPATIENT,
        progress_seconds=0.02,
    )


def write_rows(directory: Path, *rows: Any) -> None:
    (directory / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def config_of(engine: EngineDouble, *names: str, **changes: Any) -> BatchInferenceConfig:
    config = BatchInferenceConfig(
        batch=BATCH,
        models=tuple(AskedModel(served_name=name, engine_url=engine.url) for name in names or (TUNED,)),
        dataset=DatasetConfig(
            source=VolumeSource(path="q.jsonl"), test_fraction=0.0, min_prompt_characters=1, min_response_characters=1
        ),
        prompts_alone=True,
        sampling=SamplingConfig(max_tokens=16),
        max_concurrent_requests=3,
    )
    return config.model_copy(update=changes)


async def asked(engine: EngineDouble, directory: Path, *names: str, **changes: Any) -> BatchReport:
    async with engine.running():
        return await asyncio.to_thread(run, config_of(engine, *names, **changes), surroundings(directory))


def paths_in(directory: Path) -> BatchPaths:
    return BatchPaths("finetune", "uid-1", str(directory / "artifacts"))


def lines_of(directory: Path, name: str = TUNED) -> list[bytes]:
    return Path(paths_in(directory).answers(name)).read_bytes().splitlines(keepends=True)


def manifest_in(directory: Path) -> BatchReport:
    return BatchReport.model_validate_json(Path(paths_in(directory).manifest).read_bytes())


def questions_asked(engine: EngineDouble) -> list[str]:
    return [body["messages"][-1]["content"] for body in engine.asked]
