"""From the flags of `ask` to the BatchInference that they stand for, and the ABTest that gets its answers. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune_operator.cli.failures import usage
from finetune_operator.cli.job_making import dataset_of, manifest, put, with_settings
from finetune_operator.core.batch_texts import FORMATS, family_of_version, format_of
from finetune_operator.resources.batch_inference import BatchFormat

PLACES: Mapping[str, tuple[str, ...]] = {
    "philosopher": ("dataset", "ratings", "philosopher"),
    "domain": ("dataset", "ratings", "domain"),
    "task_type": ("dataset", "ratings", "taskType"),
    "min_rating": ("dataset", "ratings", "minRating"),
    "ratings_claim": ("dataset", "ratings", "claimName"),
    "limit": ("limit",),
    "max_tokens": ("parameters", "maxTokens"),
    "temperature": ("parameters", "temperature"),
    "top_p": ("parameters", "topP"),
    "seed": ("parameters", "seed"),
    "concurrency": ("maxConcurrentRequests",),
    "suspend": ("suspend",),
}
"""Flags by where the BatchInference has them."""

Object = dict[str, Any]
Made = Callable[[str], list[Object]]


def batch(
    name: str | None,
    version: str,
    compare_with: str | None,
    dataset: str | None,
    format_: str | None,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    suffix: str,
    *,
    vote: bool,
) -> Made:
    """A BatchInference, and the ABTest before it where people vote. Raises `Failed` for what can't be meant."""
    family = family_of_version(version)
    if not family:
        raise usage(f"{version!r} is no version: write <model>-v<N>, as `ftctl get versions` lists them")
    given = {flag: value for flag, value in flags.items() if value is not None}
    spec: Object = {"modelVersion": version}
    for flag, value in given.items():
        put(spec, PLACES[flag], value)
    if compare_with is not None:
        spec["compareWith"] = {"base": True} if compare_with == "base" else {"modelVersion": compare_with}
    spec["dataset"] = _dataset(dataset, format_, given, spec.get("dataset", {"ratings": {}}))
    chosen = name or f"{version}-{suffix}"
    tests: list[Object] = []
    if vote:
        if compare_with is None:
            raise usage("--vote needs two answers to each row: add --compare-with base, or another version")
        spec["abTest"] = {"name": chosen}
        tests = [_test(family, version, spec["compareWith"])]
    spec = with_settings(spec, settings)
    return lambda namespace: [
        *(manifest("ABTest", namespace, chosen, test) for test in tests),
        manifest("BatchInference", namespace, chosen, spec),
    ]


def _dataset(dataset: str | None, format_: str | None, given: Mapping[str, Any], ratings: Object) -> Object:
    if dataset is None:
        if format_ is not None:
            raise usage("--format is of the rows of --dataset: add that, or leave out --format")
        return ratings
    filters = [f"--{flag.replace('_', '-')}" for flag in given if PLACES[flag][:2] == ("dataset", "ratings")]
    if filters:
        raise usage(f"{', '.join(filters)} choose ratings, which --dataset replaces: remove one of them")
    if format_ is not None and format_.lower() not in FORMATS:
        raise usage(f"--format {format_}: write one of {', '.join(BatchFormat)}")
    chosen = FORMATS[format_.lower()] if format_ else format_of(dataset)
    return dataset_of(dataset) | ({} if chosen is BatchFormat.PROMPTS else {"format": chosen.value})


def _test(family: str, version: str, baseline: Object) -> Object:
    return {"model": family, "baseline": baseline, "candidate": {"modelVersion": version}, "onWin": "Notify"}
