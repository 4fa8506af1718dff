"""The texts of a chat completion as it passes by: what was asked and what was answered, where both are plain text.

Pure, and never an exception: whatever can't be shown to people as two texts under one question has a reason why not.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.core.answer_pairs import TEXT_MAX_CHARACTERS, shown
from finetune_operator.core.dataset_records import ChatMessage

BODY_MAX_LENGTH = 256 * 1024
"""Characters of a request, bytes of an answer: a longer one has more text than people read, or much beside it, and
reading it would keep requests waiting."""
STREAM_MAX_BYTES = 16 * 1024 * 1024
EVENT_MAX_BYTES = 64 * 1024
ENDS = ("stop", "length")
"""How an answer ends that its user got as it is: by itself, or at the number of tokens that the request allows."""


class Unusable(Enum):
    """Why there is no text; the values are labels of a metric."""

    UNREADABLE = "unreadable"
    """Tools, images, sound, several answers at once, or no chat at all."""
    PRIVATE = "private"
    """The client said `store: false`, which in OpenAI's interface forbids keeping the texts."""
    INCOMPLETE = "incomplete"
    """The answer was cut short."""
    TOO_LONG = "too long"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _TextPart(_Part):
    type: Literal["text"]
    text: str


Nothing = Annotated[tuple[object, ...], Field(max_length=0, strict=False)] | None
Parts = Annotated[tuple[_TextPart, ...], Field(min_length=1, strict=False)]


class _Message(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Parts
    tool_calls: Nothing = None

    def plain(self) -> ChatMessage:
        text = self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)
        return ChatMessage(role="system" if self.role == "developer" else self.role, content=text)


class _Asked(_Part):
    messages: Annotated[tuple[_Message, ...], Field(min_length=1, strict=False)]
    n: Literal[1] | None = None
    tools: Nothing = None
    functions: Nothing = None
    store: bool | None = None


class _Said(_Part):
    content: str | None = None
    tool_calls: Nothing = None


class _Choice(_Part):
    index: Literal[0]
    message: _Said
    finish_reason: str | None


class _Answered(_Part):
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1, max_length=1, strict=False)]


class _DeltaChoice(_Part):
    index: Literal[0]
    delta: _Said
    finish_reason: str | None = None


class _Event(_Part):
    choices: Annotated[tuple[_DeltaChoice, ...], Field(max_length=1, strict=False)]


def asked(body: str) -> str | Unusable:
    """The conversation of a request, as people read it."""
    if len(body) > BODY_MAX_LENGTH:
        return Unusable.TOO_LONG
    try:
        request = _Asked.model_validate_json(body)
    except ValidationError:
        return Unusable.UNREADABLE
    if request.store is False:
        return Unusable.PRIVATE
    messages: Sequence[ChatMessage] = [message.plain() for message in request.messages]
    if messages[-1].role != "user":
        # Such a request has the engine continue what it said, or its system prompt.
        return Unusable.UNREADABLE
    return _bounded(shown(messages))


def answered(body: bytes) -> str | Unusable:
    """The text of a whole answer."""
    if len(body) > BODY_MAX_LENGTH:
        return Unusable.TOO_LONG
    try:
        (choice,) = _Answered.model_validate_json(body).choices
    except ValidationError:
        return Unusable.UNREADABLE
    if choice.finish_reason not in ENDS:
        return Unusable.INCOMPLETE
    return _bounded(choice.message.content or "")


def _bounded(text: str) -> str | Unusable:
    return text if len(text) <= TEXT_MAX_CHARACTERS else Unusable.TOO_LONG


class StreamedText:
    """The text of a stream of server-sent events, put together as it passes; only text is kept, and never too much."""

    def __init__(self) -> None:
        self._rest = b""
        self._words: list[str] = []
        self._characters = 0
        self._bytes = 0
        self._ended = False
        self._done = False
        self._unusable: Unusable | None = None

    def add(self, chunk: bytes) -> None:
        """Bytes as they come, which end anywhere."""
        if self._unusable:
            return
        self._bytes += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and not self._unusable:
                self._event(line.removeprefix(b"data:").strip())
        if len(self._rest) > EVENT_MAX_BYTES or self._bytes > STREAM_MAX_BYTES:
            self._give_up(Unusable.TOO_LONG)

    def text(self) -> str | Unusable:
        """Once the stream is over; one that did not come to its own end is incomplete."""
        if self._unusable:
            return self._unusable
        return "".join(self._words) if self._ended and self._done else Unusable.INCOMPLETE

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self._done = True
            return
        try:
            choices = _Event.model_validate_json(data).choices
        except ValidationError:
            self._give_up(Unusable.UNREADABLE)
            return
        for choice in choices:
            self._words.append(choice.delta.content or "")
            self._characters += len(self._words[-1])
            if choice.finish_reason is not None:
                self._ended = choice.finish_reason in ENDS
        if self._characters > TEXT_MAX_CHARACTERS:
            self._give_up(Unusable.TOO_LONG)

    def _give_up(self, why: Unusable) -> None:
        self._unusable, self._rest, self._words = why, b"", []
