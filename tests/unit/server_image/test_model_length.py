"""A server starts with any base model: its longest conversation is at most what the model takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server_image.modules import load_server_module

model_length = load_server_module("model_length")


def model(directory: Path, config: Any, tokenizer: Any = None) -> Path:
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if tokenizer is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return directory


@pytest.mark.parametrize(
    ("config", "tokenizer", "longest"),
    [
        ({"max_position_embeddings": 512}, None, 512),
        ({"n_positions": 1024}, None, 1024),
        ({"text_config": {"max_position_embeddings": 2048}}, None, 2048),
        ({"max_position_embeddings": 4096}, {"model_max_length": 2048}, 2048),
        ({"max_position_embeddings": 4096}, {"model_max_length": 1e30}, 4096),
        ({"max_position_embeddings": 8192, "model_max_length": 131_072}, None, 131_072),
        ({"max_position_embeddings": 131_072, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, None, 131_072),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}, None, 512),
        (
            {"max_position_embeddings": 512, "rope_parameters": {"full": {"rope_type": "yarn"}, "local": {}}},
            None,
            512,
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4}}, None, None),
        ({"max_position_embeddings": None}, {"model_max_length": 512}, None),
        ({}, None, None),
        ("no JSON", None, None),
        ("[]", None, None),
    ],
)
def test_what_a_configuration_says(tmp_path: Path, config: Any, tokenizer: Any, longest: int | None) -> None:
    assert model_length.longest_of(model(tmp_path, config, tokenizer)) == longest


@pytest.mark.parametrize(
    ("wanted", "used"), [("4096", "512"), ("512", "512"), ("100", "100"), ("auto", "auto"), ("-1", "-1")]
)
def test_a_longer_length_becomes_the_models(tmp_path: Path, wanted: str, used: str) -> None:
    flags = ["--model", str(model(tmp_path, {"max_position_embeddings": 512})), "--max-model-len", wanted, "--port"]
    assert model_length.within_the_model(flags) == [*flags[:3], used, "--port"]


def test_the_last_flag_counts(tmp_path: Path) -> None:
    directory = str(model(tmp_path, {"max_position_embeddings": 512}))
    flags = ["--max-model-len", "8192", "--model", directory, "--max-model-len", "1024"]
    assert model_length.within_the_model(flags)[-1] == "512"


def test_merged_weights_are_named_apart(tmp_path: Path) -> None:
    directory = model(tmp_path, {"max_position_embeddings": 512})
    assert model_length.within_the_model(["--max-model-len", "4096"], directory) == ["--max-model-len", "512"]


@pytest.mark.parametrize("flags", [[], ["--max-model-len", "4096"], ["--model", "/nowhere", "--max-model-len", "4096"]])
def test_what_is_not_known_is_left_to_vllm(flags: list[str]) -> None:
    assert model_length.within_the_model(flags) == flags
