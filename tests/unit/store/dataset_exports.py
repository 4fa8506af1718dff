"""Exports as a preparation makes them, of ratings or of a file, and the lines that they write."""

from pathlib import Path
from typing import Any

from finetune_operator.contract.dataset import DatasetConfig, DatasetReport, RatingsSource, VolumeSource
from finetune_operator.contract.places import DATABASE_URL_VARIABLE
from finetune_operator.core.dataset_records import Format
from finetune_operator.store.datasets.export import Export


def export(
    directory: Path, config: DatasetConfig, url: str = "", output_format: Format = "ChatML", **environment: str
) -> DatasetReport:
    directory.mkdir(exist_ok=True)
    volume = directory.parent / "volume"
    return Export(config, output_format, volume, {DATABASE_URL_VARIABLE: url, **environment}, directory).write()


def lines(directory: Path) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    def part(name: str) -> tuple[bytes, ...]:
        content = (directory / name).read_bytes()
        assert content.endswith(b"\n") or not content
        return tuple(content.split(b"\n")[:-1])

    return part("train.jsonl"), part("test.jsonl")


def from_ratings(**changes: Any) -> DatasetConfig:
    source = RatingsSource(**changes.pop("source", {}))
    return DatasetConfig(source=source, database_timeout_seconds=5.0, **changes)


def put(directory: Path, content: bytes, name: str = "rows") -> VolumeSource:
    volume = directory.parent / "volume"
    volume.mkdir(exist_ok=True)
    (volume / name).write_bytes(content)
    return VolumeSource(path=name)
