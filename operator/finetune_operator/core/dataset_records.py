"""Records of all formats: how each is read, checked, and written as a line.

Pure. What is read becomes an `Example` or a `Pair`, whatever it was written in, and each can be written in every format
that has room for it. `quoted` is the one way in which text becomes JSON here: DuckDB's `to_json` gives the same bytes,
so that a dataset does not depend on who wrote it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jiter
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

SHOWN_REASON_MAX_CHARACTERS = 300

Format = Literal["ChatML", "Alpaca", "OpenAI", "RawJSONL", "Instruction", "DPO", "Preference", "Gauntlet"]


class InvalidRecord(ValueError):
    """A line that is not a record of the chosen format; the text says what is wrong with it."""


class _Input(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ChatMessage(_Input):
    """One message, in OpenAI's form."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False)]
Metadata = dict[str, JsonValue]


class Conversation(_Input):
    """A ChatML or OpenAI record."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=2, strict=False)]


class MarkedUpConversation(_Input):
    """A ChatML record as text with `<|im_start|>` marks."""

    text: str


class Instruction(_Input):
    """An Alpaca record; the format Instruction adds metadata."""

    instruction: str
    input: str = ""
    output: str
    metadata: Metadata = {}


class Raw(_Input):
    """A prompt and its response."""

    prompt: str
    response: str


class Preference(_Input):
    """A preference record: plain texts, or messages."""

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages
    metadata: Metadata = {}


class Example(NamedTuple):
    """One conversation that ends with the answer to learn."""

    messages: tuple[ChatMessage, ...]
    metadata: Mapping[str, JsonValue] = {}

    @property
    def prompt(self) -> str:
        return next(message.content for message in self.messages if message.role == "user")

    @property
    def response(self) -> str:
        return self.messages[-1].content


class Pair(NamedTuple):
    """A better and a worse answer to one prompt."""

    question: tuple[ChatMessage, ...]
    chosen: tuple[ChatMessage, ...]
    rejected: tuple[ChatMessage, ...]
    metadata: Mapping[str, JsonValue] = {}

    @property
    def prompt(self) -> str:
        return next(message.content for message in self.question if message.role == "user")

    @property
    def response(self) -> str:
        return self.chosen[-1].content


Record = Example | Pair

CHAT_ML_MESSAGE = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>", re.DOTALL)

_MESSAGES = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
EXPECTED: Mapping[Format, str] = {
    "ChatML": _MESSAGES + ' or {"text": "<|im_start|>user\\n...<|im_end|>..."}',
    "OpenAI": _MESSAGES,
    "Alpaca": '{"instruction": "...", "input": "", "output": "..."}',
    "RawJSONL": '{"prompt": "...", "response": "..."}',
    "Instruction": '{"instruction": "...", "input": "", "output": "...", "metadata": {}}',
    "DPO": '{"prompt": [{"role": "user", "content": "..."}], "chosen": [...], "rejected": [...]}, or texts instead '
    "of messages",
    "Preference": '{"prompt": "...", "chosen": "...", "rejected": "...", "metadata": {}}',
    "Gauntlet": '{"prompt": "...", "response": "...", "attack_type": "...", "success": false, "findings": []}',
}
PAIR_FORMATS: frozenset[Format] = frozenset({"DPO", "Preference"})
READABLE_FORMATS: tuple[Format, ...] = tuple(name for name in EXPECTED if name != "Gauntlet")


def parse_record(line: bytes, record_format: Format) -> Record:
    """Read one JSON line. Raises `InvalidRecord`."""
    try:
        record = _parsed(line, record_format)
    except ValidationError as error:
        raise InvalidRecord(explain(error)) from None
    try:
        jiter.from_json(line, catch_duplicate_keys=True)
    except ValueError:
        # Of what is sound otherwise; the key itself may be private.
        raise InvalidRecord("an object has the same key twice, and only one of its values can be meant") from None
    return record


def _parsed(line: bytes, record_format: Format) -> Record:
    match record_format:
        case "Alpaca" | "Instruction":
            return _instruction(Instruction.model_validate_json(line))
        case "RawJSONL":
            raw = Raw.model_validate_json(line)
            return question_and_answer(raw.prompt, raw.response)
        case "DPO" | "Preference":
            return _preference(Preference.model_validate_json(line))
        case "ChatML" if b"<|im_start|>" in line and b'"messages"' not in line:
            return _conversation(_chat_ml(MarkedUpConversation.model_validate_json(line).text))
        case _:
            found = _conversation(Conversation.model_validate_json(line).messages)
            if any(word in line for word in _UNLEARNABLE):
                _require_learnable(jiter.from_json(line))
            return found


_UNLEARNABLE = (b'"weight"', b'"tools"', b'"functions"', b'"tool_calls"', b'"function_call"')
"""Members of OpenAI's that would be lost; most lines have none, and are read once."""


