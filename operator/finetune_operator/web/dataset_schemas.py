"""Bodies of the datasets' interface."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.core.dataset_records import Format
from finetune_operator.core.datasets import rating_difference
from finetune_operator.resources.common import ShortText
from finetune_operator.store.dataset_worker import RatingsCounted
from finetune_operator.store.exported_datasets import FileName, StoredDataset
from finetune_operator.web.dataset_problems import in_request

DIFFERENCES = ("min_rating_difference", "min_confidence_diff")
DATASETS_PATH = "/v1/fine-tuning/datasets"

FormatName = Literal["chatml", "alpaca", "openai", "rawjsonl", "instruction", "dpo", "preference", "gauntlet"]
FORMATS: dict[FormatName, Format] = {
    "chatml": "ChatML",
    "alpaca": "Alpaca",
    "openai": "OpenAI",
    "rawjsonl": "RawJSONL",
    "instruction": "Instruction",
    "dpo": "DPO",
    "preference": "Preference",
    "gauntlet": "Gauntlet",
}
NAMES: dict[Format, FormatName] = {record_format: name for name, record_format in FORMATS.items()}

Limit = Annotated[int, Field(ge=1, le=100_000_000)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Characters = Annotated[int, Field(ge=0, le=100_000)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Selection(_Body):
    """Which ratings are read."""

    philosopher: ShortText | None = None
    """Only judgements of this person."""
    domain: ShortText | None = None
    """Only this domain."""
    task_type: ShortText | None = None
    """Only this type of task."""
    min_confidence: Share | None = None
    """Only rows whose judge was at least this sure."""
    limit: Limit | None = None
    """At most this many rows, the newest first."""


class GoldSelection(Selection):
    """Which ratings are read, and how good they must be."""

    min_rating: Annotated[int, Field(ge=1, le=5)] = 4
    """Lowest rating that is taken; not asked of pairs and of gauntlet, which need bad answers, too."""
    gold_star_only: bool = True
    """Only rows with is_gold_star and use_as_sample_response; not asked of pairs and of gauntlet."""

    def source(self) -> RatingsSource:
        return RatingsSource(**self.model_dump(include=set(GoldSelection.model_fields)))


class ExportRequest(GoldSelection):
    """What to export. Defaults are those of a FineTuneJob, but for the held-out part, which is empty here."""

    format: FormatName = "chatml"
    """Format of the lines."""
    test_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the prompts that goes to test.jsonl instead of train.jsonl."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """Of the order and of the split."""
    min_examples: Annotated[int, Field(ge=1, le=10_000_000)] = 1
    """Refuse to make a dataset of fewer rows."""
    min_prompt_characters: Characters = 10
    """Leave out rows with a shorter prompt."""
    min_response_characters: Characters = 20
    """Leave out rows with a shorter response."""
    max_characters: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Leave out rows whose prompt and response together are longer."""
    min_rating_difference: Annotated[int, Field(ge=1, le=4)] = 1
    """How many points better the chosen answer of a pair must be rated."""
    min_confidence_diff: Share | None = None
    """The same as a share of the scale from 1 to 5: 0.5 are two points. A dataset tells the points."""

    @model_validator(mode="after")
    def _one_difference(self) -> Self:
        if self.min_confidence_diff is not None and "min_rating_difference" in self.model_fields_set:
            raise ValueError("set one of min_rating_difference and min_confidence_diff, not both")
        return self

    def config(self) -> DatasetConfig:
        own = set(ExportRequest.model_fields) - set(GoldSelection.model_fields) - {"format", *DIFFERENCES}
        said = self.min_rating_difference if self.min_confidence_diff is None else None
        points = rating_difference(said, self.min_confidence_diff)
        return DatasetConfig(source=self.source(), min_rating_difference=points, **self.model_dump(include=own))


class SftExportRequest(GoldSelection):
    """Instructions with metadata."""

    def config(self) -> DatasetConfig:
        return DatasetConfig(source=self.source(), test_fraction=0.0)


class DpoExportRequest(Selection):
    """Each prompt's best answer against its worst."""

    min_confidence_diff: Share = 0.0
    """How much better the chosen answer must be rated, as a share of the scale from 1 to 5: 0.5 are two points. Answers
    of the same rating are never a pair."""

    def config(self) -> DatasetConfig:
        source = RatingsSource(**self.model_dump(include=set(Selection.model_fields)))
        points = rating_difference(None, self.min_confidence_diff)
        return DatasetConfig(source=source, test_fraction=0.0, min_rating_difference=points)


