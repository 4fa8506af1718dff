"""Every format: what is read, what is refused and why, and what is written."""

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.core.dataset_records import (
    EXPECTED,
    READABLE_FORMATS,
    Format,
    InvalidRecord,
    Pair,
    pair,
    parse_record,
    question_and_answer,
    quoted,
    write_record,
)

MESSAGES = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


ACCEPTED: dict[str, tuple[Format, Any, dict[str, Any]]] = {
    "OpenAI": ("OpenAI", {"messages": MESSAGES, "weight": 1, "tools": []}, {"messages": MESSAGES}),
    "ChatML as messages": ("ChatML", {"messages": MESSAGES}, {"messages": MESSAGES}),
    "ChatML as marked-up text": (
        "ChatML",
        {"text": "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>"},
        {"messages": MESSAGES},
    ),
    "marks inside of messages are text": (
        "ChatML",
        {"messages": [{"role": "user", "content": "<|im_start|>"}, MESSAGES[1]]},
        {"messages": [{"role": "user", "content": "<|im_start|>"}, MESSAGES[1]]},
    ),
    "Alpaca": ("Alpaca", {"instruction": "Hello?", "output": "Hello."}, {"messages": MESSAGES}),
    "Alpaca with input": (
        "Alpaca",
        {"instruction": "Add", "input": "1, 2", "output": "3"},
        {"messages": [{"role": "user", "content": "Add\n\n1, 2"}, {"role": "assistant", "content": "3"}]},
    ),
    "raw": ("RawJSONL", {"prompt": "Hello?", "response": "Hello."}, {"messages": MESSAGES}),
    "an instruction with metadata": (
        "Instruction",
        {"instruction": "Hello?", "input": "", "output": "Hello.", "metadata": {"rating": 5}},
        {"messages": MESSAGES},
    ),
    "DPO as texts": (
        "DPO",
        {"prompt": "Hello?", "chosen": "Hello.", "rejected": "No."},
        {
            "prompt": [MESSAGES[0]],
            "chosen": [MESSAGES[1]],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
    ),
    "DPO as messages": (
        "DPO",
        {"prompt": [MESSAGES[0]], "chosen": [MESSAGES[1]], "rejected": "No."},
        {
            "prompt": [MESSAGES[0]],
            "chosen": [MESSAGES[1]],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
    ),
}


@pytest.mark.parametrize(("record_format", "record", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_every_format_becomes_conversational_records(
    record_format: Format, record: Any, expected: dict[str, Any]
) -> None:
    parsed = parse_record(json.dumps(record).encode(), record_format)
    assert json.loads(write_record(parsed, "DPO" if isinstance(parsed, Pair) else "ChatML")) == expected
    assert parsed.prompt
    assert parsed.response


REJECTED: dict[str, tuple[Format, bytes, str]] = {
    "not JSON": ("OpenAI", b'{"messages": ', "EOF"),
    "not an object": ("OpenAI", b"[1, 2]", "object"),
    "no messages": ("OpenAI", b"{}", "messages: Field required"),
    "unknown role": (
        "OpenAI",
        b'{"messages": [{"role": "god", "content": "a"}, {"role": "user", "content": "b"}]}',
        "messages.0.role",
    ),
    "content is no text": (
        "OpenAI",
        b'{"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "b"}]}',
        "messages.0.content",
    ),
    "ends with the user": (
        "OpenAI",
        b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
        "must end with one of the assistant",
    ),
    "an answer that is not to be learned": (
        "OpenAI",
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},'
        b' {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1}]}',
        "messages.1.weight: an answer of weight 0 would be learned all the same",
    ),
    "tools": (
        "OpenAI",
        b'{"tools": [{"type": "function"}], "messages": [{"role": "user", "content": "a"},'
        b' {"role": "assistant", "content": "b"}]}',
        "tools: calls of tools are not trained",
    ),
    "a call of a tool": (
        "ChatML",
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{}]},'
        b' {"role": "assistant", "content": "b"}]}',
        "messages.1.tool_calls: calls of tools are not trained",
    ),
    "half of a surrogate pair": (
        "OpenAI",
        b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "b"}]}',
        "hex escape",
    ),
    "not UTF-8": ("OpenAI", b'{"messages": "\xff"}', "unicode"),
    "Alpaca without output": ("Alpaca", b'{"instruction": "a"}', "output: Field required"),
    "not a number": ("Instruction", b'{"instruction": NaN, "output": "b"}', "instruction|JSON|expected"),
    "nested too deeply": ("Instruction", b'{"instruction":' + b"[" * 100_000, "recursion limit"),
    "a key twice": ("RawJSONL", b'{"prompt": "a", "response": "b", "response": "c"}', "same key twice"),
    "a key twice, once in other letters": (
        "RawJSONL",
        b'{"prompt": "a", "response": "b", "p\\u0072ompt": "c"}',
        "twice",
    ),
    "a key twice in what is not read": (
        "RawJSONL",
        b'{"prompt": "a", "response": "b", "x": {"y": 1, "y": 2}}',
        "twice",
    ),
    "a NUL outside of texts": ("RawJSONL", b'{"prompt": "a",\x00 "response": "b"}', "line"),
    "raw without response": ("RawJSONL", b'{"prompt": "a"}', "response: Field required"),
    "DPO without rejected": ("DPO", b'{"prompt": "a", "chosen": "b"}', "rejected"),
    "DPO with equal answers": ("DPO", b'{"prompt": "a", "chosen": "b", "rejected": "b"}', "same"),
}


