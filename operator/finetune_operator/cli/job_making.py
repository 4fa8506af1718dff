"""From flags to the manifest that they stand for. Pure: what a flag does not say is left to the CRD's defaults."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from finetune_operator.cli.failures import Failed, usage
from finetune_operator.core import job_texts
from finetune_operator.core.cost import CPU, GPU_TYPE_LABEL
from finetune_operator.resources.common import API_VERSION
from finetune_operator.resources.dataset import STORED_PATH

PLACES: Mapping[str, tuple[str, ...]] = {
    "method": ("method",),
    "backend": ("backend",),
    "epochs": ("training", "epochs"),
    "max_steps": ("training", "maxSteps"),
    "batch_size": ("training", "batchSize"),
    "learning_rate": ("training", "learningRate"),
    "max_seq_length": ("training", "maxSeqLength"),
    "quantization": ("training", "quantization"),
    "lora_r": ("lora", "r"),
    "lora_alpha": ("lora", "alpha"),
    "lora_dropout": ("lora", "dropout"),
    "format": ("dataset", "format"),
    "test_fraction": ("dataset", "testFraction"),
    "min_examples": ("dataset", "minExamples"),
    "min_rating_difference": ("dataset", "minRatingDifference"),
    "min_confidence_diff": ("dataset", "minConfidenceDiff"),
    "philosopher": ("dataset", "ratings", "philosopher"),
    "domain": ("dataset", "ratings", "domain"),
    "task_type": ("dataset", "ratings", "taskType"),
    "min_rating": ("dataset", "ratings", "minRating"),
    "limit": ("dataset", "ratings", "limit"),
    "ratings_claim": ("dataset", "ratings", "claimName"),
    "promotion": ("promotion",),
    "suspend": ("suspend",),
    "gpu_type": ("scheduling", "nodeSelector", GPU_TYPE_LABEL),
    "cpus": ("resources", "requests", CPU),
}
"""Flags by where the FineTuneJob has them."""

Spec = dict[str, Any]


def job_spec(
    base_model: str, model: str | None, dataset: str | None, gpus: int | None, flags: Mapping[str, Any]
) -> Spec:
    """A FineTuneJob's spec. Raises `Failed` for what can't be meant."""
    given = {name: value for name, value in flags.items() if value is not None and name in PLACES}
    openai = given.get("backend") == "OpenAI"
    spec: Spec = {"model": model or family_of(base_model), "baseModel": base_model_of(base_model, openai=openai)}
    for name, value in given.items():
        put(spec, PLACES[name], value)
    if dataset is not None:
        if "ratings" in spec.get("dataset", {}):
            filters = ", ".join(
                f"--{name.replace('_', '-')}" for name in given if PLACES[name][:2] == ("dataset", "ratings")
            )
            raise usage(f"{filters} choose ratings, which --dataset replaces: remove one of them")
        spec["dataset"] = spec.get("dataset", {}) | dataset_of(dataset)
    elif "dataset" in spec:
        spec["dataset"].setdefault("ratings", {})
    needs_gpu = not openai and given.get("quantization", "4bit") != "none"
    if gpus == 0 and needs_gpu:
        raise usage("weights of 4 or 8 bit need a GPU: add --quantization none, or leave out --gpus 0")
    if "gpu_type" in given and not (needs_gpu if gpus is None else gpus):
        raise usage("--gpu-type is of a GPU, and none is asked for: add --gpus 1, or leave it out")
    job_texts.put_gpus(spec, gpus, needs_gpu=needs_gpu)
    return spec


def base_model_of(text: str, *, openai: bool = False) -> Spec:
    """Of `<owner>/<name>[@<revision>]`, `volume://<claim>/<path>`, or a provider's model. Raises `Failed`."""
    try:
        return job_texts.base_model_of(text, of_provider=openai)
    except job_texts.NoVolumePath:
        raise _no_volume_path("--base-model", text) from None
    except job_texts.NoHubModel:
        raise usage(
            f"--base-model {text}: write <owner>/<name>[@<revision>] for a model of the hub, or volume://<claim>/<path>"
        ) from None


def dataset_of(text: str) -> Spec:
    """Of `volume://<claim>/<path>`, `s3://<bucket>/<key>`, or `<id>/<file>` of the api. Raises `Failed`."""
    if text.startswith("s3://"):
        return {"s3": {"url": text}}
    if text.startswith(job_texts.VOLUME):
        try:
            return {"volume": job_texts.volume_of(text)}
        except job_texts.NoVolumePath:
            raise _no_volume_path("--dataset", text) from None
    if re.fullmatch(STORED_PATH, text):
        return {"stored": {"path": text}}
    raise usage(
        f"--dataset {text}: write volume://<claim>/<path>, s3://<bucket>/<key>, or <id>/<file> of what the api keeps; "
        "without it, ratings are taken"
    )


def _no_volume_path(flag: str, text: str) -> Failed:
    return usage(f"{flag} {text}: write volume://<claim>/<path>")


def family_of(base_model: str) -> str:
    """The family that a base model's name, or its place, stands for. Raises `Failed` where nothing of it can be one."""
    family = job_texts.family_of(base_model)
    if not family:
        raise usage(f"--model: no name can be made of {base_model!r}; say one")
    return family


def put(spec: Spec, place: Sequence[str], value: Any) -> None:
    for part in place[:-1]:
        below = spec.setdefault(part, {})
        if not isinstance(below, dict):
            raise usage(f"--set {'.'.join(place)}: {part} is no mapping")
        spec = below
    spec[place[-1]] = value


def with_settings(spec: Spec, settings: Sequence[str]) -> Spec:
    """Any other field by its path, such as `training.packing=true`; the value is YAML. Raises `Failed`."""
    for setting in settings:
        path, equals, value = setting.partition("=")
        parts = [part for part in path.removeprefix("spec.").split(".") if part]
        if not equals or not parts:
            raise usage(f"--set {setting}: write PATH=VALUE, such as training.packing=true")
        try:
            put(spec, parts, yaml.safe_load(value))
        except yaml.YAMLError:
            raise usage(f"--set {setting}: the value is no YAML; put it in quotes") from None
    return spec


def manifest(kind: str, namespace: str, name: str, spec: Spec) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
