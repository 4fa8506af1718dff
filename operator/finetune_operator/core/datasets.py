"""What becomes a training row: formats, quality rules, pairs, the split and the digest.

Pure; `store.prepare` feeds it rows and writes what it decides. Rows are ordered by a keyed hash of their content, so
that the same data gives the same files whatever database they come from and in whatever order.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.contract.dataset import DatasetConfig
from finetune_operator.contract.failures import Failure, FailureReason

RECOMMENDED_EXAMPLES = 500
SHOWN_REASON_MAX_CHARACTERS = 300


class DropReason(StrEnum):
    """Why a row is left out."""

    SHORT_PROMPT = "ShortPrompt"
    SHORT_RESPONSE = "ShortResponse"
    LOW_RATING = "LowRating"
    DUPLICATE = "Duplicate"
    NO_PAIR = "NoPair"


class InvalidRecord(ValueError):
    """A line that is not a record of the chosen format; the text says what is wrong with it."""


class Refused(Exception):
    """No dataset can be made of this until the user changes something."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @classmethod
    def because(cls, reason: FailureReason, message: str, remedy: str) -> "Refused":
        return cls(Failure(reason=reason, message=message, remedy=remedy))


class Record(NamedTuple):
    """One training row: what the rules look at (of a pair, the chosen response), and its line in the file."""

    prompt: str
    response: str
    line: bytes


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ChatMessage(_Input):
    """One message, in OpenAI's form."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(_Input):
    """A ChatML or OpenAI record."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=2, strict=False)]


class MarkedUpConversation(_Input):
    """A ChatML record as text with `<|im_start|>` marks."""

    text: str


class Instruction(_Input):
    """An Alpaca record."""

    instruction: str
    input: str = ""
    output: str


class Preference(_Input):
    """A DPO record: plain texts, or messages."""

    prompt: str | Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False)]
    chosen: str | Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False)]
    rejected: str | Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False)]


CHAT_ML_MESSAGE = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>", re.DOTALL)

EXPECTED: Mapping[str, str] = {
    "ChatML": '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]} '
    'or {"text": "<|im_start|>user\\n...<|im_end|>..."}',
    "OpenAI": '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
    "Alpaca": '{"instruction": "...", "input": "", "output": "..."}',
    "DPO": '{"prompt": "...", "chosen": "...", "rejected": "..."}',
}


def parse_record(line: bytes, record_format: str) -> Record:
    """Read one JSON line of a volume's file. Raises `InvalidRecord`."""
    try:
        match record_format:
            case "Alpaca":
                return _alpaca(Instruction.model_validate_json(line))
            case "DPO":
                return _preference(Preference.model_validate_json(line))
            case "ChatML" if _has_marked_up_text(line):
                return _conversation(_chat_ml(MarkedUpConversation.model_validate_json(line).text))
            case _:
                return _conversation(Conversation.model_validate_json(line).messages)
    except ValidationError as error:
        raise InvalidRecord(_explain(error)) from None


def question_and_answer(prompt: str, response: str) -> Record:
    """One rating as an SFT row."""
    messages = (ChatMessage(role="user", content=prompt), ChatMessage(role="assistant", content=response))
    return _conversation(messages)


def pair(prompt: str, chosen: str, rejected: str) -> Record:
    """Two ratings of one prompt as a DPO row."""
    return _preference(Preference(prompt=prompt, chosen=chosen, rejected=rejected))


def quality(record: Record, config: DatasetConfig) -> DropReason | None:
    """Whether a row is worth training on; an empty text never is."""
    if len(record.prompt.strip()) < max(1, config.min_prompt_characters):
        return DropReason.SHORT_PROMPT
    if len(record.response.strip()) < max(1, config.min_response_characters):
        return DropReason.SHORT_RESPONSE
    return None


class RatedAnswer(NamedTuple):
    """One answer to a prompt and the mean of its ratings."""

    response: str
    rating: float


def best_pair(answers: Sequence[RatedAnswer], min_rating_difference: int) -> tuple[str, str] | None:
    """The best answer against the worst, if they are far enough apart; equal ratings are told apart by their text."""
    if not answers:
        return None
    best = max(answers, key=lambda answer: (answer.rating, answer.response))
    worst = min(answers, key=lambda answer: (answer.rating, answer.response))
    if best.rating - worst.rating < min_rating_difference:
        return None
    return best.response, worst.response


def order_key(line: bytes, seed: int) -> bytes:
    """Where a row stands in its file; equal lines are duplicates."""
    return hashlib.blake2b(line, digest_size=16, key=_key("order", seed)).digest()


def prompt_key(prompt: str, seed: int) -> bytes:
    """By which a prompt goes to one part, with all its rows."""
    return hashlib.blake2b(prompt.strip().encode(), digest_size=16, key=_key("split", seed)).digest()


def held_out_prompts(prompt_keys: Iterable[bytes], test_fraction: float) -> frozenset[bytes]:
    """The prompts of the test part: a fixed share, at least one and not all where there are two or more."""
    ordered = sorted(set(prompt_keys))
    if test_fraction <= 0 or len(ordered) < 2:
        return frozenset()
    count = min(max(round(test_fraction * len(ordered)), 1), len(ordered) - 1)
    return frozenset(ordered[:count])


