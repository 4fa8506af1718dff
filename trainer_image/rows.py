"""The rows that the prepare container left, and their tokens.

Only what the assistant says is learned: labels of all other tokens are -100, which every loss here ignores.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from failures import GivenUp, log

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.failures import FailureReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
KEYS = {"SFT": ("messages",), "DPO": ("prompt", "chosen", "rejected")}


def read_report(path: Path) -> DatasetReport:
    """The prepare container writes it last, so without it the dataset is not whole."""
    if not path.exists():
        raise _invalid(f"{path} is missing", "look at the log of the container `prepare`, which makes it")
    return DatasetReport.model_validate_json(path.read_bytes())


def read_rows(path: Path, method: str) -> list[dict[str, Any]]:
    """TRL's conversational records of one file; raises GivenUp naming the line that is none."""
    if not path.exists():
        raise _invalid(f"{path} is missing", "look at the log of the container `prepare`, which makes it")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            _check_row(row, KEYS[method])
        except ValueError as error:
            raise _invalid(f"{path.name} line {number}: {error}", f"a {method} record has {KEYS[method]}") from error
        rows.append(row)
    return rows


def _check_row(row: Any, keys: tuple[str, ...]) -> None:
    for key in keys:
        messages = row.get(key) if isinstance(row, dict) else None
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"{key!r} is not a list of messages")
        for message in messages:
            if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
                raise ValueError(f"a message of {key!r} has no role")
            if not isinstance(message.get("content"), str):
                raise ValueError(f"a message of {key!r} has no text as content")
    if keys == KEYS["SFT"] and all(message["role"] != "assistant" for message in row["messages"]):
        raise ValueError("no message is the assistant's")


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], max_tokens: int
) -> tuple[list[int], list[int]]:
    """(input ids, labels) of a conversation, cut at `max_tokens`.

    Each answer's place is found by rendering the conversation up to it, with and without it; this asks nothing of the
    chat template but that a longer conversation continues the shorter one.
    """
    ids = _render(tokenizer, messages)
    labels = [IGNORED] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and index > 0:
            start = _common(ids, _render(tokenizer, messages[:index], add_generation_prompt=True))
            end = _common(ids, _render(tokenizer, messages[: index + 1]))
            labels[start:end] = ids[start:end]
    return ids[:max_tokens], labels[:max_tokens]


def tokenize_all(
    tokenizer: "PreTrainedTokenizerBase", conversations: Iterable[list[dict[str, str]]], max_tokens: int
) -> list[dict[str, list[int]]]:
    """TRL's `input_ids` and `labels` of each conversation of which something is left to learn after the cut."""
    rows, cut, dropped = [], 0, 0
    for messages in conversations:
        ids, labels = tokenize(tokenizer, messages, max_tokens)
        if all(label == IGNORED for label in labels):
            dropped += 1
            continue
        cut += len(ids) == max_tokens
        rows.append({"input_ids": ids, "labels": labels})
    if cut or dropped:
        log("some conversations are longer than maxSeqLength", cut=cut, dropped=dropped, max_seq_length=max_tokens)
    return rows


def _render(
    tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], add_generation_prompt: bool = False
) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, return_dict=True, tokenize=True
    )
    return list(encoded["input_ids"])


def _common(first: list[int], second: list[int]) -> int:
    """Length of the common beginning: a template may end a generation prompt with more than the answer continues."""
    length = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        length += 1
    return length


def _invalid(message: str, remedy: str) -> GivenUp:
    return GivenUp(FailureReason.DATASET_INVALID, message, remedy)
