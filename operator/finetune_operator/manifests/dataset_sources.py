"""A dataset's source as a pod reads it: mounted paths instead of claims, environment variables instead of Secrets."""

from finetune_operator.contract.dataset import DatasetConfig, ObjectSource, RatingsSource, StoredSource, VolumeSource
from finetune_operator.contract.places import (
    DATABASE_URL_VARIABLE,
    DATASETS_ROOT,
    RATINGS_ROOT,
    STORE_CREDENTIAL_VARIABLES,
    STORED_FILE_PATH,
)
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.common import Manifest, claim_volume, secret_variable
from finetune_operator.resources.batch_inference import BatchDataset
from finetune_operator.resources.dataset import Dataset, DatasetFormat
from finetune_operator.resources.evaluation import EvaluationDataset

AnyDataset = Dataset | EvaluationDataset | BatchDataset


def stored_source(path: str, namespace: str, config: OperatorConfig) -> StoredSource:
    """A file of the api, which keeps those that were uploaded by namespace."""
    identity, _, name = path.partition("/")
    below = STORED_FILE_PATH.format(namespace=namespace, id=identity, file=name)
    return StoredSource(path=path, url=f"{config.api_url}{below}" if config.api_url else None)


def dataset_source(
    dataset: AnyDataset, namespace: str, config: OperatorConfig
) -> RatingsSource | VolumeSource | ObjectSource | StoredSource:
    """Where the rows come from, and which of a database's are taken."""
    if dataset.ratings:
        ratings = dataset.ratings
        return RatingsSource(
            philosopher=ratings.philosopher,
            domain=ratings.domain,
            task_type=ratings.task_type,
            min_rating=ratings.min_rating,
            min_confidence=float(ratings.min_confidence) if ratings.min_confidence else None,
            gold_star_only=ratings.gold_star_only,
            limit=ratings.limit,
        )
    if dataset.volume:
        return VolumeSource(path=dataset.volume.path)
    if dataset.s3:
        return ObjectSource(url=dataset.s3.url, endpoint=dataset.s3.endpoint)
    if not isinstance(dataset, EvaluationDataset) and dataset.stored:
        return stored_source(dataset.stored.path, namespace, config)
    raise ValueError("the API server admits no dataset without a source")


def every_row(
    dataset: AnyDataset, namespace: str, record_format: DatasetFormat, config: OperatorConfig
) -> DatasetConfig:
    """Of a dataset that is asked rather than trained on: each row counts, since a label may be one letter long."""
    return DatasetConfig(
        source=dataset_source(dataset, namespace, config),
        format=record_format.value,
        test_fraction=0.0,
        min_examples=1,
        min_prompt_characters=1,
        min_response_characters=1,
        database_timeout_seconds=config.database_timeout_seconds,
    )


def source_secrets(dataset: AnyDataset) -> list[Manifest]:
    """Variables that the kubelet fills."""
    if dataset.ratings:
        reference = dataset.ratings.secret_ref
        return [secret_variable(DATABASE_URL_VARIABLE, reference.name, reference.key)]
    if dataset.s3 and dataset.s3.secret_ref:
        return [secret_variable(name, dataset.s3.secret_ref.name, name) for name in STORE_CREDENTIAL_VARIABLES]
    return []


def source_mounts(dataset: AnyDataset) -> list[Manifest]:
    """Where the container finds files."""
    if dataset.volume:
        return [{"name": "datasets", "mountPath": DATASETS_ROOT, "readOnly": True}]
    if dataset.ratings and dataset.ratings.claim_name:
        return [{"name": "ratings", "mountPath": RATINGS_ROOT, "readOnly": True}]
    return []


def source_volumes(dataset: AnyDataset) -> list[Manifest]:
    """The volumes of `source_mounts`."""
    if dataset.volume:
        return [claim_volume("datasets", dataset.volume.claim_name, read_only=True)]
    if dataset.ratings and dataset.ratings.claim_name:
        return [claim_volume("ratings", dataset.ratings.claim_name, read_only=True)]
    return []
