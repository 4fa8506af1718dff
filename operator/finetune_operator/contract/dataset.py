"""What the prepare container is asked for and what it reports."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_operator.contract.base import Message
from finetune_operator.contract.preflight import Preflight


class RatingsSource(Message):
    """Rows of `ml_analysis_rating`; the database's URL comes in `DATABASE_URL_VARIABLE`."""

    kind: Literal["Ratings"] = "Ratings"
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None
    min_rating: int = 4
    min_confidence: float | None = None
    gold_star_only: bool = True
    limit: int | None = None


class VolumeSource(Message):
    """One JSONL or Parquet file below `DATASETS_ROOT`, each row a record of the chosen format."""

    kind: Literal["Volume"] = "Volume"
    path: str


class ObjectSource(Message):
    """One JSONL or Parquet object of an S3-compatible store; AWS's own variables carry the credentials."""

    kind: Literal["Object"] = "Object"
    url: str
    endpoint: str | None = None


class StoredSource(Message):
    """One JSONL file that the api keeps; the token to fetch it comes in `INTERNAL_TOKEN_VARIABLE`.

    `path` is `<id>/<file>`, and an uploaded file's id begins its SHA-256. `url` is absent where the operator knows no
    api.
    """

    kind: Literal["Stored"] = "Stored"
    path: str
    url: str | None = None


class DatasetConfig(Message):
    """How the prepare container makes `train.jsonl` and `test.jsonl`.

    With `validation` its rows are `test.jsonl`, and none are held out.

    Whatever `format` the source has, their lines are TRL's conversational records: `{"messages": [...]}` for SFT,
    `{"prompt": [...], "chosen": [...], "rejected": [...]}` for DPO.
    """

    source: Annotated[RatingsSource | VolumeSource | ObjectSource | StoredSource, Field(discriminator="kind")]
    validation: StoredSource | None = None
    format: Literal["ChatML", "Alpaca", "OpenAI", "RawJSONL", "Instruction", "DPO", "Preference"] = "ChatML"
    test_fraction: float = 0.1
    min_examples: int = 1
    min_prompt_characters: int = 10
    min_response_characters: int = 20
    max_characters: int = 1_000_000
    min_rating_difference: int = 1
    max_bytes: int = 10 * 1024**3
    seed: int = 42
    database_timeout_seconds: float = 60.0


class DatasetReport(Message):
    """What the prepare container made, written last: its existence proves that the dataset is complete.

    `dropped` counts the rows that were left out by reason; `dropped_rows` names the first few of each by the number of
    the row in a file or its id in a database; for a duplicate it is the row that was kept, as its line: train.jsonl:12.
    """

    rows: int
    test_rows: int
    digest: str
    preflight: Preflight | None = None
    dropped: dict[str, int] = {}
    dropped_rows: dict[str, tuple[str, ...]] = {}
    warnings: tuple[str, ...] = ()
