"""Which rows are taken, how they are split, and what is said when too few are left."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.dataset import DatasetConfig, RatingsSource
from finetune_operator.contract.failures import FailureReason
from finetune_operator.core import datasets
from finetune_operator.core.datasets import DropReason, FilterCount, InvalidRecord, RatedAnswer

CONFIG = DatasetConfig(source=RatingsSource())
MESSAGES = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]

ACCEPTED: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "OpenAI": ("OpenAI", {"messages": MESSAGES, "weight": 1}, {"messages": MESSAGES}),
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
def test_every_format_becomes_conversational_records(record_format: str, record: Any, expected: dict[str, Any]) -> None:
    parsed = datasets.parse_record(json.dumps(record).encode(), record_format)
    assert json.loads(parsed.line) == expected
    assert parsed.prompt
    assert parsed.response


REJECTED = {
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
    "half of a surrogate pair": (
        "OpenAI",
        b'{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "b"}]}',
        "hex escape",
    ),
    "not UTF-8": ("OpenAI", b'{"messages": "\xff"}', "unicode"),
    "Alpaca without output": ("Alpaca", b'{"instruction": "a"}', "output: Field required"),
    "DPO without rejected": ("DPO", b'{"prompt": "a", "chosen": "b"}', "rejected"),
    "DPO with equal answers": ("DPO", b'{"prompt": "a", "chosen": "b", "rejected": "b"}', "same"),
}


@pytest.mark.parametrize(("record_format", "line", "reason"), REJECTED.values(), ids=REJECTED)
def test_what_is_not_a_record_says_why(record_format: str, line: bytes, reason: str) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        datasets.parse_record(line, record_format)


def test_the_explanation_does_not_repeat_the_row() -> None:
    with pytest.raises(InvalidRecord) as caught:
        datasets.parse_record(b'{"instruction": "a private matter", "output": 4711}', "Alpaca")
    assert "4711" not in str(caught.value)
    assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        ("Why is that so?", "Because it could not be otherwise.", None),
        ("Why?", "Because it could not be otherwise.", DropReason.SHORT_PROMPT),
        ("Why is that so?", "Because.", DropReason.SHORT_RESPONSE),
        ("   Why?          ", "Because it could not be otherwise.", DropReason.SHORT_PROMPT),
    ],
)
def test_quality(prompt: str, response: str, expected: DropReason | None) -> None:
    assert datasets.quality(datasets.question_and_answer(prompt, response), CONFIG) == expected


def test_an_empty_text_is_never_trained_on() -> None:
    lenient = CONFIG.model_copy(update={"min_prompt_characters": 0, "min_response_characters": 0})
    assert datasets.quality(datasets.question_and_answer("a", "b"), lenient) is None
    assert datasets.quality(datasets.question_and_answer("a", " "), lenient) == DropReason.SHORT_RESPONSE


@pytest.mark.parametrize(
    ("answers", "difference", "expected"),
    [
        ([], 1, None),
        ([("a", 5)], 1, None),
        ([("a", 3), ("b", 3)], 1, None),
        ([("a", 5), ("b", 3), ("c", 1)], 1, ("a", "c")),
        ([("a", 4), ("b", 2.5)], 2, None),
        ([("b", 5), ("a", 5), ("d", 1), ("c", 1)], 4, ("b", "c")),
    ],
)
def test_a_pair_is_the_best_answer_against_the_worst(
    answers: list[tuple[str, float]], difference: int, expected: tuple[str, str] | None
) -> None:
    rated = [RatedAnswer(*answer) for answer in answers]
    assert datasets.best_pair(rated, difference) == expected
    assert datasets.best_pair(rated[::-1], difference) == expected


PROMPTS = st.lists(st.text(max_size=8), max_size=60)


@given(PROMPTS, st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_the_split_is_deterministic_and_keeps_both_parts(prompts: list[str], fraction: float, seed: int) -> None:
    keys = [datasets.prompt_key(prompt, seed) for prompt in prompts]
    held_out = datasets.held_out_prompts(keys, fraction)
    assert held_out == datasets.held_out_prompts(reversed(keys), fraction)
    assert held_out <= set(keys)
    distinct = len(set(keys))
    if fraction > 0 and distinct >= 2:
        assert 1 <= len(held_out) < distinct
        assert abs(len(held_out) - fraction * distinct) <= 1
    else:
        assert not held_out


def test_another_seed_holds_out_other_prompts() -> None:
    def chosen(seed: int) -> set[str]:
        keys = {datasets.prompt_key(str(number), seed): str(number) for number in range(100)}
        return {keys[key] for key in datasets.held_out_prompts(keys, 0.2)}

    assert len(chosen(1)) == 20
    assert chosen(1) != chosen(2)


@pytest.mark.parametrize(
    ("counts", "message", "remedy"),
    [
        ([("the table", 0)], "has no rows", "collect ratings"),
        (
            [("the table", 9), ("domain='ethics'", 0), ("minRating=4", 0)],
            "domain='ethics' leaves none of the 9 rows",
            "relax domain='ethics'",
        ),
        (
            [("the table", 9), ("domain='ethics'", 3), ("minRating=4", 0)],
            "minRating=4 leaves none of the 3 rows",
            "relax minRating=4",
        ),
    ],
)
def test_the_filter_that_emptied_the_dataset_is_named(counts: list[tuple[str, int]], message: str, remedy: str) -> None:
    failure = datasets.emptied_by([FilterCount(*count) for count in counts])
    assert failure.reason == FailureReason.DATASET_EMPTY
    assert message in failure.message
    assert remedy in failure.remedy


def test_too_few_rows_count_what_was_dropped() -> None:
    config = CONFIG.model_copy(update={"min_examples": 50})
    dropped = {"ShortResponse": 30, "Duplicate": 2}
    failure = datasets.size_failure(8, dropped, config, "SFT")
    assert failure is not None
    assert failure.reason == FailureReason.DATASET_TOO_SMALL
    assert failure.message == "8 of 40 rows are left, dataset.minExamples is 50; dropped: 2 Duplicate, 30 ShortResponse"
    assert "minResponseCharacters" in failure.remedy
    assert datasets.size_failure(50, dropped, config, "SFT") is None


def test_dpo_without_pairs_says_so() -> None:
    failure = datasets.size_failure(0, {"NoPair": 12}, CONFIG, "DPO")
    assert failure is not None
    assert failure.reason == FailureReason.DATASET_EMPTY
    assert "no prompt has two answers" in failure.message
    assert "12 NoPair" in failure.message


def test_few_examples_are_a_warning() -> None:
    assert datasets.size_warnings(500) == ()
    assert "500 or more are recommended" in datasets.size_warnings(499)[0]
