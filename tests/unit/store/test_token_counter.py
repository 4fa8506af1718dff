"""Lengths in tokens, by tokenizers and templates that may be anything; the counter runs as the pod runs it."""

import json
from pathlib import Path

import pytest

from finetune_operator.contract.preflight import TokenLengths
from finetune_operator.store.preflight import COUNTER, ask_counter
from finetune_operator.store.token_counter import SAMPLED_ROWS_MAX, Answer, Request, Trouble, counted
from tests.unit.store.small_models import CHAT_ML, byte_level_tokenizer, conversation, write_model, write_rows

# With one token for a byte: <|im_start|>user\n Q <|im_end|>\n <|im_start|>assistant\n A <|im_end|>\n
AROUND_QUESTION, BEFORE_ANSWER, AFTER_ANSWER = len("_user\n_\n"), len("_assistant\n"), len("_\n")
HOSTILE_SECONDS = 2.0


def request(model: Path, rows: Path, method: str = "SFT", max_tokens: int = 100) -> Request:
    return Request.model_validate(
        {"model": str(model), "rows": str(rows), "method": method, "max_tokens": max_tokens, "batch_size": 2}
    )


def lengths(model: Path, rows: Path, method: str = "SFT", max_tokens: int = 100) -> TokenLengths:
    found = counted(request(model, rows, method, max_tokens))
    assert found is not None
    return found


