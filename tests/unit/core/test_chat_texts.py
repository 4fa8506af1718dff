"""What people can be shown of a chat that passes by, and why not the rest."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.answer_pairs import TEXT_MAX_CHARACTERS
from finetune_operator.core.chat_texts import EVENT_MAX_BYTES, StreamedText, Unusable, answered, asked

QUESTION = {"role": "user", "content": "What is justice?"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}

ASKED: dict[str, tuple[dict[str, Any], str | Unusable]] = {
    "a question": ({}, "What is justice?"),
    "parts of text": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        "a\nb",
    ),
    "a conversation": (
        {"messages": [{"role": "developer", "content": "Be brief."}, QUESTION | {"name": "ada"}]},
        "system: Be brief.\n\nuser: What is justice?",
    ),
    "parameters that say nothing": ({"n": 1, "tools": [], "tool_choice": "none", "store": True, "top_p": 1.0}, "?"),
    "null for parameters": ({"n": None, "tools": None, "functions": None, "store": None}, "?"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, Unusable.UNREADABLE),
    "functions": ({"functions": [{"name": "f"}]}, Unusable.UNREADABLE),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, Unusable.UNREADABLE),
    "a tool's result": (
        {"messages": [QUESTION, {"role": "tool", "tool_call_id": "1", "content": "4"}]},
        Unusable.UNREADABLE,
    ),
    "a called tool": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, QUESTION]},
        Unusable.UNREADABLE,
    ),
    "an answer to be continued": (
        {"messages": [QUESTION, {"role": "assistant", "content": "It is"}]},
        Unusable.UNREADABLE,
    ),
    "several answers at once": ({"n": 2}, Unusable.UNREADABLE),
    "no messages": ({"messages": []}, Unusable.UNREADABLE),
    "a prompt": ({"messages": None, "prompt": "Once"}, Unusable.UNREADABLE),
    "what must not be kept": ({"store": False}, Unusable.PRIVATE),
    "a long question": ({"messages": [QUESTION | {"content": "x" * (TEXT_MAX_CHARACTERS + 1)}]}, Unusable.TOO_LONG),
    "a very long question": ({"messages": [QUESTION | {"content": "x" * 300_000}]}, Unusable.TOO_LONG),
}


@pytest.mark.parametrize(("members", "expected"), ASKED.values(), ids=ASKED)
def test_what_was_asked(members: dict[str, Any], expected: str | Unusable) -> None:
    found = asked(json.dumps({"model": "plato", "messages": [QUESTION]} | members))
    assert found == ("What is justice?" if expected == "?" else expected)


def whole(*choices: dict[str, Any]) -> bytes:
    return json.dumps({"id": "1", "model": "plato-v1", "choices": choices, "usage": {}}).encode()


def choice(content: str | None = "Harmony.", finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "index": 0,
        "message": {"role": "assistant", "content": content} | message,
        "logprobs": None,
        "finish_reason": finish_reason,
    }


ANSWERED: dict[str, tuple[bytes, str | Unusable]] = {
    "a text": (whole(choice()), "Harmony."),
    "nothing": (whole(choice(None)), ""),
    "as long as it may be": (whole(choice(finish_reason="length")), "Harmony."),
    "no called tools": (whole(choice(tool_calls=[])), "Harmony."),
    "a called tool": (whole(choice(None, "tool_calls", tool_calls=[{"id": "1"}])), Unusable.UNREADABLE),
    "an end by a filter": (whole(choice(finish_reason="content_filter")), Unusable.INCOMPLETE),
    "no end": (whole(choice(finish_reason=None)), Unusable.INCOMPLETE),
    "two answers": (whole(choice(), choice() | {"index": 1}), Unusable.UNREADABLE),
    "no answer": (whole(), Unusable.UNREADABLE),
    "no JSON": (b'{"choices"', Unusable.UNREADABLE),
    "a long text": (whole(choice("x" * (TEXT_MAX_CHARACTERS + 1))), Unusable.TOO_LONG),
    "a very long text": (whole(choice("x" * 300_000)), Unusable.TOO_LONG),
}


@pytest.mark.parametrize(("body", "expected"), ANSWERED.values(), ids=ANSWERED)
def test_what_was_answered(body: bytes, expected: str | Unusable) -> None:
    assert answered(body) == expected


def event(text: str | None = None, finish_reason: str | None = None, **delta: Any) -> bytes:
    said = {"index": 0, "delta": {"content": text} | delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"model": "plato-v1", "choices": [said]}, ensure_ascii=False).encode() + b"\n\n"


END = event(None, "stop")
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 3}}\r\n\r\n'

STREAMED: dict[str, tuple[bytes, str | Unusable]] = {
    "words": (event("", role="assistant") + event("Harm") + event("ony.") + END + DONE, "Harmony."),
    "a usage at the end": (event("Harmony.") + END + USAGE + DONE, "Harmony."),
    "comments between events": (event("Harmony.") + b": still there\n\n" + END + DONE, "Harmony."),
    "as long as it may be": (event("Harmony.", "length") + DONE, "Harmony."),
    "nothing": (END + DONE, ""),
    "no end": (event("Harm"), Unusable.INCOMPLETE),
    "an end without its mark": (event("Harmony.") + END, Unusable.INCOMPLETE),
    "a mark without an end": (event("Harm") + DONE, Unusable.INCOMPLETE),
    "an end by a filter": (event("Harm", "content_filter") + DONE, Unusable.INCOMPLETE),
    "an end within an event": (event("Harmony.") + END[:-9], Unusable.INCOMPLETE),
    "an error": (event("Harm") + b'data: {"error": {"message": "out of blocks"}}\n\n' + DONE, Unusable.UNREADABLE),
    "a called tool": (event(tool_calls=[{"index": 0}]) + END + DONE, Unusable.UNREADABLE),
    "another answer": (END.replace(b'"index": 0', b'"index": 1') + DONE, Unusable.UNREADABLE),
    "a long text": (event("x" * 40_000) + event("x" * 40_000) + END + DONE, Unusable.TOO_LONG),
    "an endless line": (b"data: " + b"x" * EVENT_MAX_BYTES, Unusable.TOO_LONG),
}


@pytest.mark.parametrize(("stream", "expected"), STREAMED.values(), ids=STREAMED)
def test_what_was_streamed(stream: bytes, expected: str | Unusable) -> None:
    text = StreamedText()
    text.add(stream)
    assert text.text() == expected


@given(st.text(max_size=40), st.lists(st.integers(0, 400), max_size=8))
def test_chunks_may_end_anywhere(content: str, places: list[int]) -> None:
    stream = b"".join((*(event(letter) for letter in content), END, DONE))
    text, borders = StreamedText(), [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    for start, end in pairwise(borders):
        text.add(stream[start:end])
    assert text.text() == content
