"""A pod whose prepare container runs in this process: a config file in, files and a termination message out."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource, VolumeSource
from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import DATABASE_URL_VARIABLE, JobPaths
from finetune_operator.contract.training import JobIdentity, LoraConfig, TrainingConfig, TrainingParameters
from finetune_operator.store import prepare
from tests.unit.store.ratings_database import write_ratings

VOLUME = VolumeSource(path="data.jsonl")


@dataclass
class Pod:
    """A pod's file system."""

    root: Path
    url: str = ""
    surroundings: prepare.Surroundings = field(init=False)

    def __post_init__(self) -> None:
        self.surroundings = prepare.Surroundings(
            self.root / "models", self.root / "datasets", self.root / "artifacts", self.root / "termination-log"
        )
        for directory in (self.surroundings.models / "tiny", self.surroundings.datasets, self.surroundings.artifacts):
            directory.mkdir(parents=True)
        (self.surroundings.models / "tiny" / "config.json").write_text("{}")

    def ratings(self, *rows: dict[str, Any]) -> "Pod":
        self.url = write_ratings(self.root / "ratings.db", rows)
        return self

    def file(self, *lines: str) -> "Pod":
        (self.surroundings.datasets / "data.jsonl").write_text("\n".join(lines))
        return self

    def run(self, config: TrainingConfig) -> int:
        config_file = self.root / "training.json"
        config_file.write_text(config.model_dump_json(by_alias=True))
        return prepare.main(config_file, self.surroundings, {DATABASE_URL_VARIABLE: self.url})

    @property
    def report(self) -> DatasetReport:
        return DatasetReport.model_validate_json(self.surroundings.termination_log.read_bytes())

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json(self.surroundings.termination_log.read_bytes())

    def path(self, name: str) -> Path:
        return Path(JobPaths("ns", "plato", "uid-1", str(self.surroundings.artifacts)).dataset) / name

    def rows(self, part: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(f"{part}.jsonl").read_bytes().splitlines()]


def config(method: str = "SFT", base_model_path: str = "tiny", **dataset: Any) -> TrainingConfig:
    source = dataset.pop("source", None) or RatingsSource()
    return TrainingConfig(
        job=JobIdentity(namespace="ns", name="job", uid="uid-1"),
        model="plato",
        method="DPO" if method == "DPO" else "SFT",
        backend="Unsloth",
        base_model_name="tiny",
        base_model_path=base_model_path,
        dataset=DatasetConfig(source=source, database_timeout_seconds=0.3, **dataset),
        lora=LoraConfig(),
        training=TrainingParameters(),
    )


def prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}
