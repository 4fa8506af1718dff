"""`finetune-operator estimate`: what a FineTuneJob would take, told without a cluster."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.__main__ import main
from tests.builders import HUB_MODEL, job_object
from tests.unit.store.hub_server import Hub, Repository, serving
from tests.unit.store.small_models import (
    CHAT_ML,
    TINY_LLAMA,
    byte_level_tokenizer,
    conversation,
    write_model,
    write_rows,
)

LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
GPU = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
H100: dict[str, Any] = GPU | {"scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}}
PRICES = {"prices": {"currency": "EUR", "gpuTypes": {"NVIDIA-H100-80GB-HBM3": "3.90", "NVIDIA-L4": "0.60"}}}


def job_file(tmp_path: Path, spec: dict[str, Any]) -> str:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job_object(spec)))
    return str(file)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["estimate", *arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return shown.out


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["estimate", *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def table(text: str) -> dict[str, tuple[str, ...]]:
    """Each device's cells, by the columns of the head."""
    lines = text.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("DEVICE"))
    starts = [lines[head].index(title) for title in ("DEVICE", "MEMORY", "FITS", "TIME", "COST")] + [None]
    rows = {}
    for line in lines[head + 1 :]:
        if line.startswith(("this job", "Without", "Times")):
            break
        cells = tuple(line[left:right].strip() for left, right in pairwise(starts))
        rows[cells[0]] = cells[1:]
    return rows


def test_each_known_device_has_its_time_and_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", config=LLAMA_70B)
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(PRICES))
    given = ["--base-model", str(model), "--rows", "1000", "--tokens", "500", "--prices", str(tmp_path / "values.yaml")]
    text = told(capsys, job_file(tmp_path, H100), *given)
    assert "base model: 70.55 billion parameters" in text
    assert "training: 750 steps, 1500000 tokens" in text
    rows = table(text)
    assert rows["NVIDIA-H100-80GB-HBM3"] == rows["H100"]
    assert rows["H100"][:2] == ("80 GiB", "Likely")
    assert rows["H100"][3].endswith("EUR")
    assert rows["L4"] == ("24 GiB", "No", "", "")
    assert rows["A100-80GB"][3] == ""
    for device in ("V100-32GB", "A10", "Apple M1", "Apple M2 Ultra", "16 CPU cores", "B200"):
        assert device in rows


def test_a_dataset_is_counted_by_the_models_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "dataset").mkdir()
    write_rows(tmp_path / "dataset" / "train.jsonl", [conversation("a question", "an answer")] * 40)
    spec = {"resources": {"limits": {"cpu": 2}}, "training": {"epochs": 2, "quantization": "none"}}
    text = told(capsys, job_file(tmp_path, spec), "--base-model", str(model), "--dataset", str(tmp_path / "dataset"))
    length = len("_user\na question_\n_assistant\nan answer_\n")
    assert f"rows: 40, half of them up to {length} tokens, 95 % up to {length} (40 looked at)" in text
    assert f"training: 20 steps, {2 * 40 * length} tokens" in text
    assert table(text)["2 CPU cores"][2]


def test_what_can_not_fit_is_told_as_the_job_would_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model", config=LLAMA_70B)
    spec = H100 | {"training": {"quantization": "none"}}
    text = told(capsys, job_file(tmp_path, spec), "--base-model", str(model), "--rows", "10", "--tokens", "50")
    assert "refused: 70.55 billion parameters with quantization none take" in text
    assert "training.quantization 4bit instead of none" in text


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "config.json": json.dumps(TINY_LLAMA), "tokenizer.json": byte_level_tokenizer(), "chat_template.jinja": CHAT_ML,
        "model.safetensors": "weights",
    }  # fmt: skip
    commit = "1" * 40
    contents = {commit: {name: text.encode() for name, text in files.items()}}
    with serving(Hub({"Qwen/Qwen3-0.6B": Repository({"main": commit}, contents)})) as hub:
        yield hub


def test_of_a_hub_model_all_but_the_weights_is_looked_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    text = told(capsys, job_file(tmp_path, GPU | {"baseModel": HUB_MODEL}), "--rows", "100", "--tokens", "50")
    assert "base model: 0.00092 billion parameters" in text
    assert "the job names no GPU type" in text
    assert hub.downloads() == ["chat_template.jinja", "config.json", "tokenizer.json"]


PROVIDER = {
    "backend": "OpenAI",
    "openai": {"secretRef": {"name": "openai", "key": "api-key"}},
    "baseModel": {"source": {"volume": None, "openai": {"model": "gpt-4.1-mini"}}},
}


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({"perMillionTokens": {"gpt-4.1-mini": "5"}}, "cost: 0.75 USD"),
        ({}, 'cost: unknown: no price for training gpt-4.1-mini: set prices.perMillionTokens."gpt-4.1-mini"'),
    ],
)
def test_a_provider_bills_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prices: dict[str, Any], cost: str
) -> None:
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(prices))
    given = ["--rows", "100", "--tokens", "500", "--prices", str(tmp_path / "prices.yaml")]
    text = told(capsys, job_file(tmp_path, PROVIDER), *given)
    assert "training: 75 steps, about 150000 tokens" in text
    assert cost in text
    assert "time: unknown: a provider's time is not known" in text


WRONG: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "no rows": (GPU, ["--base-model", "MODEL"], "say what it trains on: --dataset DIRECTORY, or --rows and --tokens"),
    "a model on a volume": (GPU, ["--rows", "1", "--tokens", "1"], "say with --base-model where its config.json is"),
    "no model": (GPU, ["--base-model", "nowhere", "--rows", "1", "--tokens", "1"], "no model whose size is understood"),
    "no dataset": (GPU, ["--base-model", "MODEL", "--dataset", "nowhere"], "nowhere/train.jsonl: No such file"),
    "no prices": (
        GPU, ["--base-model", "MODEL", "--rows", "1", "--tokens", "1", "--prices", "MODEL/config.json"],
        "has no prices as in the chart's values",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "arguments", "expected"), WRONG.values(), ids=WRONG.keys())
def test_what_is_missing_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: dict[str, Any], arguments: list[str], expected: str
) -> None:
    model = write_model(tmp_path / "model")
    given = [argument.replace("MODEL", str(model)) for argument in arguments]
    assert expected in complaint(capsys, job_file(tmp_path, spec), *given)


def test_a_file_without_a_job_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").write_text("kind: ConfigMap\n")
    assert "0 FineTuneJobs found: give one" in complaint(capsys, str(tmp_path / "empty.yaml"))