@pytest.mark.parametrize(("record_format", "line", "reason"), REJECTED.values(), ids=REJECTED)
def test_what_is_not_a_record_says_why(record_format: Format, line: bytes, reason: str) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        parse_record(line, record_format)


def test_the_explanation_does_not_repeat_the_row() -> None:
    with pytest.raises(InvalidRecord) as caught:
        parse_record(b'{"instruction": "a private matter", "output": 4711}', "Alpaca")
    assert "4711" not in str(caught.value)
    assert "private" not in str(caught.value)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


@given(TEXT)
def test_text_is_quoted_as_duckdb_does(text: str) -> None:
    assert json.loads(quoted(text)) == text
    found = duckdb.execute("SELECT to_json($text)::VARCHAR", {"text": text}).fetchone()
    assert found == (quoted(text),)


@given(TEXT, TEXT, st.sampled_from([name for name in READABLE_FORMATS if name not in {"DPO", "Preference"}]))
def test_what_is_written_can_be_read(prompt: str, response: str, record_format: Format) -> None:
    example = question_and_answer(prompt, response)
    line = write_record(example, record_format)
    assert b"\n" not in line
    assert parse_record(line, record_format) == example


@given(TEXT, TEXT, st.sampled_from(["DPO", "Preference"]))
def test_pairs_that_are_written_can_be_read(prompt: str, chosen: str, record_format: Format) -> None:
    made = pair(prompt, chosen, f"{chosen}.")
    assert parse_record(write_record(made, record_format), record_format) == made


def test_a_format_without_room_for_the_record_says_so() -> None:
    longer = parse_record(json.dumps({"messages": [*MESSAGES, *MESSAGES]}).encode(), "OpenAI")
    with pytest.raises(InvalidRecord, match="longer conversation"):
        write_record(longer, "Alpaca")
    with pytest.raises(InvalidRecord, match="can't be written as DPO"):
        write_record(longer, "DPO")
    with pytest.raises(InvalidRecord, match="can't be written as Alpaca"):
        write_record(pair("a", "b", "c"), "Alpaca")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_lacks_is_refused_with_its_place(number: str) -> None:
    line = f'{{"instruction": "a", "output": "b", "metadata": {{"score": {number}}}}}'.encode()
    with pytest.raises(InvalidRecord, match="metadata"):
        write_record(parse_record(line, "Instruction"), "Instruction")


def test_every_format_says_what_it_looks_like() -> None:
    assert set(READABLE_FORMATS) | {"Gauntlet"} == set(EXPECTED)
