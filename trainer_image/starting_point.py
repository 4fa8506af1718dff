"""`spec.initFrom`: a training that goes on from an adapter that was published before.

Its files are checked against the digest that the ModelVersion names before anything of them is loaded, and its shape
against the job's: PEFT would load weights of another rank or of other layers in part, and say nothing.
"""

import json
from pathlib import Path
from typing import Any

from failures import GivenUp, log
from publish import hashed_files, load_published_adapter
from pydantic import ValidationError

from finetune_operator.contract.adapters import AdapterManifest
from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import LoraConfig, StartingAdapter, TrainingConfig
from finetune_operator.core.artifacts import CONFIG_NAME, MANIFEST_NAME, Expected, lora_rank, refuse_adapter


def load_starting_adapter(config: TrainingConfig, model: Any) -> None:
    """Give the fresh adapter the weights to start from, if the job names any."""
    start = config.init_from
    if start is None:
        return
    check(start, config)
    load_published_adapter(model, Path(start.path))
    log("goes on from an earlier version", model_version=start.model_version, digest=start.digest)


def check(start: StartingAdapter, config: TrainingConfig) -> None:
    """Raises GivenUp unless the directory is the published adapter and has the shape of the job's."""
    directory = Path(start.path)
    try:
        manifest = AdapterManifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
        adapter_config = json.loads((directory / CONFIG_NAME).read_bytes())
        expected = Expected(start.digest, config.base_model_name, max_lora_rank=10**6)
        refusal = refuse_adapter(manifest, hashed_files(directory, MANIFEST_NAME), adapter_config, expected)
    except (OSError, ValueError, ValidationError) as error:
        raise unusable(start, f"can't be read: {error}") from error
    if refusal:
        raise unusable(start, refusal.message)
    for field, theirs, ours in differences(adapter_config, config.lora):
        raise GivenUp(
            FailureReason.INVALID_CONFIG,
            f"{start.model_version} has {field} {theirs}, this job has {ours}",
            f"set spec.lora.{field} to that of {start.model_version}, or remove spec.initFrom",
        )


def differences(adapter_config: dict[str, Any], lora: LoraConfig) -> list[tuple[str, object, object]]:
    """(field of spec.lora, the adapter's value, the job's) where they differ."""
    modules = adapter_config.get("target_modules")
    theirs = sorted(modules) if isinstance(modules, list) else modules
    compared = (
        ("r", lora_rank(adapter_config), lora.r),
        ("alpha", adapter_config.get("lora_alpha"), lora.alpha),
        ("targetModules", theirs, sorted(lora.target_modules)),
    )
    return [entry for entry in compared if entry[1] != entry[2]]


def unusable(start: StartingAdapter, fact: str) -> GivenUp:
    return GivenUp(
        FailureReason.ARTIFACT_INVALID,
        f"the adapter of {start.model_version}: {fact}",
        "name another version in spec.initFrom, or restore its files on the artifacts volume",
    )
