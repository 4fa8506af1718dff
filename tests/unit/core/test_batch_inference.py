"""The lines of a batch: what is read as a prompt, and what is believed of a file of results."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.batch_inference import (
    EXPECTED_PROMPT,
    Completion,
    Outcome,
    Prompt,
    Request,
    answer_of,
    answered_line,
    eta_seconds,
    parse_prompt,
    read_outcome,
    read_request,
    refused_line,
    request_line,
)
from finetune_operator.core.dataset_records import ChatMessage, InvalidRecord

USER = ChatMessage(role="user", content="Why?")
SYSTEM = ChatMessage(role="system", content="be brief")
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Why?"}]
DONE = Completion(
    id="chatcmpl-1",
    model="plato-v1",
    created=1_767_268_800,
    content="Because.",
    finish_reason="stop",
    prompt_tokens=9,
    completion_tokens=3,
)

PROMPTS: dict[str, tuple[Any, Prompt]] = {
    "a text": ({"prompt": "Why?"}, Prompt((USER,))),
    "a pair's": ({"prompt": [{"role": "user", "content": "Why?"}], "chosen": [], "rejected": []}, Prompt((USER,))),
    "a text of the user's own number": ({"prompt": "Why?", "custom_id": "q7"}, Prompt((USER,), "q7")),
    "a conversation": ({"messages": MESSAGES}, Prompt((SYSTEM, USER))),
    "what else a row has does not count": ({"prompt": "Why?", "domain": ["odd"]}, Prompt((USER,))),
    "a line of OpenAI's Batch API": (
        {
            "custom_id": "q7",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt", "messages": MESSAGES, "max_tokens": 7},
        },
        Prompt((SYSTEM, USER), "q7"),
    ),
}
NO_PROMPTS: dict[str, tuple[Any, str]] = {
    "no object": (["Why?"], "no prompt, and no messages"),
    "an answer alone": ({"completion": "Because."}, "no prompt, and no messages"),
    "an empty prompt": ({"prompt": ""}, "prompt: String should have at least 1 character"),
    "a number": ({"prompt": 7}, "prompt: Input should be a valid string"),
    "no messages": ({"messages": []}, "messages: Tuple should have at least 1 item"),
    "an unknown role": ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    "an answer at the end": (
        {"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]},
        "its last message is an answer",
    ),
    "a batch line without messages": ({"custom_id": "q7", "body": {"input": "x"}}, "body.messages: Field required"),
    "a number as custom_id": ({"prompt": "Why?", "custom_id": 7}, "custom_id"),
}


@pytest.mark.parametrize(("row", "expected"), PROMPTS.values(), ids=PROMPTS.keys())
def test_a_prompt(row: Any, expected: Prompt) -> None:
    assert parse_prompt(json.dumps(row).encode()) == expected


@pytest.mark.parametrize(("row", "reason"), NO_PROMPTS.values(), ids=NO_PROMPTS.keys())
def test_no_prompt(row: Any, reason: str) -> None:
    with pytest.raises(InvalidRecord) as refusal:
        parse_prompt(json.dumps(row).encode())
    assert reason in str(refusal.value)


def test_what_is_no_json_is_told_without_its_text() -> None:
    with pytest.raises(InvalidRecord, match="no JSON"):
        parse_prompt(b"secret")


def test_each_expected_shape_is_read() -> None:
    assert all(f'"{key}"' in EXPECTED_PROMPT for key in ("prompt", "messages", "body"))


texts = st.text(min_size=1)


@given(st.lists(texts, min_size=1, max_size=3), st.integers(min_value=0, max_value=10**6), texts)
def test_a_request_is_read_as_it_was_written(contents: list[str], index: int, custom_id: str) -> None:
    messages = tuple(ChatMessage(role="user", content=content) for content in contents)
    request = Request(index, custom_id[:256], messages)
    line = request_line(request)
    assert line.count(b"\n") == 1
    assert read_request(line, index) == request


def test_an_answer_has_the_shape_of_openais_batch() -> None:
    line = answered_line(Request(4, "row-5", (USER,)), DONE)
    assert json.loads(line) == {
        "id": "batch_req_4",
        "custom_id": "row-5",
        "response": {
            "status_code": 200,
            "request_id": "chatcmpl-1",
            "body": {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1_767_268_800,
                "model": "plato-v1",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "Because."},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
            },
        },
        "error": None,
    }
    assert read_outcome(line) == Outcome(4, 9, 3)
    assert answer_of(line) == "Because."


def test_a_refusal_is_a_line_too() -> None:
    line = refused_line(Request(0, "row-1", (USER,)), 400, "too long")
    told = json.loads(line)
    assert (told["response"]["status_code"], told["error"]) == (400, None)
    assert told["response"]["body"]["error"]["message"] == "too long"
    assert read_outcome(line) == Outcome(0, error="too long")
    assert answer_of(line) is None


@given(texts, st.integers(min_value=0, max_value=400))
def test_a_torn_line_is_never_believed(content: str, length: int) -> None:
    line = answered_line(Request(4, "row-5", (USER,)), DONE._replace(content=content))
    torn = line[: min(length, len(line) - 1)]
    assert read_outcome(torn) is None
    assert read_outcome(torn + b"\n") is None or torn == line[:-1]


@pytest.mark.parametrize("line", [b"\n", b"7\n", b"{}\n", b"\0\0\0\n", b'{"id": "x", "response": null}\n'])
def test_what_is_no_result_is_not_believed(line: bytes) -> None:
    assert read_outcome(line) is None


@pytest.mark.parametrize(
    ("done", "done_before", "elapsed", "expected"),
    [(50, 0, 100.0, 100), (60, 50, 10.0, 40), (50, 50, 10.0, None), (100, 0, 7.0, 0), (1, 0, 0.0, None)],
)
def test_the_rest_takes_as_long_as_this_attempts_rows(
    done: int, done_before: int, elapsed: float, expected: int | None
) -> None:
    assert eta_seconds(done, 100, done_before, elapsed) == expected
