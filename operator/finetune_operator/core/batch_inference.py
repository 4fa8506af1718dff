"""The lines of a batch inference: prompts that are read, requests, and results in the shape of OpenAI's Batch API.

https://platform.openai.com/docs/api-reference/batch/request-output says what a line of results is. Unlike there, rows
that failed stand in the same file, at their own place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.core.dataset_records import ChatMessage, InvalidRecord, explain

PROMPTS = "Prompts"
EXPECTED_PROMPT = (
    '{"prompt": "..."}, {"messages": [{"role": "user", "content": "..."}]}, or a line of OpenAI\'s Batch API: '
    '{"custom_id": "...", "body": {"messages": [...]}}'
)
CUSTOM_ID_MAX_CHARACTERS = 256
CHAT_PATH = "/v1/chat/completions"
ID_PREFIX = "batch_req_"

CustomId = Annotated[str, Field(min_length=1, max_length=CUSTOM_ID_MAX_CHARACTERS)]
Messages = Annotated[tuple[ChatMessage, ...], Field(min_length=1, strict=False)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    custom_id: CustomId | None = None


class _TextRow(_Row):
    prompt: Annotated[str, Field(min_length=1)]

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        return (ChatMessage(role="user", content=self.prompt),)


class _PairRow(_Row):
    prompt: Messages

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        return self.prompt


class _MessagesRow(_Row):
    messages: Messages

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        return self.messages


class _RequestRow(_Row):
    body: _MessagesRow

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        return self.body.messages


# By the key that only such a row has.
_SHAPES: Mapping[str, type[_TextRow | _PairRow | _MessagesRow | _RequestRow]] = {
    "body": _RequestRow,
    "messages": _MessagesRow,
    "prompt": _TextRow,
}


class Prompt(NamedTuple):
    """What a row asks; `custom_id` where the row has one."""

    messages: tuple[ChatMessage, ...]
    custom_id: str | None = None


@dataclass(frozen=True)
class Request:
    """One row by its place among all, from 0."""

    index: int
    custom_id: str
    messages: tuple[ChatMessage, ...]

    @property
    def asked(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.content} for message in self.messages]


class Completion(NamedTuple):
    """An engine's answer to one row."""

    id: str
    model: str
    created: int
    content: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Outcome:
    """What a line of results counts for; `error` is of a row that failed."""

    index: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


def parse_prompt(line: bytes) -> Prompt:
    """One row of a file of prompts. Raises `InvalidRecord`."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidRecord(f"no JSON: {error}") from None
    shape = next((shape for key, shape in _SHAPES.items() if isinstance(value, dict) and key in value), None)
    if shape is None:
        raise InvalidRecord("it has no prompt, and no messages")
    if shape is _TextRow and isinstance(value["prompt"], list):
        # As exports of pairs have it.
        shape = _PairRow
    try:
        row = shape.model_validate_json(line)
    except ValidationError as error:
        raise InvalidRecord(explain(error)) from None
    if row.asked[-1].role == "assistant":
        raise InvalidRecord("its last message is an answer, so that nothing is asked")
    return Prompt(row.asked, row.custom_id)


def request_line(request: Request) -> bytes:
    """As a line of OpenAI's Batch input, without the parameters, which are the same for all."""
    return _line(
        {
            "custom_id": request.custom_id,
            "method": "POST",
            "url": CHAT_PATH,
            "body": {"messages": request.asked},
        }
    )


def read_request(line: bytes, index: int) -> Request:
    """The inverse; the line was written by `request_line`."""
    row = _RequestRow.model_validate_json(line)
    if row.custom_id is None:
        raise ValueError(f"request {index} has no custom_id")
    return Request(index, row.custom_id, row.asked)


def answered_line(request: Request, completion: Completion) -> bytes:
    """A row that was answered."""
    total = completion.prompt_tokens + completion.completion_tokens
    body = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": completion.content},
                "finish_reason": completion.finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "total_tokens": total,
        },
    }
    return _result_line(request, {"status_code": 200, "request_id": completion.id, "body": body})


def refused_line(request: Request, status: int, message: str) -> bytes:
    """A row that the engine would not answer, such as one that is too long for its context."""
    body = {"error": {"message": message, "type": "invalid_request_error", "code": status}}
    return _result_line(request, {"status_code": status, "request_id": None, "body": body})


def read_outcome(line: bytes) -> Outcome | None:
    """What a line of results says; None where it is none, as the last one of a killed writer may be."""
    if not line.endswith(b"\n"):
        return None
    try:
        row: Mapping[str, Any] = json.loads(line)
        index = int(row["id"].removeprefix(ID_PREFIX))
        status, body = row["response"]["status_code"], row["response"]["body"]
        if status != 200:
            return Outcome(index, error=str(body["error"]["message"]))
        usage = body["usage"]
        return Outcome(index, int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def answer_of(line: bytes) -> str | None:
    """The text of a line of results; None where the row failed."""
    row = json.loads(line)
    if row["response"]["status_code"] != 200:
        return None
    content: str = row["response"]["body"]["choices"][0]["message"]["content"]
    return content


def eta_seconds(done: int, total: int, done_before: int, elapsed_seconds: float) -> int | None:
    """At the pace since this attempt began with `done_before` rows; None before its first answer."""
    if done <= done_before or elapsed_seconds <= 0:
        return None
    return round((total - done) * elapsed_seconds / (done - done_before))


def _result_line(request: Request, response: Mapping[str, Any]) -> bytes:
    return _line(
        {"id": f"{ID_PREFIX}{request.index}", "custom_id": request.custom_id, "response": response, "error": None}
    )


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
