"""What the pod of a batch inference is told, and what it says that it has made."""

from typing import Literal

from finetune_operator.contract.base import Message
from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.training import JobIdentity


class AskedModel(Message):
    """One model that gets every row, and the engine that has it loaded."""

    served_name: str
    engine_url: str


class SamplingConfig(Message):
    """OpenAI's parameters of an answer, the same for every row; greedy at a temperature of 0."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


class VotingConfig(Message):
    """Which ABTest gets the first pairs of answers; the first model is its candidate, the second its baseline."""

    url: str
    max_pairs: int


class BatchInferenceConfig(Message):
    """What to ask whom. With `prompts_alone` the rows are prompts without answers; else the last answer is not told.

    `limit` is of rows; absent, all are asked. `progress_url` and `answers_url` are absent where there is no api.
    """

    batch: JobIdentity
    models: tuple[AskedModel, ...]
    dataset: DatasetConfig
    prompts_alone: bool = False
    sampling: SamplingConfig = SamplingConfig()
    max_concurrent_requests: int = 8
    limit: int | None = None
    progress_url: str | None = None
    answers_url: str | None = None
    voting: VotingConfig | None = None


class ResultFile(Message):
    """The answers of one model, a line a row in the order of the rows; `name` is relative to the batch's directory.

    `failed` rows have a line, too; `first_error` is of the first of them.
    """

    served_name: str
    name: str
    rows: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    size_bytes: int
    sha256: str
    first_error: str | None = None


class BatchReport(Message):
    """`manifest.json` beside the results, written last, and the termination message: its existence proves that the
    results are complete. `digest` is over names and sha256 of the files; `pairs` are those that an
    ABTest was given.
    """

    kind: Literal["BatchReport"] = "BatchReport"
    rows: int
    files: tuple[ResultFile, ...]
    digest: str
    pairs: int | None = None