class Digest:
    """sha256 over both parts in the order of their files."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def begin(self, part: str) -> None:
        self._hash.update(f"{part}\n".encode())

    def add(self, line: bytes) -> None:
        self._hash.update(line + b"\n")

    def __str__(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class FilterCount(NamedTuple):
    """How many rows are left when this filter has been added to those before it."""

    filter: str
    rows: int


def emptied_by(counts: Sequence[FilterCount]) -> Failure:
    """Which filter took the last row. `counts` starts with the whole table and ends with no rows."""
    previous = FilterCount("the table ml_analysis_rating", 0)
    for count in counts:
        if count.rows == 0:
            break
        previous = count
    else:
        raise ValueError("no filter emptied the dataset")
    if count is counts[0]:
        message = "the table ml_analysis_rating has no rows"
        remedy = "collect ratings first, or point ratings.secretRef at the database that has them"
    else:
        message = f"{count.filter} leaves none of the {previous.rows} rows that the filters before it leave"
        remedy = f"relax {count.filter} in spec.dataset.ratings"
    return Failure(reason=FailureReason.DATASET_EMPTY, message=message, remedy=remedy)


def size_failure(kept: int, dropped: Mapping[str, int], config: DatasetConfig, method: str) -> Failure | None:
    """Whether enough rows are left; the message counts what was dropped and why."""
    total = kept + sum(dropped.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()) if count)
    if kept == 0 and method == "DPO" and dropped.get(DropReason.NO_PAIR):
        return Failure(
            reason=FailureReason.DATASET_EMPTY,
            message=f"no prompt has two answers whose ratings differ by {config.min_rating_difference} or more "
            f"({total} ratings read; dropped: {reasons})",
            remedy="rate several answers to the same prompt, or lower dataset.minRatingDifference",
        )
    if total == 0:
        return Failure(
            reason=FailureReason.DATASET_EMPTY,
            message="the dataset has no rows",
            remedy="point dataset.volume.path at a file with rows",
        )
    if kept < config.min_examples or kept == 0:
        return Failure(
            reason=FailureReason.DATASET_TOO_SMALL,
            message=f"{kept} of {total} rows are left, dataset.minExamples is {config.min_examples}"
            + (f"; dropped: {reasons}" if reasons else ""),
            remedy=_remedy_for(dropped),
        )
    return None


def size_warnings(kept: int) -> tuple[str, ...]:
    if kept >= RECOMMENDED_EXAMPLES:
        return ()
    return (f"{kept} examples; {RECOMMENDED_EXAMPLES} or more are recommended",)


def _remedy_for(dropped: Mapping[str, int]) -> str:
    remedies = {
        DropReason.SHORT_PROMPT: "lower dataset.minPromptCharacters",
        DropReason.SHORT_RESPONSE: "lower dataset.minResponseCharacters",
        DropReason.LOW_RATING: "lower dataset.ratings.minRating",
        DropReason.DUPLICATE: "remove what makes the rows equal",
        DropReason.NO_PAIR: "lower dataset.minRatingDifference",
    }
    largest = max(dropped, key=lambda reason: dropped[reason], default=None)
    hint = f", or {remedies[DropReason(largest)]}" if largest is not None and dropped[largest] else ""
    return f"add data, or lower dataset.minExamples{hint}"


def _key(purpose: str, seed: int) -> bytes:
    return f"{purpose}:{seed}".encode()


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _dump(messages: Iterable[ChatMessage]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _conversation(messages: Sequence[ChatMessage]) -> Record:
    prompt = next((message.content for message in messages if message.role == "user"), None)
    if prompt is None or messages[-1].role != "assistant":
        raise InvalidRecord("a conversation needs a message of the user and must end with one of the assistant")
    return Record(prompt, messages[-1].content, _line({"messages": _dump(messages)}))


def _alpaca(record: Instruction) -> Record:
    prompt = f"{record.instruction}\n\n{record.input}" if record.input.strip() else record.instruction
    return question_and_answer(prompt, record.output)


def _chat_ml(text: str) -> tuple[ChatMessage, ...]:
    messages = Conversation.model_validate(
        {"messages": [{"role": role, "content": content} for role, content in CHAT_ML_MESSAGE.findall(text)]}
    )
    return messages.messages


def _has_marked_up_text(line: bytes) -> bool:
    return b"<|im_start|>" in line and b'"messages"' not in line


def _preference(record: Preference) -> Record:
    prompt = _as_messages(record.prompt, "user")
    chosen = _as_messages(record.chosen, "assistant")
    rejected = _as_messages(record.rejected, "assistant")
    question = next((message.content for message in prompt if message.role == "user"), None)
    if question is None:
        raise InvalidRecord("prompt needs a message of the user")
    if chosen == rejected:
        raise InvalidRecord("chosen and rejected are the same")
    line = _line({"prompt": _dump(prompt), "chosen": _dump(chosen), "rejected": _dump(rejected)})
    return Record(question, chosen[-1].content, line)


def _as_messages(value: str | Sequence[ChatMessage], role: Literal["user", "assistant"]) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role=role, content=value),) if isinstance(value, str) else tuple(value)


def _explain(error: ValidationError) -> str:
    """Where and what, without the row's text, which may be private."""
    found = "; ".join(
        f"{'.'.join(str(part) for part in detail['loc']) or 'line'}: {detail['msg']}"
        for detail in error.errors(include_url=False, include_input=False)
    )
    return found[:SHOWN_REASON_MAX_CHARACTERS]
