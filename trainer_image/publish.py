"""How a training's outcome reaches the volume and the operator: atomically, the result last.

A reader of the volume sees either no `adapter/` or a whole one with its manifest. `result.json` exists only when the
adapter does. The termination message is what the operator reads.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import durable
from failures import log

from finetune_operator.contract.adapters import AdapterFile, AdapterManifest
from finetune_operator.contract.failures import Failure
from finetune_operator.contract.places import TERMINATION_MESSAGE_MAX_BYTES
from finetune_operator.contract.training import TrainingResult
from finetune_operator.core.artifacts import CONFIG_NAME, MANIFEST_NAME, adapter_digest, lora_rank


def publish_adapter(model: Any, destination: Path, attempt: str, base_model_name: str) -> AdapterManifest:
    """Save the adapter as safetensors with its manifest, then give the directory its name."""
    for left_by_dead_attempt in destination.parent.glob(f".{destination.name}.*"):
        shutil.rmtree(left_by_dead_attempt)
    temporary = destination.with_name(f".{destination.name}.{attempt}")
    # TRL's DPO trainer keeps a second adapter, the reference, in the same model.
    model.save_pretrained(temporary, selected_adapters=[model.active_adapter])
    manifest = make_manifest(temporary, base_model_name)
    (temporary / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2))
    if destination.exists():
        # An attempt died between the rename and the result: nobody was told of this adapter yet.
        shutil.rmtree(destination)
    durable.publish(temporary, destination)
    return manifest


def load_published_adapter(model: Any, directory: Path) -> None:
    """Give the model's fresh adapter the weights of the published one."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    loaded = set_peft_model_state_dict(model, load_file(directory / "adapter_model.safetensors"))
    if loaded.unexpected_keys:
        raise RuntimeError(f"{directory} has weights that the model lacks: {loaded.unexpected_keys[:3]}")


def make_manifest(directory: Path, base_model_name: str) -> AdapterManifest:
    files = hashed_files(directory)
    rank = lora_rank(json.loads((directory / CONFIG_NAME).read_text()))
    return AdapterManifest(base_model_name=base_model_name, rank=rank, files=tuple(files), digest=adapter_digest(files))


def hashed_files(directory: Path, *without: str) -> list[AdapterFile]:
    """What is really in a directory of weights, which may be larger than the memory."""
    files = []
    for path in sorted(directory.iterdir()):
        if path.name not in without:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files.append(AdapterFile(name=path.name, size_bytes=path.stat().st_size, sha256=digest))
    return files


def read_result(result_file: Path, adapter: Path) -> TrainingResult | None:
    """The outcome of an earlier attempt, if it got to its end."""
    if not (result_file.exists() and (adapter / MANIFEST_NAME).exists()):
        return None
    return TrainingResult.model_validate_json(result_file.read_bytes())


def write_result(result: TrainingResult, result_file: Path) -> None:
    durable.write(result_file, result.model_dump_json(by_alias=True, indent=2))


def write_termination_message(outcome: TrainingResult | Failure, file: Path) -> None:
    """In place: the kubelet mounts this one file. Longer messages it would cut in the middle of the JSON."""
    try:
        file.write_bytes(shortened(outcome))
    except OSError as error:
        log("the termination message can't be written", file=file, error=error)


def shortened(outcome: TrainingResult | Failure) -> bytes:
    """The message as JSON of at most `TERMINATION_MESSAGE_MAX_BYTES`, less telling parts left out first."""
    shorter = _shorter_failures(outcome) if isinstance(outcome, Failure) else _shorter_results(outcome)
    for candidate in chain((outcome,), shorter):
        content = candidate.model_dump_json(by_alias=True).encode()
        if len(content) <= TERMINATION_MESSAGE_MAX_BYTES:
            return content
    raise ValueError(f"a termination message of {len(content)} bytes can't be shortened")


def _shorter_failures(failure: Failure) -> Iterator[Failure]:
    """Characters that JSON escapes have six bytes."""
    for most in (800, 400):
        yield failure.model_copy(update={"message": failure.message[:most], "remedy": failure.remedy[: most // 2]})


def _shorter_results(result: TrainingResult) -> Iterator[TrainingResult]:
    dataset = result.dataset.model_copy(update={"warnings": (), "dropped": {}, "dropped_rows": {}})
    for update in ({"dataset": dataset}, {"versions": {}}, {"artifacts": ()}):
        result = result.model_copy(update=update)
        yield result
    for most in (100, 30):
        errors = tuple(error.model_copy(update={"message": error.message[:most]}) for error in result.output_errors)
        result = result.model_copy(update={"output_errors": errors})
        yield result
        if report := result.evaluation:
            said = {"error": report.error and report.error[:most], "remark": report.remark and report.remark[:most]}
            result = result.model_copy(update={"evaluation": report.model_copy(update=said)})
            yield result
    # The prepare container has told it before.
    yield result.model_copy(update={"dataset": dataset.model_copy(update={"preflight": None})})
