"""The Kubernetes Job that runs a dataset through one or two served models."""

from finetune_operator.contract.batch_inference import AskedModel, BatchInferenceConfig, SamplingConfig, VotingConfig
from finetune_operator.contract.places import (
    BATCH_ANSWERS_PATH,
    BATCH_CONFIG_ANNOTATION,
    BATCH_CONFIG_FILE,
    BATCH_CONTAINER,
    INTERNAL_TOKEN_VARIABLE,
    PAIRS_PATH,
    PROGRESS_PATH,
)
from finetune_operator.contract.training import JobIdentity
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.asking import Artifacts, Asking, asking_job
from finetune_operator.manifests.common import (
    BATCH_NAME_LABEL,
    BATCH_UID_LABEL,
    INTERNAL_TOKEN_KEY,
    Manifest,
    digest_of,
    labels,
    secret_variable,
)
from finetune_operator.manifests.dataset_sources import every_row
from finetune_operator.manifests.serving import asked_engine, engine_url
from finetune_operator.resources.abtest import ABTest
from finetune_operator.resources.batch_inference import BatchFormat, BatchInference, Voting
from finetune_operator.resources.dataset import DatasetFormat
from finetune_operator.resources.modelversion import ModelVersion

COMPONENT_NAME = "batch-inference"


def batch_job_name(batch: BatchInference) -> str:
    """Follows from the uid: a re-created BatchInference gets a Job of its own, a retry finds its own again."""
    return f"{batch.metadata.name}-{digest_of(batch.metadata.uid)}"


def asked_models(
    batch: BatchInference, version: ModelVersion, other: ModelVersion | None, base_engine: str | None = None
) -> tuple[AskedModel, ...]:
    """Who gets the rows: the version, and its base model or the `other` version. All of them are served.

    The base model is asked at the `base_engine`, where that is another one than the version's.
    """
    models = [_asked(version, version.metadata.name, asked_engine(version))]
    if batch.spec.compare_with and other:
        models.append(_asked(other, other.metadata.name, asked_engine(other)))
    elif batch.spec.compare_with:
        models.append(_asked(version, version.spec.base_model.name, base_engine or asked_engine(version)))
    return tuple(models)


def _asked(version: ModelVersion, served_name: str, engine: str | None) -> AskedModel:
    if engine is None:
        raise ValueError("only a version that is served is asked anything")
    return AskedModel(served_name=served_name, engine_url=engine_url(engine, version.metadata.namespace))


def batch_config(
    batch: BatchInference, models: tuple[AskedModel, ...], config: OperatorConfig, test: ABTest | None = None
) -> BatchInferenceConfig:
    """What the pod is told."""
    spec, metadata = batch.spec, batch.metadata
    prompts_alone = spec.dataset.format is BatchFormat.PROMPTS
    record_format = DatasetFormat.CHAT_ML if prompts_alone else DatasetFormat(spec.dataset.format.value)
    return BatchInferenceConfig(
        batch=JobIdentity(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid),
        models=models,
        dataset=every_row(spec.dataset, metadata.namespace, record_format, config),
        prompts_alone=prompts_alone,
        sampling=SamplingConfig(
            max_tokens=spec.parameters.max_tokens,
            temperature=float(spec.parameters.temperature),
            top_p=float(spec.parameters.top_p),
            seed=spec.parameters.seed,
        ),
        max_concurrent_requests=spec.max_concurrent_requests,
        limit=spec.limit,
        progress_url=f"{config.api_url}{PROGRESS_PATH}" if config.api_url else None,
        answers_url=f"{config.api_url}{BATCH_ANSWERS_PATH.format(uid=metadata.uid)}" if config.api_url else None,
        voting=_voting(spec.ab_test, test, config) if spec.ab_test and test else None,
    )


def _voting(voting: Voting, test: ABTest, config: OperatorConfig) -> VotingConfig:
    return VotingConfig(url=f"{config.api_url}{PAIRS_PATH.format(uid=test.metadata.uid)}", max_pairs=voting.max_pairs)


def batch_job(
    batch: BatchInference,
    models: tuple[AskedModel, ...],
    config: OperatorConfig,
    test: ABTest | None = None,
    base_engine: str | None = None,
) -> Manifest:
    """The Job; its pods find on the artifacts volume what those before them have answered."""
    own = labels(COMPONENT_NAME, {BATCH_UID_LABEL: batch.metadata.uid, BATCH_NAME_LABEL: batch.metadata.name})
    asking = Asking(
        job_name=batch_job_name(batch),
        labels=own,
        container=BATCH_CONTAINER,
        command="batch",
        config=batch_config(batch, models, config, test),
        config_file=BATCH_CONFIG_FILE,
        config_annotation=BATCH_CONFIG_ANNOTATION,
        dataset=batch.spec.dataset,
        artifacts=Artifacts(config.artifacts_claim, read_only=False),
        deadline_seconds=batch.spec.active_deadline_seconds,
        base_engine=base_engine,
        variables=(
            secret_variable(INTERNAL_TOKEN_VARIABLE, config.secret_name, INTERNAL_TOKEN_KEY, optional=True),
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ),
    )
    return asking_job(batch, asking, config)
