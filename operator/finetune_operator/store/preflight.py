"""The preflight where dataset and base model both are: in `prepare`, or for a model of the hub in `fetch`."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_operator.contract.failures import Refused
from finetune_operator.contract.preflight import Preflight, TokenLengths
from finetune_operator.contract.training import TrainingConfig
from finetune_operator.core.model_shape import ModelShape, model_shape
from finetune_operator.core.preflight import Rows, preflight, refusal
from finetune_operator.core.remote_training import CHARACTERS_PER_TOKEN
from finetune_operator.core.token_lengths import RowTokens, token_lengths
from finetune_operator.logs import get_logger
from finetune_operator.store.token_counter import TOKENIZER_NAME, Answer, Request, sampled

CONFIG_BYTES_MAX = 2**20
COUNTER = (sys.executable, "-m", "finetune_operator.store.token_counter")
WALL_SECONDS_MAX = 120

logger = get_logger(__name__)


def require_memory(config: TrainingConfig, model: Path) -> None:
    """By the model's config alone, before anything is made or downloaded. Raises `Refused`."""
    if failure := refusal(preflight(shape_in(model), config), config):
        raise Refused(failure)


def run_preflight(config: TrainingConfig, model: Path, rows_file: Path, rows: int) -> Preflight:
    """All that can be told of these training rows. Raises `Refused` for what is certain to fail."""
    counted = count_tokens(config, model, rows_file, rows)
    found = preflight(shape_in(model), config, counted)
    for warning in found.warnings:
        logger.warning(warning)
    if failure := refusal(found, config, counted):
        raise Refused(failure)
    return found


def shape_in(model: Path) -> ModelShape | None:
    """What the model's config tells; None where it tells nothing that is understood."""
    try:
        with (model / "config.json").open("rb") as file:
            return model_shape(file.read(CONFIG_BYTES_MAX).decode(errors="replace"))
    except OSError:
        return None


def count_tokens(config: TrainingConfig, model: Path, rows_file: Path, rows: int) -> Rows:
    """By the tokenizer, or else by characters, and then why."""
    if not (model / TOKENIZER_NAME).is_file():
        return Rows(rows, _by_characters(config, rows_file), f"the base model has no {TOKENIZER_NAME}")
    request = Request(
        model=str(model),
        rows=str(rows_file),
        method=config.method,
        max_tokens=config.training.max_seq_length,
        batch_size=config.training.batch_size,
    )
    answer = ask_counter(request, COUNTER, WALL_SECONDS_MAX)
    if answer.trouble is None:
        return Rows(rows, answer.lengths)
    trouble = f"the base model's tokenizer could not be used: {answer.trouble}"
    return Rows(rows, _by_characters(config, rows_file), trouble)


def characters_in(rows_file: Path) -> int:
    """Of all lines, by which a provider's tokens are estimated."""
    with rows_file.open("rb") as lines:
        return sum(len(line.decode()) for line in lines)


def ask_counter(request: Request, command: Sequence[str], wall_seconds: float) -> Answer:
    """In a process with nothing of this one's environment but where Python finds its modules."""
    try:
        done = subprocess.run(  # noqa: S603 - this program itself
            command,
            input=request.model_dump_json(by_alias=True).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"},
            timeout=wall_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(trouble=f"counting took longer than {wall_seconds:g} s")
    if done.returncode != 0:
        return Answer(trouble=f"counting ended with {_ending(done.returncode)}")
    try:
        return Answer.model_validate_json(done.stdout)
    except ValidationError:
        return Answer(trouble="counting told nothing that can be read")


def _ending(return_code: int) -> str:
    if return_code >= 0:
        return f"exit code {return_code}"
    return f"signal {-return_code}: it took too much time or memory"


def _by_characters(config: TrainingConfig, rows_file: Path) -> TokenLengths | None:
    rows = [_estimated(row, config.method) for row in sampled(rows_file)]
    return token_lengths(rows, config.training.max_seq_length, config.training.batch_size, "Characters")


def _estimated(row: Mapping[str, Any], method: str) -> RowTokens:
    if method == "DPO":
        prompt = _tokens(row["prompt"])
        return RowTokens((prompt + _tokens(row["chosen"]), prompt + _tokens(row["rejected"])), prompt)
    messages = row["messages"]
    answers = (index for index, message in enumerate(messages) if message["role"] == "assistant" and index > 0)
    return RowTokens((_tokens(messages),), _tokens(messages[: next(answers, len(messages))]))


def _tokens(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(len(message["content"]) for message in messages) // CHARACTERS_PER_TOKEN
