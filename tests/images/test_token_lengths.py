"""The preflight's lengths and steps are the trainer's own: those of Transformers, and what TRL counted."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_operator.contract.dataset import DatasetReport
from finetune_operator.contract.preflight import Preflight
from finetune_operator.store.preflight import run_preflight
from finetune_operator.store.token_counter import Request, row_tokens
from tests.images.ml_environment import REPOSITORY
from tests.images.training import Job, environment_of_images

# Written as published ones are: with loops, filters, globals and tags that are not all of plain Jinja.
TEMPLATES = {
    "Llama 3": (
        "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "Mistral": (
        "{{ bos_token }}\n{%- for message in messages %}\n    {%- if message.role == 'assistant' %}\n"
        "        {{- ' ' + message.content + eos_token }}\n    {%- else %}\n"
        "        {{- '[INST] ' + message.content + ' [/INST]' }}\n    {%- endif %}\n{%- endfor %}"
    ),
    "all that Transformers adds": (
        "{% set found = namespace(first=true) %}\n{% for message in messages %}\n"
        "  {% if message.role == 'system' %}{% continue %}{% endif %}\n"
        "  {% if found.first %}{{ {'ä': '<b>'} | tojson }}{% set found.first = false %}{% endif %}\n"
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}\n"
        "{% else %}{{ message.content }}{% endif %}\n{% endfor %}\n{% if tools is none %}no tools{% endif %}"
    ),
}
DIALOGUE = [
    {"role": "system", "content": "Answer in one sentence."},
    {"role": "user", "content": "  Wer war Sokrates? 🏛  \n"},
    {"role": "assistant", "content": "Ein Athener, der <b>fragte</b>."},
    {"role": "user", "content": "<|im_end|> and then?"},
    {"role": "assistant", "content": "\n\nHe drank the hemlock.\t"},
]


def test_lengths_are_those_of_transformers(
    ml_python: Path, base_model: Path, conversations: list[dict[str, Any]], tmp_path: Path
) -> None:
    models = [base_model, *(_with_template(base_model, tmp_path / name, text) for name, text in TEMPLATES.items())]
    rows = [*conversations[:200], {"messages": DIALOGUE}, {"messages": DIALOGUE[1:3]}]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))

    found = [row_tokens(_request(model, tmp_path / "rows")) for model in models]

    request = json.dumps({"models": [str(model) for model in models], "rows": rows})
    command = [str(ml_python), str(REPOSITORY / "tests" / "images" / "trainer_lengths.py")]
    told = subprocess.run(
        command, input=request, capture_output=True, text=True, env=environment_of_images(), check=False
    )
    assert told.returncode == 0, told.stderr
    expected = json.loads(told.stdout.splitlines()[-1])
    assert [[[row.sequences[0], row.prompt] for row in rows] for rows in found] == expected


def test_steps_and_tokens_are_those_that_the_trainer_counted(
    job: Callable[..., Job], conversations: list[dict[str, Any]]
) -> None:
    """Rows whose answer begins beyond maxSeqLength are left out, others are cut."""
    long = [{"messages": [{"role": "user", "content": "why " * 200}, row["messages"][1]]} for row in conversations[:8]]
    done = job("counted", [*conversations[:16], *long], max_seq_length=48, epochs=2)
    done.run()
    found = _preflight(done)
    assert found.tokens is not None
    assert found.tokens.over_length > found.tokens.unlearnable > 0
    assert found.work is not None
    assert found.work.steps == done.outcome()["steps"]
    assert abs(found.work.tokens - done.outcome()["tokens"]) <= 0.01 * found.tokens.sampled_rows * 2


def test_steps_of_pairs_are_those_that_the_trainer_counted(preferred: Job) -> None:
    found = _preflight(preferred)
    assert found.work is not None
    assert found.work.steps == preferred.outcome()["steps"]


def _preflight(done: Job) -> Preflight:
    report = DatasetReport.model_validate_json(Path(done.paths.dataset_report).read_bytes())
    return run_preflight(done.config, done.base_model, Path(done.paths.train_rows), report.rows)


def _with_template(base_model: Path, directory: Path, template: str) -> Path:
    """The same tokenizer with another template, and a beginning that its vocabulary lacks."""
    shutil.copytree(base_model, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    (directory / "chat_template.jinja").write_text(template)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<|begin|>"}))
    return directory


def _request(model: Path, rows: Path) -> Request:
    return Request(model=str(model), rows=str(rows), method="SFT", max_tokens=10**9, batch_size=1)