def _require_learnable(row: Mapping[str, Any]) -> None:
    """Raises `InvalidRecord` for what would be learned otherwise than it says."""
    for name in ("tools", "functions"):
        if row.get(name):
            raise InvalidRecord(f"{name}: calls of tools are not trained; leave out rows that have any")
    for number, message in enumerate(row["messages"]):
        if message.get("weight", 1) == 0:
            remedy = "end the row before it, or leave weight out"
            raise InvalidRecord(
                f"messages.{number}.weight: an answer of weight 0 would be learned all the same; {remedy}"
            )
        for name in ("tool_calls", "function_call"):
            if message.get(name):
                raise InvalidRecord(f"messages.{number}.{name}: calls of tools are not trained; leave out such rows")


def question_and_answer(prompt: str, response: str) -> Example:
    return Example((ChatMessage(role="user", content=prompt), ChatMessage(role="assistant", content=response)))


def pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return _preference(Preference(prompt=prompt, chosen=chosen, rejected=rejected))


def write_record(record: Record, record_format: Format) -> bytes:
    """One line without its end. Raises `InvalidRecord` where the format has no room for the record."""
    if isinstance(record, Pair):
        return _write_pair(record, record_format).encode()
    match record_format:
        case "ChatML" | "OpenAI":
            return f'{{"messages":{_messages(record.messages)}}}'.encode()
        case "DPO" | "Preference" | "Gauntlet":
            raise InvalidRecord(f"a conversation can't be written as {record_format}")
    if [message.role for message in record.messages] != ["user", "assistant"]:
        raise InvalidRecord(f"{record_format} has room for one question and one answer, this is a longer conversation")
    prompt, response = quoted(record.prompt), quoted(record.response)
    match record_format:
        case "RawJSONL":
            return f'{{"prompt":{prompt},"response":{response}}}'.encode()
        case "Alpaca":
            return f'{{"instruction":{prompt},"input":"","output":{response}}}'.encode()
        case _:
            metadata = _metadata(record.metadata)
            return f'{{"instruction":{prompt},"input":"","output":{response},"metadata":{metadata}}}'.encode()


_ESCAPES = {chr(code): f"\\u{code:04X}" for code in range(0x20)} | {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


def quoted(text: str) -> str:
    """A JSON string that escapes only what it must."""
    return f'"{_ESCAPED.sub(lambda found: _ESCAPES[found[0]], text)}"'


def _messages(messages: Sequence[ChatMessage]) -> str:
    written = (f'{{"role":"{message.role}","content":{quoted(message.content)}}}' for message in messages)
    return f"[{','.join(written)}]"


def _metadata(metadata: Mapping[str, JsonValue]) -> str:
    try:
        return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
    except ValueError:
        raise InvalidRecord("metadata holds a number that JSON lacks, such as NaN") from None


def _write_pair(record: Pair, record_format: Format) -> str:
    if record_format == "DPO":
        parts = (f'"prompt":{_messages(record.question)}', f'"chosen":{_messages(record.chosen)}')
        return f'{{{",".join(parts)},"rejected":{_messages(record.rejected)}}}'
    if record_format != "Preference":
        raise InvalidRecord(f"a pair of answers can't be written as {record_format}")
    if any(len(part) != 1 for part in (record.question, record.chosen, record.rejected)):
        raise InvalidRecord("Preference has room for one message each, this is a longer conversation")
    prompt, chosen, rejected = quoted(record.prompt), quoted(record.response), quoted(record.rejected[-1].content)
    metadata = _metadata(record.metadata)
    return f'{{"prompt":{prompt},"chosen":{chosen},"rejected":{rejected},"metadata":{metadata}}}'


def _conversation(messages: Sequence[ChatMessage]) -> Example:
    if not any(message.role == "user" for message in messages) or messages[-1].role != "assistant":
        raise InvalidRecord("a conversation needs a message of the user and must end with one of the assistant")
    return Example(tuple(messages))


def _instruction(record: Instruction) -> Example:
    prompt = f"{record.instruction}\n\n{record.input}" if record.input.strip() else record.instruction
    return question_and_answer(prompt, record.output)._replace(metadata=record.metadata)


def _chat_ml(text: str) -> tuple[ChatMessage, ...]:
    messages = Conversation.model_validate(
        {"messages": [{"role": role, "content": content} for role, content in CHAT_ML_MESSAGE.findall(text)]}
    )
    return messages.messages


def _preference(record: Preference) -> Pair:
    prompt = _as_messages(record.prompt, "user")
    chosen = _as_messages(record.chosen, "assistant")
    rejected = _as_messages(record.rejected, "assistant")
    if not any(message.role == "user" for message in prompt):
        raise InvalidRecord("prompt needs a message of the user")
    if chosen == rejected:
        raise InvalidRecord("chosen and rejected are the same")
    return Pair(prompt, chosen, rejected, record.metadata)


def _as_messages(value: str | Sequence[ChatMessage], role: Literal["user", "assistant"]) -> tuple[ChatMessage, ...]:
    return (ChatMessage(role=role, content=value),) if isinstance(value, str) else tuple(value)


def explain(error: ValidationError) -> str:
    """Where and what, without the row's text, which may be private."""
    found = "; ".join(
        f"{'.'.join(str(part) for part in detail['loc']) or 'line'}: {detail['msg']}"
        for detail in error.errors(include_url=False, include_input=False)
    )
    return found[:SHOWN_REASON_MAX_CHARACTERS]
