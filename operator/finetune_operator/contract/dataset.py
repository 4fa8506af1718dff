"""What the prepare container is asked for and what it reports."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_operator.contract.base import Message


class RatingsSource(Message):
    """Rows of `ml_analysis_rating`; the database's URL comes in `DATABASE_URL_VARIABLE`."""

    kind: Literal["Ratings"] = "Ratings"
    philosopher: str | None = None
    domain: str | None = None
    task_type: str | None = None
    min_rating: int = 4
    gold_star_only: bool = True
    limit: int | None = None


class VolumeSource(Message):
    """One JSONL file below `DATASETS_ROOT`, each line a record of the chosen format."""

    kind: Literal["Volume"] = "Volume"
    path: str


class DatasetConfig(Message):
    """How the prepare container makes `train.jsonl` and `test.jsonl`.

    Whatever `format` the source has, their lines are TRL's conversational records: `{"messages": [...]}` for SFT,
    `{"prompt": [...], "chosen": [...], "rejected": [...]}` for DPO.
    """

    source: Annotated[RatingsSource | VolumeSource, Field(discriminator="kind")]
    format: Literal["ChatML", "Alpaca", "OpenAI", "DPO"] = "ChatML"
    test_fraction: float = 0.1
    min_examples: int = 1
    min_prompt_characters: int = 10
    min_response_characters: int = 20
    min_rating_difference: int = 1
    seed: int = 42
    database_timeout_seconds: float = 60.0


class DatasetReport(Message):
    """What the prepare container made, written last: its existence proves that the dataset is complete."""

    rows: int
    test_rows: int
    digest: str
    dropped: dict[str, int] = {}
    warnings: tuple[str, ...] = ()