def test_lengths_are_those_of_the_rendered_conversation(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", [conversation("q" * 10, "a" * 20), conversation("q" * 30, "ä" * 20)])
    found = lengths(write_model(tmp_path / "model"), rows)
    first = AROUND_QUESTION + 10 + BEFORE_ANSWER + 20 + AFTER_ANSWER
    second = AROUND_QUESTION + 30 + BEFORE_ANSWER + 40 + AFTER_ANSWER
    assert (found.p50, found.max, found.method, found.sampled_rows) == (first, second, "Tokenizer", 2)
    assert (found.mean, found.padded_mean) == ((first + second) / 2, second)


def test_a_row_is_learned_from_if_its_answer_begins_before_the_cut(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", [conversation("q" * 10, "a" * 50), conversation("q" * 50, "a" * 50)])
    begins = AROUND_QUESTION + 50 + BEFORE_ANSWER
    for limit, unlearnable in ((begins, 1), (begins + 1, 0)):
        found = lengths(write_model(tmp_path / "model"), rows, max_tokens=limit)
        assert (found.over_length, found.unlearnable) == (2, unlearnable)


def test_a_pair_has_two_answers(tmp_path: Path) -> None:
    pair = {
        "prompt": [{"role": "user", "content": "q" * 10}],
        "chosen": [{"role": "assistant", "content": "a" * 5}],
        "rejected": [{"role": "assistant", "content": "a" * 9}],
    }
    found = lengths(write_model(tmp_path / "model"), write_rows(tmp_path / "rows", [pair]), "DPO")
    around = AROUND_QUESTION + 10 + BEFORE_ANSWER + AFTER_ANSWER
    assert (found.max, found.mean) == (around + 9, 2 * around + 14)


def test_a_large_dataset_is_sampled(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", [conversation("question", "answer")] * (SAMPLED_ROWS_MAX + 5))
    assert lengths(write_model(tmp_path / "model"), rows).sampled_rows == SAMPLED_ROWS_MAX


def test_a_special_token_that_the_vocabulary_lacks_is_one_token(tmp_path: Path) -> None:
    settings = json.dumps({"bos_token": {"content": "<begin>", "lstrip": False}, "chat_template": "{{ bos_token }}x"})
    model = write_model(tmp_path / "model", tokenizer_config=settings)
    assert lengths(model, write_rows(tmp_path / "rows", [conversation("q", "a")])).max == 2


def test_a_template_of_its_own_file_goes_before_the_setting(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", template=CHAT_ML)
    (model / "chat_template.jinja").write_text("{% generation %}four{% endgeneration %}")
    assert lengths(model, write_rows(tmp_path / "rows", [conversation("q", "a")])).max == 4


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "xx"}, {"name": "default", "template": "xxx"}]
    model = write_model(tmp_path / "model", tokenizer_config=json.dumps({"chat_template": named}))
    assert lengths(model, write_rows(tmp_path / "rows", [conversation("q", "a")])).max == 3


FILES: dict[str, tuple[dict[str, str | None], str]] = {
    "no tokenizer": ({"tokenizer": None}, "its tokenizer.json can't be read: No such file"),
    "a damaged tokenizer": ({"tokenizer": "{"}, "its tokenizer.json can't be read"),
    "a tokenizer of nothing": ({"tokenizer": "{}"}, "its tokenizer.json can't be read"),
    "a huge tokenizer": ({"tokenizer": " " * (64 * 2**20 + 1)}, "its tokenizer.json is larger than 64 MiB"),
    "no template": ({"tokenizer_config": "{}"}, "it has no chat template"),
    "settings that are none": ({"tokenizer_config": "[]"}, "its tokenizer_config.json is no object"),
    "damaged settings": ({"tokenizer_config": "{"}, "its tokenizer_config.json can't be read"),
    "deep settings": ({"tokenizer_config": "[" * 100_000}, "its tokenizer_config.json can't be read"),
    "a huge template": ({"tokenizer_config": json.dumps({"chat_template": "x" * 2_000_000})}, "is longer than"),
}


@pytest.mark.parametrize(("files", "expected"), FILES.values(), ids=FILES.keys())
def test_files_that_are_of_no_use_are_told(tmp_path: Path, files: dict[str, str | None], expected: str) -> None:
    rows = write_rows(tmp_path / "rows", [conversation("q", "a")])
    with pytest.raises(Trouble, match=expected.replace("(", "\\(")):
        counted(request(write_model(tmp_path / "model", **files), rows))


TEMPLATES = {
    "no template": ("{% for", "its chat template is none"),
    "a refusal": (
        "{{ raise_exception('roles must alternate') }}",
        "refuses row 1: TemplateError: roles must alternate",
    ),
    "Python's internals": ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    "internals by a format": ("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "SecurityError"),
    "a change of the row": ("{{ messages.append(1) }}", "SecurityError"),
    "a file": ("{% include '/etc/passwd' %}", "TypeError"),
    "no end": ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError"),
    "a huge range": ("{% for i in range(10**9) %}{% endfor %}", "OverflowError"),
}


@pytest.mark.parametrize(("template", "expected"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_template_may_do_what_it_likes(tmp_path: Path, template: str, expected: str) -> None:
    rows = write_rows(tmp_path / "rows", [conversation("question", "answer")])
    with pytest.raises(Trouble, match=expected):
        counted(request(write_model(tmp_path / "model", template=template), rows))


def test_what_a_template_says_is_one_short_line(tmp_path: Path) -> None:
    trouble = _asked(tmp_path, "{{ raise_exception('a\\x1b[31m\\n' + 'b' * 1000) }}").trouble
    assert trouble is not None
    assert "TemplateError: a [31m bbb" in trouble
    assert len(trouble) < 250


def test_a_template_that_never_ends_is_ended(tmp_path: Path) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    assert _asked(tmp_path, endless, HOSTILE_SECONDS) == Answer(trouble="counting took longer than 2 s")


def test_a_template_that_takes_all_memory_gets_none(tmp_path: Path) -> None:
    answer = _asked(tmp_path, "{{ 'a' * 10**10 }}")
    assert answer == Answer(trouble="its tokenizer needs more than 640 MiB of memory")


def test_nothing_of_the_pods_environment_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that got out of its sandbox would find no secret."""
    monkeypatch.setenv("FINETUNE_DATABASE_URL", "postgresql://user:secret@host/db")
    shown = ("python3", "-c", "import json, os; print(json.dumps({'trouble': ' '.join(sorted(os.environ))}))")
    answer = ask_counter(request(tmp_path, tmp_path), shown, 60)
    assert answer.trouble is not None
    assert set(answer.trouble.split()) <= {"LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("python3", "-c", "raise SystemExit(3)"), "exit code 3"),
        (("python3", "-c", "import os; os.abort()"), "signal 6"),
        (("python3", "-c", "print('lengths')"), "nothing that can be read"),
    ],
)
def test_a_counter_that_dies_is_told(tmp_path: Path, command: tuple[str, ...], expected: str) -> None:
    trouble = ask_counter(request(tmp_path, tmp_path), command, 60).trouble
    assert trouble is not None
    assert expected in trouble


def _asked(tmp_path: Path, template: str, seconds: float = 60) -> Answer:
    model = write_model(tmp_path / "model", template=template, tokenizer=byte_level_tokenizer())
    rows = write_rows(tmp_path / "rows", [conversation("question", "answer")])
    return ask_counter(request(model, rows), COUNTER, seconds)
