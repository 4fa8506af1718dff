"""What is asked: conversations whose last answer is known."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATASETS_ROOT
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
from finetune_operator.core.dataset_records import Format
from finetune_operator.store.datasets.export import Export

Message = dict[str, str]


class _Conversation(BaseModel):
    """TRL's conversational record."""

    model_config = ConfigDict(extra="ignore")

    messages: list[Message]


class _Preference(BaseModel):
    """TRL's preference pair, of which the chosen answer is the right one."""

    model_config = ConfigDict(extra="ignore")

    prompt: list[Message]
    chosen: list[Message]


class _Metadata(BaseModel):
    """Of a rating; files may have anything there."""

    model_config = ConfigDict(extra="ignore")

    domain: str | None = None


class _Instruction(BaseModel):
    """A question and its answer, with what is known of them."""

    model_config = ConfigDict(extra="ignore")

    instruction: str
    output: str
    metadata: _Metadata

    @field_validator("metadata", mode="before")
    @classmethod
    def _only_text_is_a_domain(cls, value: object) -> object:
        domain = value.get("domain") if isinstance(value, dict) else None
        return {"domain": domain if isinstance(domain, str) else None}


_ROW: TypeAdapter[_Conversation | _Preference | _Instruction] = TypeAdapter(_Conversation | _Preference | _Instruction)


@dataclass(frozen=True)
class Question:
    """A conversation up to its last answer, and that answer."""

    messages: tuple[Message, ...]
    last_answer: int
    domain: str | None = None

    @property
    def asked(self) -> list[Message]:
        return list(self.messages[: self.last_answer])

    @property
    def reference(self) -> str:
        return self.messages[self.last_answer]["content"].strip()


@dataclass(frozen=True)
class Questions:
    """Those that can be asked, and how many rows ask nothing."""

    questions: tuple[Question, ...]
    left_out: int


def read_questions(config: ServedEvaluationConfig, environment: Mapping[str, str]) -> Questions:
    """The first `max_examples` rows. Raises `Refused` for what only the user can change."""
    if config.dataset is not None:
        return _exported(config.dataset, config.max_examples, environment)
    path = Path(config.rows_path)
    if not path.exists():
        raise Refused.because(
            FailureReason.DATASET_EMPTY,
            f"there are no held-out rows at {path}",
            "name other questions in spec.evaluation.dataset",
        )
    return _questions(path, config.max_examples)


def _exported(dataset: DatasetConfig, limit: int, environment: Mapping[str, str]) -> Questions:
    with tempfile.TemporaryDirectory(prefix="questions-") as directory:
        # Where domains are known, in the format that has room for them.
        knows_domains = isinstance(dataset.source, RatingsSource) or dataset.format == "Instruction"
        written: Format = "Instruction" if knows_domains else "ChatML"
        Export(dataset, written, Path(DATASETS_ROOT), environment, Path(directory)).write()
        return _questions(Path(directory) / "train.jsonl", limit)


def _questions(path: Path, limit: int) -> Questions:
    found: dict[str, Question] = {}
    rows = 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if rows == limit:
                break
            question = _question(line, number, path)
            # An answer that two people rated is written twice where their ratings are written with it.
            exchange = json.dumps(question.messages) if question else ""
            if exchange in found:
                continue
            rows += 1
            if question:
                found[exchange] = question
    if not found:
        fact = f"{path.name} has no row with a question and its answer" if rows else f"{path.name} is empty"
        remedy = "name other questions in spec.evaluation.dataset, or hold out more rows in the next training"
        raise Refused.because(FailureReason.DATASET_EMPTY, fact, remedy)
    return Questions(tuple(found.values()), rows - len(found))


def _question(line: str, number: int, path: Path) -> Question | None:
    try:
        row = _ROW.validate_python(json.loads(line))
    except (ValueError, ValidationError) as error:
        cause = str(error).splitlines()[0]
        raise Refused.because(
            FailureReason.DATASET_INVALID,
            f"{path.name} line {number} is no conversation: {cause}",
            "correct the row, or name other questions in spec.evaluation.dataset",
        ) from None
    if isinstance(row, _Instruction):
        asked, answer = {"role": "user", "content": row.instruction}, {"role": "assistant", "content": row.output}
        return Question((asked, answer), 1, row.metadata.domain)
    messages = tuple(row.messages if isinstance(row, _Conversation) else row.prompt + row.chosen)
    answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if not answers or answers[-1] == 0 or "content" not in messages[answers[-1]]:
        return None
    return Question(messages, answers[-1])
