"""The one member of a JSON body that the gateway cares for: `model`.

Bodies are never serialised anew: an answer passes as it is, and in a request only the characters of the model's name
are replaced, so that numbers, unknown fields and their order reach the engine as the client wrote them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from finetune_operator.gateway.errors import GatewayError, invalid_body

SUBJECT_MEMBERS = ("user", "safety_identifier")
_NOT_OF_THE_PROMPT = "asks for log probabilities of the prompt, which engines with adapters can't give"
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_PLAIN_NAME = re.compile(r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER_MEMBER = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")
_EVENT_LINE = re.compile(rb"([^\n]*?)\r?\n")


class NotAnObject(ValueError):
    """The text is not one JSON object; the message says where it goes wrong."""


class Member(NamedTuple):
    """A member of the outermost object; its value's text is at [start, end)."""

    name: str
    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class RequestBody:
    """A request whose model can be exchanged."""

    text: str
    model: str
    subject: str | None
    """OpenAI's identifier of the end user, if the client sent one."""
    _model_at: Member

    def with_model(self, name: str) -> bytes:
        """The same text with another model."""
        if name == self.model:
            return self.text.encode()
        before, after = self.text[: self._model_at.start], self.text[self._model_at.end :]
        return f"{before}{json.dumps(name)}{after}".encode()


def parse_request(raw: bytes) -> RequestBody:
    """Read a request's body; raises `GatewayError` (400) that says what is wrong with it."""
    try:
        text = raw.decode()
        members = list(members_of(text))
    except UnicodeDecodeError as error:
        raise invalid_body(f"the body must be JSON in UTF-8: {error}") from error
    except ValueError as error:
        raise invalid_body(f"the body must be one JSON object: {error}") from error
    models = [member for member in members if member.name == "model"]
    if len(models) != 1:
        problem = "is missing" if not models else "occurs more than once"
        raise invalid_body(f"`model` {problem}: name exactly one model", param="model")
    if not isinstance(models[0].value, str) or not models[0].value:
        raise invalid_body("`model` must be a model's name as a string", param="model")
    _refuse_what_ends_an_engine(members)
    return RequestBody(text=text, model=models[0].value, subject=_subject(members), _model_at=models[0])


def _refuse_what_ends_an_engine(members: list[Member]) -> None:
    """vLLM 0.32 with adapters dies of one request for the prompt's log probabilities (`add_lora_logits`).

    A chat that is echoed asks for them too, since its `top_logprobs` is 0 where the client names none.
    """
    asked = {member.name for member in members if member.value is not None}
    echoed = any(member.name == "echo" and member.value for member in members)
    if "prompt_logprobs" in asked:
        raise invalid_body(f"`prompt_logprobs` {_NOT_OF_THE_PROMPT}: leave it out", param="prompt_logprobs")
    if echoed and asked & {"logprobs", "messages"}:
        raise invalid_body(f"`echo` of a chat or with `logprobs` {_NOT_OF_THE_PROMPT}: leave it out", param="echo")


def _subject(members: list[Member]) -> str | None:
    values = {member.name: member.value for member in members if isinstance(member.value, str) and member.value}
    return next((values[name] for name in SUBJECT_MEMBERS if name in values), None)


def answered_model(raw: bytes) -> str | None:
    """The model that an engine says it answered as; reads no further than that."""
    try:
        for member in members_of(raw.decode()):
            if member.name == "model" and isinstance(member.value, str):
                return member.value
    except ValueError:
        return None
    return None


def members_of(text: str) -> Iterator[Member]:
    """The outermost object's members one by one; raises `ValueError` where the text is not one JSON object."""
    position = _expect(text, _skip(text, 0), "{")
    if text[position : position + 1] == "}":
        _end(text, position + 1)
        return
    while True:
        if match := _PLAIN_NAME.match(text, position):
            name, start = match[1], match.end()
        else:
            name, start = _name(text, position)
        value, end = _value(text, start)
        yield Member(name, value, start, end)
        after = _AFTER_MEMBER.match(text, end)
        if after is None:
            raise NotAnObject(f"`,` is missing at character {_skip(text, end)}")
        position = after.end()
        if after[1] == "}":
            _end(text, position)
            return


def _name(text: str, position: int) -> tuple[str, int]:
    """One with escapes in it, or none at all; and where its value starts."""
    if text[position : position + 1] != '"':
        raise NotAnObject(f"a quoted name is missing at character {position}")
    name, position = _value(text, position)
    return name, _expect(text, _skip(text, position), ":")


def _skip(text: str, position: int) -> int:
    match = _WHITESPACE.match(text, position)
    return match.end() if match else position


def _expect(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise NotAnObject(f"`{character}` is missing at character {position}")
    return _skip(text, position + 1)


def _end(text: str, position: int) -> None:
    if _skip(text, position) != len(text):
        raise NotAnObject(f"something follows the object at character {position}")


def _refuse_constant(name: str) -> NoReturn:
    raise NotAnObject(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _value(text: str, position: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, position)
    except RecursionError as error:
        raise NotAnObject("the value is nested too deeply") from error


def first_event(buffer: bytes) -> bytes | None:
    """Data of the first complete server-sent event that has any; None while it has not come yet."""
    data: list[bytes] = []
    for match in _EVENT_LINE.finditer(buffer):
        line = match[1]
        if not line and data:
            return b"\n".join(data)
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
    return None


def error_event(data: bytes) -> GatewayError | None:
    """The error that an engine put into an event because its status line was already sent, if it is one."""
    try:
        error = json.loads(data)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    details = error if isinstance(error, dict) else {"message": str(error)}
    code = str(details.get("code"))
    status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else 502
    return GatewayError(status, "engine_failed", str(details.get("message", "the engine gave no reason")))


def ends_event(chunk: bytes) -> bool:
    """Whether another event may follow this chunk, rather than the rest of one."""
    return chunk.endswith((b"\n\n", b"\n\r\n"))
