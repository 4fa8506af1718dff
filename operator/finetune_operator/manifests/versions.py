"""The ModelVersion that a successful FineTuneJob publishes."""

import re
from collections.abc import Iterable, Mapping

from finetune_operator.contract.artifacts import ArtifactType
from finetune_operator.contract.places import provider_uri
from finetune_operator.contract.training import TrainingConfig, TrainingResult
from finetune_operator.core.evaluation import record_of
from finetune_operator.manifests.common import JOB_NAME_LABEL, MODEL_LABEL, Manifest, labels
from finetune_operator.resources.common import API_VERSION, BaseModelRef
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import KIND, ModelVersion
from finetune_operator.resources.starting_point import StartingPoint


def next_version(model: str, versions: Iterable[ModelVersion], published: Iterable[str]) -> int:
    """One more than the highest number that the family ever had, as far as its versions and jobs tell.

    A number of a deleted version must not come back: an engine may still know that name.
    """
    prefix = f"{model}-v"
    told = (int(name.removeprefix(prefix)) for name in published if re.fullmatch(re.escape(prefix) + r"\d+", name))
    return 1 + max((*(v.spec.version for v in versions if v.spec.model == model), *told), default=0)


def model_version(
    job: FineTuneJob, number: int, uri: str, result: TrainingResult, config: TrainingConfig, trainer_image: str
) -> Manifest:
    """Not owned by the job: deleting the job must not delete what it made."""
    spec = job.spec
    hyperparameters = _hyperparameters(config, result) | {"method": spec.method.value, "backend": spec.backend.value}
    if result.remote:
        artifact: Manifest = {"uri": provider_uri(result.remote.model), "baseUrl": result.remote.base_url}
    else:
        artifact = {"uri": uri, "digest": result.adapter_digest}
        if result.merged_digest:
            artifact["mergedDigest"] = result.merged_digest
            if (merged_bytes := _bytes_of(result, ArtifactType.MERGED_WEIGHTS)) is not None:
                artifact["mergedSizeBytes"] = merged_bytes
        if (size_bytes := _bytes_of(result, ArtifactType.ADAPTER)) is not None:
            artifact["sizeBytes"] = size_bytes
    body: Manifest = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": f"{spec.model}-v{number}",
            "namespace": job.metadata.namespace,
            "labels": labels("version", {MODEL_LABEL: spec.model, JOB_NAME_LABEL: job.metadata.name}),
        },
        "spec": {
            "model": spec.model,
            "version": number,
            "baseModel": _frozen(spec.base_model, result.base_model_commit).to_dict(),
            "artifact": artifact,
            "lineage": {
                "fineTuneJob": job.metadata.name,
                "jobUid": job.metadata.uid,
                "datasetDigest": result.dataset.digest,
                "hyperparameters": {key: _text(value) for key, value in sorted(hyperparameters.items())},
                **({} if result.remote else {"trainerImage": trainer_image}),
            },
            "promotion": spec.promotion.value,
        },
    }
    if result.init_from:
        start = StartingPoint(model_version=result.init_from.model_version, digest=result.init_from.digest)
        body["spec"]["lineage"]["initFrom"] = start.to_dict()
    if measured := {key: value for key, value in record_of(result).to_dict().items() if value}:
        body["spec"]["lineage"]["evaluation"] = measured
    if spec.serving:
        # Where merging has failed the adapter is as good as ever; the job's condition Exported tells.
        merged = spec.serving.merged_weights and result.merged_digest is not None
        body["spec"]["serving"] = spec.serving.to_dict() | {"mergedWeights": merged}
    if spec.evaluation and spec.evaluation.require:
        body["spec"]["evaluation"] = {"require": list(spec.evaluation.require)}
    return body


def _bytes_of(result: TrainingResult, kind: ArtifactType) -> int | None:
    """As the trainer has listed it; None of one that lists nothing."""
    sizes = (artifact.size_bytes for artifact in result.artifacts if artifact.type is kind)
    return next(sizes, None)


def _hyperparameters(config: TrainingConfig, result: TrainingResult) -> dict[str, object]:
    """What the training was told; a provider is told little of it, and chooses the rest."""
    training = _flat(config.training.model_dump(by_alias=True, exclude_none=True))
    if config.remote is None or result.remote is None:
        return training | {"loraR": config.lora.r, "loraAlpha": config.lora.alpha, "loraDropout": config.lora.dropout}
    told = ("epochs", "batchSize", "seed", *(("dpoBeta",) if config.method == "DPO" else ()))
    multiplier = config.remote.learning_rate_multiplier
    return {name: training[name] for name in told} | {
        "learningRateMultiplier": "auto" if multiplier is None else multiplier,
        "providerJob": result.remote.job,
    }


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """`earlyStopping: {patience: 3}` as `earlyStopping.patience: 3`."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _frozen(base_model: BaseModelRef, commit: str | None) -> BaseModelRef:
    """With the commit that was trained on, so that serving never takes other weights of a branch that moved on."""
    hub = base_model.source.hub
    if hub is None or commit is None:
        return base_model
    source = base_model.source.model_copy(update={"hub": hub.model_copy(update={"revision": commit})})
    return base_model.model_copy(update={"source": source})


def _text(value: object) -> str:
    return re.sub(r"\.0$", "", str(value).lower() if isinstance(value, bool) else str(value))
