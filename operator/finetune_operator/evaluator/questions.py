"""What is asked: conversations whose last answer is known."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.failures import FailureReason, Refused
from finetune_operator.contract.places import DATASETS_ROOT
from finetune_operator.contract.served_evaluation import ServedEvaluationConfig
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


_ROW: TypeAdapter[_Conversation | _Preference] = TypeAdapter(_Conversation | _Preference)


@dataclass(frozen=True)
class Question:
    """A conversation up to its last answer, and that answer."""

    messages: tuple[Message, ...]
    last_answer: int

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
        Export(dataset, "ChatML", Path(DATASETS_ROOT), environment, Path(directory)).write()
        return _questions(Path(directory) / "train.jsonl", limit)


def _questions(path: Path, limit: int) -> Questions:
    found: list[Question] = []
    rows = 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if rows == limit:
                break
            rows += 1
            if question := _question(line, number, path):
                found.append(question)
    if not found:
        fact = f"{path.name} has no row with a question and its answer" if rows else f"{path.name} is empty"
        remedy = "name other questions in spec.evaluation.dataset, or hold out more rows in the next training"
        raise Refused.because(FailureReason.DATASET_EMPTY, fact, remedy)
    return Questions(tuple(found), rows - len(found))


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
    messages = tuple(row.messages if isinstance(row, _Conversation) else row.prompt + row.chosen)
    answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    if not answers or answers[-1] == 0 or "content" not in messages[answers[-1]]:
        return None
    return Question(messages, answers[-1])
