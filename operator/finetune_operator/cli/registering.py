"""`create-openai-job`, `setup-ab-test`, `register-model`: manifests of flags. Pure, but for the next free number."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.cli.connection import connected
from finetune_operator.cli.failures import usage
from finetune_operator.cli.job_making import base_model_of, job_spec, manifest
from finetune_operator.cli.kinds import VERSION
from finetune_operator.cli.options import Cluster

Object = dict[str, Any]
Made = Callable[[str], list[Object]]

WEIGHTS = ("accuracy", "latency", "cost")
WHOLE_PERCENT = 100


def openai_job(
    name: str | None,
    base_model: str,
    model: str | None,
    dataset: str | None,
    secret: str,
    provider: Mapping[str, Any],
    flags: Mapping[str, Any],
    suffix: str,
) -> Made:
    """A FineTuneJob of backend OpenAI. `secret` is NAME or NAME/KEY."""
    secret_name, _, key = secret.partition("/")
    spec = job_spec(base_model, model, dataset, None, {**flags, "backend": "OpenAI"})
    told = {field: value for field, value in provider.items() if value is not None}
    spec["openai"] = {"secretRef": {"name": secret_name, "key": key or "api-key"}, **told}
    chosen = name or f"{spec['model']}-{suffix}"
    return lambda namespace: [manifest("FineTuneJob", namespace, chosen, spec)]


def ab_test(
    name: str | None,
    candidate: str,
    baseline: str,
    prompts: Sequence[str],
    prompts_file: Path | None,
    traffic: Mapping[str, Any],
    decision: Mapping[str, Any],
    others: Mapping[str, Any],
    suffix: str,
) -> Made:
    """An ABTest of two versions, or of a version and its base model."""
    model, dash, _ = candidate.rpartition("-v")
    if not dash:
        raise usage(f"{candidate!r} is no version: write <model>-v<N>, as `ftctl get versions` lists them")
    asked = [*prompts, *(_lines(prompts_file) if prompts_file else ())]
    spec: Object = {
        "model": model,
        "baseline": {"base": True} if baseline == "base" else {"modelVersion": baseline},
        "candidate": {"modelVersion": candidate},
    }
    if asked:
        spec["prompts"] = asked
    for field, values in (("traffic", traffic), ("decision", decision)):
        if said := {key: value for key, value in values.items() if value is not None}:
            spec[field] = said
    spec |= {key: value for key, value in others.items() if value is not None}
    return lambda namespace: [manifest("ABTest", namespace, name or f"{candidate}-{suffix}", spec)]


def weights_of(said: str) -> Object:
    """Of ACCURACY,LATENCY,COST in percent. Raises `Failed`."""
    parts = said.split(",")
    if len(parts) != len(WEIGHTS) or not all(part.strip().isdecimal() for part in parts):
        raise usage(f"--weights {said!r}: write accuracy,latency,cost in percent, such as 60,20,20")
    weights = dict(zip(WEIGHTS, map(int, parts), strict=True))
    if sum(weights.values()) != WHOLE_PERCENT:
        raise usage(f"--weights {said!r} sum to {sum(weights.values())}: make them sum to {WHOLE_PERCENT}")
    return weights


async def next_version(cluster: Cluster, model: str) -> int:
    """The number after the highest there is. Raises `Failed`."""
    async with connected(cluster) as connection:
        versions = await connection.list(VERSION.plural, connection.namespace)
    return 1 + max((body["spec"]["version"] for body in versions if body["spec"]["model"] == model), default=0)


def model_version(
    model: str,
    number: int,
    base_model: str,
    uri: str,
    digest: str | None,
    base_url: str | None,
    notes: str | None,
    *,
    serve: bool,
) -> Made:
    """A ModelVersion of an adapter that is there already."""
    spec: Object = {
        "model": model,
        "version": number,
        "baseModel": base_model_of(base_model, openai=uri.startswith("openai://")),
        "artifact": {"uri": uri},
    }
    if digest:
        spec["artifact"]["digest"] = digest
    if base_url:
        spec["artifact"]["baseUrl"] = base_url
    if serve:
        spec["serving"] = {}
    if notes:
        spec["notes"] = notes
    return lambda namespace: [manifest("ModelVersion", namespace, f"{model}-v{number}", spec)]


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file}: {error}") from None
