"""Which tokens are learned, and which lines are no records; on a tokenizer of single characters."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.images.ml_environment import REPOSITORY

IGNORED = -100


class CharacterTokenizer:
    """ChatML with one token a character: what a label covers can be read."""

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool, return_dict: bool, tokenize: bool
    ) -> dict[str, list[int]]:
        text = "".join(f"<{message['role']}>{message['content']};" for message in messages)
        return {"input_ids": [ord(letter) for letter in text + ("<assistant>" if add_generation_prompt else "")]}


class ThinkingTokenizer(CharacterTokenizer):
    """A template whose generation prompt opens a thought that the answer does not have."""

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> dict[str, list[int]]:
        rendered = super().apply_chat_template(messages, **options)
        if options["add_generation_prompt"]:
            rendered["input_ids"] += [ord(letter) for letter in "[think]"]
        return rendered


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "trainer_image"), *sys.path])
    return importlib.import_module("rows")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


LEARNED: dict[str, tuple[list[dict[str, str]], str]] = {
    "one answer": ([turn("user", "hi"), turn("assistant", "ho")], "ho;"),
    "each answer of a dialogue": (
        [turn("user", "a"), turn("assistant", "B"), turn("user", "c"), turn("assistant", "D")],
        "B;D;",
    ),
    "nothing of system and user": ([turn("system", "s"), turn("user", "u"), turn("assistant", "A")], "A;"),
    "no answer": ([turn("user", "a"), turn("user", "b")], ""),
}


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer(), ThinkingTokenizer()], ids=["plain", "thinking"])
@pytest.mark.parametrize(("messages", "learned"), LEARNED.values(), ids=LEARNED.keys())
def test_only_what_the_assistant_says_is_learned(
    rows: ModuleType, tokenizer: CharacterTokenizer, messages: list[dict[str, str]], learned: str
) -> None:
    ids, labels = rows.tokenize(tokenizer, messages, 1000)

    assert len(ids) == len(labels)
    assert "".join(chr(label) for label in labels if label != IGNORED) == learned
    assert all(label in (token, IGNORED) for token, label in zip(ids, labels, strict=True))


def test_a_conversation_whose_answer_lies_beyond_the_context_is_left_out(rows: ModuleType) -> None:
    conversations = [[turn("user", "x" * 50), turn("assistant", "y")], [turn("user", "x"), turn("assistant", "y")]]

    assert len(rows.tokenize_all(CharacterTokenizer(), conversations, 30)) == 1


BROKEN = {
    "not JSON": ("SFT", "{"),
    "not a record": ("SFT", "[]"),
    "no messages": ("SFT", "{}"),
    "empty messages": ("SFT", '{"messages": []}'),
    "a message without role": ("SFT", '{"messages": [{"content": "x"}]}'),
    "content that is no text": ("SFT", '{"messages": [{"role": "assistant", "content": 1}]}'),
    "no answer": ("SFT", '{"messages": [{"role": "user", "content": "x"}]}'),
    "no rejected answer": ("DPO", json.dumps({key: [turn("user", "x")] for key in ("prompt", "chosen")})),
}


@pytest.mark.parametrize(("method", "line"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_line_is_named(rows: ModuleType, tmp_path: Path, method: str, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"\n{line}\n")

    with pytest.raises(Exception, match=r"train\.jsonl line 2") as error:
        rows.read_rows(path, method)

    assert error.value.failure.reason == "DatasetInvalid"
    assert error.value.failure.remedy
