"""Tokens are read from what an engine says of its answer, and from nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.gateway.usage import (
    STREAM_END_BYTES,
    UNKNOWN,
    WHOLE_MAX_BYTES,
    StreamEnd,
    Usage,
    estimated_tokens,
    usage_of,
)

TOLD = {"prompt_tokens": 7, "completion_tokens": 42}
SAID = {"choices": [{"message": {"content": '{"usage": {"completion_tokens": 1}}'}}]}

WHOLE: dict[str, tuple[bytes, Usage]] = {
    "usage last": (json.dumps(SAID | {"usage": TOLD}).encode(), Usage(7, 42)),
    "usage first": (json.dumps({"usage": TOLD} | SAID).encode(), Usage(7, 42)),
    "only spoken of": (json.dumps(SAID).encode(), UNKNOWN),
    "of a part": (json.dumps({"choices": [{"usage": TOLD}]}).encode(), UNKNOWN),
    "null": (b'{"usage": null}', UNKNOWN),
    "no object": (b'["usage"]', UNKNOWN),
    "no JSON": (b'"usage" of nonsense', UNKNOWN),
    "no UTF-8": (b'{"usage": "\xff"}', UNKNOWN),
    "embeddings": (b'{"usage": {"prompt_tokens": 7, "total_tokens": 7}}', Usage(7, None)),
    "no counts": (b'{"usage": {"prompt_tokens": -1, "completion_tokens": true}}', UNKNOWN),
    "beyond any answer": (b'{"usage": {"prompt_tokens": 1e3, "completion_tokens": 99999999999}}', UNKNOWN),
    "too long to read": (json.dumps({"data": "x" * WHOLE_MAX_BYTES, "usage": TOLD}).encode(), UNKNOWN),
}


@pytest.mark.parametrize(("body", "usage"), WHOLE.values(), ids=WHOLE.keys())
def test_of_a_whole_answer(body: bytes, usage: Usage) -> None:
    assert usage_of(body) == usage


def event(members: object) -> bytes:
    return f"data: {json.dumps(members)}\n\n".encode()


WORDS, DONE = event({"choices": [{"delta": {"content": "word"}}]}), b"data: [DONE]\n\n"
STREAMS: dict[str, tuple[bytes, Usage]] = {
    "usage in the last event": (WORDS * 3 + event({"choices": [], "usage": TOLD}) + DONE, Usage(7, 42)),
    "without an end mark": (WORDS + event({"usage": TOLD}), Usage(7, 42)),
    "with carriage returns": (
        (WORDS + event({"usage": TOLD}) + DONE).replace(b"\n", b"\r\n"),
        Usage(7, 42),
    ),
    "usage in each event": (event({"usage": {"completion_tokens": 1}}) + event({"usage": TOLD}) + DONE, Usage(7, 42)),
    "not asked for": (WORDS * 3 + DONE, UNKNOWN),
    "null until the end": (event({"usage": TOLD}) + event({"usage": None}) + DONE, UNKNOWN),
    "long": (WORDS * 10_000 + event({"usage": TOLD}) + DONE, Usage(7, 42)),
    "an event longer than what is kept": (event({"text": "x" * STREAM_END_BYTES, "usage": TOLD}) + DONE, UNKNOWN),
    "nothing": (b"", UNKNOWN),
}


@pytest.mark.parametrize(("stream", "usage"), STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("chunk_bytes", [1000, 1_000_000])
def test_of_a_stream(stream: bytes, usage: Usage, chunk_bytes: int) -> None:
    end = StreamEnd()
    for start in range(0, len(stream), chunk_bytes):
        end.add(stream[start : start + chunk_bytes])
    assert end.usage() == usage


@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1))
def test_where_a_stream_is_cut_into_chunks_does_not_matter(sizes: list[int]) -> None:
    stream, end, position = WORDS + event({"usage": TOLD}) + DONE, StreamEnd(), 0
    for size in [*sizes, len(stream)]:
        end.add(stream[position : position + size])
        position += size
    assert end.usage() == Usage(7, 42)


@given(st.binary(max_size=200))
def test_no_answer_makes_it_fail(body: bytes) -> None:
    end = StreamEnd()
    end.add(b"data: " + body)
    assert isinstance(end.usage(), Usage)
    assert isinstance(usage_of(b'{"usage":' + body), Usage)


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [
        ("", 0),
        ('{"prompt": "' + "a" * 988 + '"}', 250),
        ('{"content": "data: ' + "a" * 985 + '"}', 251),
        ('{"url": "data:image/png;base64,' + "A" * 1_000_000 + '"}', 2),
    ],
)
def test_an_estimate_is_of_texts_alone(request_text: str, expected: int) -> None:
    assert estimated_tokens(request_text) == expected
