"""The Kubernetes Job that asks an engine the same questions of a served version and of its base model.

It needs no GPU and none of the large images: the scores are computed in the operator's.
"""

from pathlib import PurePosixPath

from finetune_operator.contract.evaluation import Metric
from finetune_operator.contract.places import (
    DATASET_NAME,
    EVALUATION_CONFIG_ANNOTATION,
    EVALUATION_CONFIG_FILE,
    EVALUATOR_CONTAINER,
)
from finetune_operator.contract.served_evaluation import SaturationConfig, ServedEvaluationConfig
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.asking import Artifacts, Asking, asking_job
from finetune_operator.manifests.common import (
    EVALUATION_LABEL,
    VERSION_NAME_LABEL,
    VERSION_UID_LABEL,
    Manifest,
    digest_of,
    labels,
)
from finetune_operator.manifests.dataset_sources import every_row
from finetune_operator.manifests.serving import adapter_of, artifact_claim, engine_name, engine_url, wanted_engine
from finetune_operator.resources.evaluation import ServedEvaluationStatus, VersionEvaluation
from finetune_operator.resources.modelversion import ModelVersion, ModelVersionSpec

COMPONENT_NAME = "evaluator"
NAME_MAX_LENGTH = 63
DIGEST_LENGTH = 12


def evaluation_id(spec: ModelVersionSpec) -> str | None:
    """Of everything that decides the outcome, the engine's parameters included; None where nothing is asked for."""
    wanted, serving = spec.evaluation, spec.serving
    if wanted is None or serving is None or not wanted.metrics or spec.artifact.digest is None:
        return None
    asked = wanted.to_dict() | {"metrics": sorted(wanted.metrics), "require": None}
    return digest_of(
        {"asked": asked, "adapter": spec.artifact.digest, "engine": engine_name(spec, serving)}, DIGEST_LENGTH
    )


def current_evaluation(version: ModelVersion) -> ServedEvaluationStatus | None:
    """What was measured, if it is what the spec asks for now."""
    measured = version.status.evaluation
    return measured if measured and measured.id == evaluation_id(version.spec) else None


def evaluation_job_name(version: ModelVersion, identity: str) -> str:
    """Follows from version and evaluation: whoever makes it twice finds it there."""
    tail = f"-eval-{digest_of([version.metadata.uid, identity])}"
    return f"{version.metadata.name[: NAME_MAX_LENGTH - len(tail)].rstrip('-.')}{tail}"


def evaluation_job(
    version: ModelVersion, identity: str, config: OperatorConfig, base_engine: str | None = None
) -> Manifest:
    """The Job; its last pod stays until it is deleted, since its message is the result."""
    own = labels(
        COMPONENT_NAME,
        {
            VERSION_UID_LABEL: version.metadata.uid,
            VERSION_NAME_LABEL: version.metadata.name,
            EVALUATION_LABEL: identity,
        },
    )
    wanted = _wanted(version.spec)
    claim = artifact_claim(version.spec.artifact.uri)
    asking = Asking(
        job_name=evaluation_job_name(version, identity),
        labels=own,
        container=EVALUATOR_CONTAINER,
        command="evaluate",
        config=evaluation_config(version, config, base_engine),
        config_file=EVALUATION_CONFIG_FILE,
        config_annotation=EVALUATION_CONFIG_ANNOTATION,
        dataset=wanted.dataset,
        artifacts=None if wanted.dataset else Artifacts(claim, read_only=True),
        deadline_seconds=wanted.timeout_seconds,
        # Another one for the version itself makes it another evaluation.
        base_engine=base_engine if base_engine != wanted_engine(version) else None,
    )
    return asking_job(version, asking, config)


def evaluation_config(
    version: ModelVersion, config: OperatorConfig, base_engine: str | None = None
) -> ServedEvaluationConfig:
    """What the pod is told; the base model is asked at the `base_engine`, where the version's own does not serve it."""
    spec = version.spec
    wanted = _wanted(spec)
    if spec.serving is None:
        raise ValueError("only a version that is served is asked anything")
    adapter = PurePosixPath(adapter_of(version).path)
    engine, namespace = engine_name(spec, spec.serving), version.metadata.namespace
    return ServedEvaluationConfig(
        engine_url=engine_url(engine, namespace),
        base_engine_url=engine_url(base_engine, namespace) if base_engine and base_engine != engine else None,
        base_model_name=spec.base_model.name,
        served_name=version.metadata.name,
        metrics=tuple(Metric(name) for name in wanted.metrics),
        max_examples=wanted.max_examples,
        max_new_tokens=wanted.max_new_tokens,
        concurrency=wanted.concurrency,
        # Where the trainer's files are, beside the adapter that it published.
        rows_path=str(adapter.parent / DATASET_NAME / "test.jsonl"),
        dataset=every_row(wanted.dataset, namespace, wanted.dataset.format, config) if wanted.dataset else None,
        saturation=SaturationConfig(
            step_seconds=wanted.saturation.step_seconds, max_concurrency=wanted.saturation.max_concurrency
        )
        if wanted.saturation
        else None,
    )


def _wanted(spec: ModelVersionSpec) -> VersionEvaluation:
    if spec.evaluation is None:
        raise ValueError("nothing is to be evaluated")
    return spec.evaluation
