"""What a FineTuneJob trains on: where the rows come from, and which of them are taken."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.resources.common import (
    ApiModel,
    DnsSubdomain,
    Fraction,
    SecretKeyRef,
    ShortText,
    VolumeRef,
    at_most_one,
    exactly_one,
    rules,
)


class DatasetFormat(StrEnum):
    """Record formats; a DPO job reads preference pairs whatever is set here."""

    CHAT_ML = "ChatML"
    ALPACA = "Alpaca"
    OPEN_AI = "OpenAI"
    RAW_JSONL = "RawJSONL"
    INSTRUCTION = "Instruction"


class SecretRef(ApiModel):
    """A Secret in the same namespace, whose keys have fixed names."""

    name: DnsSubdomain
    """Name of the Secret."""


class Ratings(ApiModel):
    """Rows of the table `ml_analysis_rating`."""

    secret_ref: SecretKeyRef = SecretKeyRef(name="ratings-db", key="url")
    """Where the database's URL is kept, such as `postgresql://user:password@host/db`; the key `url` of the Secret
    `ratings-db` where absent."""
    claim_name: DnsSubdomain | None = None
    """Volume of an SQLite database, mounted at /ratings; absent for a database server."""
    philosopher: ShortText | None = None
    """Only judgements of this person."""
    domain: ShortText | None = None
    """Only this domain."""
    task_type: ShortText | None = None
    """Only this type of task."""
    min_rating: Annotated[int, Field(ge=1, le=5)] = 4
    """Lowest rating that is taken (SFT)."""
    min_confidence: Fraction | None = None
    """Only rows whose judge was at least this sure."""
    gold_star_only: bool = True
    """Only rows with is_gold_star and use_as_sample_response (SFT)."""
    limit: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Take at most this many rows, the newest first."""


class ObjectRef(ApiModel):
    """A file in an S3-compatible store."""

    url: Annotated[str, Field(max_length=1024, pattern=r"^s3://[a-z0-9][-.a-z0-9]{1,62}/.+$")]
    """Such as `s3://bucket/path/rows.parquet`."""
    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://[^/@ ]+$")] | None = None
    """The store's address; AWS where absent."""
    secret_ref: SecretRef | None = None
    """A Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; absent for a public object."""


STORED_PATH = r"^[a-z]{3,16}-[0-9a-f]{32}/(train|test|data)\.jsonl$"
StoredPath = Annotated[str, Field(max_length=64, pattern=STORED_PATH)]


class StoredFiles(ApiModel):
    """Files that the api keeps: uploaded ones, and exported datasets."""

    path: StoredPath
    """`<id>/<file>`: `file-<digest>/data.jsonl` for an uploaded file, or `dataset_path` of an exported dataset."""
    validation_path: StoredPath | None = None
    """The rows to evaluate by, of the same format; where absent, testFraction of the prompts is held out."""


class StoredFile(ApiModel):
    """A file that the api keeps: an uploaded one, or one of an exported dataset."""

    path: StoredPath
    """`<id>/<file>`: `file-<digest>/data.jsonl` for an uploaded file, or `dataset_path` of an exported dataset."""


class Dataset(ApiModel):
    """What to train on."""

    model_config = rules(
        exactly_one("ratings", "volume", "s3", "stored"), at_most_one("minRatingDifference", "minConfidenceDiff")
    )

    ratings: Ratings | None = None
    """Export from a ratings database."""
    volume: VolumeRef | None = None
    """A JSONL or Parquet file on a volume."""
    s3: ObjectRef | None = None
    """A JSONL or Parquet file in an S3-compatible store."""
    stored: StoredFiles | None = None
    """Files of the api, which are fetched when the training is prepared; no volume is needed."""
    format: DatasetFormat = DatasetFormat.CHAT_ML
    """Format of the records (SFT)."""
    test_fraction: Fraction = "0.1"
    """Share of prompts that is held out for evaluation."""
    min_examples: Annotated[int, Field(ge=1, le=10_000_000)] = 50
    """Refuse to train on fewer rows than this."""
    min_prompt_characters: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Drop rows with a shorter prompt."""
    min_response_characters: Annotated[int, Field(ge=0, le=100_000)] = 20
    """Drop rows with a shorter response."""
    max_characters: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000
    """Drop rows whose prompt and response together are longer."""
    min_rating_difference: Annotated[int, Field(ge=1, le=4)] | None = None
    """How many points better the chosen answer of a pair must be rated (DPO); 1 where neither difference is set."""
    min_confidence_diff: Fraction | None = None
    """The same as a share of the scale from 1 to 5: 0.5 are two points."""
    max_bytes: Annotated[int, Field(ge=1, le=10_000_000_000_000)] = 10 * 1024**3
    """Refuse a dataset whose rows have more bytes than this, so that a small compressed file can't fill the volume."""