class GauntletExportRequest(Selection):
    """All ratings, the attack's type being the type of task."""

    def config(self) -> DatasetConfig:
        source = RatingsSource(**self.model_dump(include=set(Selection.model_fields)))
        return DatasetConfig(source=source, test_fraction=0.0)


class DatasetFile(_Body):
    """One part of a dataset."""

    name: FileName
    rows: int
    bytes: int
    sha256: str
    download_path: str
    """Where it is downloaded, below the api's address."""


class DatasetEntry(_Body):
    """An exported dataset. Who asks for the same rows in the same format again gets the same dataset, whatever the
    filters were by which it was found first."""

    id: str
    format: FormatName
    digest: str
    """`(cat train.jsonl test.jsonl; echo "<rows> <test rows>") | sha256sum`."""
    rows: int
    test_rows: int
    bytes: int
    request: ExportRequest
    """What was asked for when it was made."""
    created_at: datetime
    created_by: str
    dropped: dict[str, int]
    """Rows that were left out, by reason."""
    dropped_rows: dict[str, tuple[str, ...]]
    """The ids of the first of them."""
    warnings: tuple[str, ...]
    files: tuple[DatasetFile, ...]

    @classmethod
    def of(cls, dataset: StoredDataset) -> "DatasetEntry":
        return cls(**_described(dataset))


class ExportedDataset(DatasetEntry):
    """The answer to an export."""

    dataset_path: str
    """train.jsonl on the datasets' volume, as `spec.dataset.volume.path` of a FineTuneJob wants it."""
    sample_count: int
    """Rows of both parts."""
    created: bool
    """False where the same dataset was there already."""

    @classmethod
    def answer(cls, dataset: StoredDataset, *, created: bool) -> "ExportedDataset":
        return cls(
            **_described(dataset),
            dataset_path=f"{dataset.id}/train.jsonl",
            sample_count=dataset.report.rows + dataset.report.test_rows,
            created=created,
        )


class DatasetList(_Body):
    """Datasets, the newest first."""

    datasets: tuple[DatasetEntry, ...]
    total: int
    """How many there are, on this page and on others."""
    bytes: int
    """Of all of them."""
    has_more: bool
    next: str | None
    """`after` of the next page."""


class DatasetRow(_Body):
    """One record, null where it is too long to be shown. Its texts are what people wrote: data, not HTML."""

    bytes: int
    record: JsonValue


class DatasetRows(_Body):
    """Rows in the order of the file."""

    rows: tuple[DatasetRow, ...]
    next_cursor: int | None
    """The `cursor` of the next page; null at the end."""


class FilterRows(_Body):
    """How many ratings are left when this filter has been added to those before it."""

    filter: str
    rows: int


class RatingExample(_Body):
    """One rating, with the beginnings of its texts. They are what people wrote: data, not HTML."""

    prompt: str
    response: str
    rating: str


class RatingStatistics(_Body):
    """The ratings that all filters leave; lengths in characters."""

    rows: int
    by_filter: tuple[FilterRows, ...]
    """Begins with the whole table."""
    emptied_by: str | None
    """The filter that took the last rating; the table itself where it has none, null where some are left."""
    by_domain: dict[str, int]
    by_task_type: dict[str, int]
    by_rating: dict[str, int]
    average_prompt_characters: float
    average_response_characters: float
    examples: tuple[RatingExample, ...]
    """The first ones, by their ids."""

    @classmethod
    def of(cls, counted: RatingsCounted) -> "RatingStatistics":
        left = tuple(FilterRows(filter=in_request(each.filter), rows=each.rows) for each in counted.by_filter)
        emptied = next((each.filter for each in left if not each.rows), None)
        said = counted.model_dump(exclude={"kind", "by_filter"})
        return cls(**said, by_filter=left, emptied_by=emptied)


def _described(dataset: StoredDataset) -> dict[str, Any]:
    config, report = dataset.config, dataset.report
    source = config.source.model_dump(exclude={"kind"})
    rules = config.model_dump(include=set(ExportRequest.model_fields) - {"format"})
    name = NAMES[dataset.format]
    return {
        "id": dataset.id,
        "format": name,
        "digest": report.digest,
        "rows": report.rows,
        "test_rows": report.test_rows,
        "bytes": dataset.bytes,
        "request": ExportRequest.model_validate({**source, **rules, "format": name}),
        "created_at": dataset.created_at,
        "created_by": dataset.created_by,
        "dropped": report.dropped,
        "dropped_rows": report.dropped_rows,
        "warnings": report.warnings,
        "files": tuple(
            DatasetFile(**file.model_dump(), download_path=f"{DATASETS_PATH}/{dataset.id}/files/{file.name}")
            for file in dataset.files
        ),
    }
