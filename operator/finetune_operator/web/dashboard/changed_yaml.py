"""What a page does as YAML, where it shows no whole object: a training to make, or what of an object changes. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from finetune_operator.core.base_model_catalogue import CATALOGUE
from finetune_operator.core.dataset_records import PAIR_FORMATS, READABLE_FORMATS, Format
from finetune_operator.core.decimals import decimal_text
from finetune_operator.core.version_changes import PIN, TEXT_METRICS, evaluation_fields
from finetune_operator.kube.yaml_text import yaml_text
from finetune_operator.resources.common import API_VERSION
from finetune_operator.resources.dataset import Dataset, DatasetFormat, Ratings
from finetune_operator.resources.finetunejob import KIND as JOB
from finetune_operator.resources.finetunejob import Method
from finetune_operator.resources.modelversion import KIND as VERSION
from finetune_operator.web.cost_views import TrainingCost
from finetune_operator.web.creation import manifest
from finetune_operator.web.dashboard.commands import budget_of, first_active, first_payable
from finetune_operator.web.dataset_schemas import FORMATS, DatasetEntry, ExportRequest
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.job_requests import JobRequest, spec_of
from finetune_operator.web.job_views import JobEntry
from finetune_operator.web.version_views import VersionDetail

FAMILY = "plato"
FIRST_MODEL = next(model.id for model in CATALOGUE if model.recommended_for)
OWN_DEFAULTS = {"test_fraction", "min_examples"}
"""Of which a training has others than an export."""


def active_yaml(jobs: Iterable[JobEntry]) -> str:
    """Of what the commands for active trainings change."""
    return _documents(
        manifest(JOB, job.namespace, job.name, {"suspend": not job.suspended}, None) for job in first_active(jobs)
    )


def budget_yaml(jobs: Iterable[TrainingCost]) -> str:
    """Of the training whose budget the commands set."""
    job = first_payable(jobs)
    if job is None:
        return ""
    namespace, _, name = job.id.partition(".")
    return yaml_text(manifest(JOB, namespace, name, {"budget": budget_of(job)}, None))


def promotion_yaml(version: ObjectId) -> str:
    """Of a version that is to answer for its model."""
    return yaml_text(manifest(VERSION, version.namespace, version.name, PIN, None))


def evaluation_yaml(version: ObjectId) -> str:
    """Of a version that is to be measured."""
    asked = {"evaluation": evaluation_fields(TEXT_METRICS, None, None)}
    return yaml_text(manifest(VERSION, version.namespace, version.name, asked, None))


def deployed_yaml(version: VersionDetail) -> str:
    """All of a version, as it is once it was asked to answer for its model."""
    spec = version.manifest["spec"]
    if not isinstance(spec, dict):
        raise TypeError(f"ModelVersion {version.id} has no spec")
    return yaml_text(version.manifest | {"spec": spec | PIN})


def export_yaml(request: ExportRequest) -> str:
    """A training that exports the same ratings itself; empty where no training reads the format."""
    said = request.model_dump(include=set(request.model_fields_set) | OWN_DEFAULTS, exclude={"format"})
    fields = {name: _share(value) if isinstance(value, float) else value for name, value in said.items()}
    ratings = Ratings.model_validate({name: fields[name] for name in fields.keys() & Ratings.model_fields.keys()})
    rules = {name: fields[name] for name in fields.keys() & Dataset.model_fields.keys()}
    dataset = Dataset.model_validate({"ratings": ratings} | rules)
    seed = {"training": {"seed": request.seed}} if "seed" in said else {}
    shown = dataset.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return _training(FORMATS[request.format], shown, seed)


def dataset_yaml(dataset: DatasetEntry) -> str:
    """A training on it; empty where no training reads its format."""
    return _training(FORMATS[dataset.format], {"stored": {"path": f"{dataset.id}/train.jsonl"}}, {})


def _training(record_format: Format, dataset: dict[str, Any], rest: dict[str, Any]) -> str:
    if record_format not in READABLE_FORMATS:
        return ""
    spec = spec_of(JobRequest(base_model=FIRST_MODEL, model=FAMILY), "", None)
    if record_format in PAIR_FORMATS:
        spec["method"] = Method.DPO.value
    elif record_format != DatasetFormat.CHAT_ML.value:
        dataset = dataset | {"format": record_format}
    metadata = {"name": f"{FAMILY}-1"}
    return yaml_text(
        {"apiVersion": API_VERSION, "kind": JOB, "metadata": metadata, "spec": spec | {"dataset": dataset} | rest}
    )


def _share(value: float) -> str:
    """Shares are texts in our kinds, of at most ten digits."""
    return decimal_text(Decimal(f"{value:.10f}"))


def _documents(bodies: Iterable[dict[str, Any]]) -> str:
    return "---\n".join(map(yaml_text, bodies))
