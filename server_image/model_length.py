"""How long a prompt and its answer may be: no longer than the base model was made for, as vLLM tells it.

vLLM refuses to start with a longer `--max-model-len`, and the default of `spec.serving.maxModelLen` is longer than what
small and older models take. Source: vllm/config/model.py, `_get_and_verify_max_len`.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LENGTH_FLAG = "--max-model-len"
MODEL_FLAG = "--model"
LENGTH_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
SCALED_ALREADY = frozenset({None, "default", "su", "longrope", "llama3", "yarn", "deepseek_yarn"})
"""Kinds of rotary positions with which a configuration's length is the model's."""


def within_the_model(vllm_flags: list[str], model: Path | None = None) -> list[str]:
    """The flags, with no longer a length than `model` takes; by default the one that the flags name."""
    flags = list(vllm_flags)
    place = _last(flags, LENGTH_FLAG)
    named = _last(flags, MODEL_FLAG)
    directory = model if model is not None else Path(flags[named]) if named is not None else None
    if place is None or directory is None or not flags[place].isdecimal():
        return flags
    longest = longest_of(directory)
    if longest is not None and int(flags[place]) > longest:
        flags[place] = str(longest)
    return flags


def longest_of(directory: Path) -> int | None:
    """In tokens; None where its configuration does not say, and vLLM has to."""
    config = _read(directory / "config.json")
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    if any(kind not in SCALED_ALREADY for kind in _kinds_of_positions(text)):
        return None
    told = [*(text.get(key) for key in LENGTH_KEYS), _read(directory / "tokenizer_config.json").get("model_max_length")]
    lengths = [int(length) for length in told if _is_length(length)]
    if not any(_is_length(text.get(key)) for key in LENGTH_KEYS):
        return None
    own = config.get("model_max_length")
    return max(min(lengths), int(own)) if _is_length(own) else min(lengths)


def _kinds_of_positions(text: Mapping[str, Any]) -> Iterator[Any]:
    """Of all layers: a model may have two kinds of them, each with its own."""
    for name in ("rope_scaling", "rope_parameters"):
        found = text.get(name)
        if not isinstance(found, dict):
            continue
        nested = [each for each in found.values() if isinstance(each, dict)]
        for each in nested or [found]:
            yield each.get("rope_type", each.get("type"))


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


def _read(file: Path) -> dict[str, Any]:
    """Empty for what can't be read: vLLM reads it next, and says what is wrong."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(file.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _last(flags: list[str], flag: str) -> int | None:
    """Where its value is; of several the last one counts."""
    places = [place + 1 for place, each in enumerate(flags[:-1]) if each == flag]
    return places[-1] if places else None
