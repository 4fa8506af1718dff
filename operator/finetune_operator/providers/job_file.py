"""A FineTuneJob in a file, for commands that run outside the cluster."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_operator.contract.training import StartingAdapter, TrainingConfig
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.training import training_config
from finetune_operator.resources.finetunejob import FineTuneJob

NOWHERE = OperatorConfig(operator_image="", trainer_image="", server_image="")


class Unusable(Exception):
    """The file is of no use to the command; the text says why."""


def read_job(path: str) -> FineTuneJob:
    """The one FineTuneJob of a YAML or JSON file, applied or not; `-` is standard input. Raises `Unusable`."""
    try:
        with open(0 if path == "-" else path, encoding="utf-8", closefd=path != "-") as file:
            return _job_in(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(str(error)) from None


def config_of(job: FineTuneJob) -> TrainingConfig:
    """As its pod would read it; an earlier version by its name alone, since the cluster knows where its files are."""
    wanted = job.spec.init_from
    start = StartingAdapter(model_version=wanted.model_version, path="", digest="") if wanted else None
    return training_config(job, NOWHERE, start)


def _job_in(text: str) -> FineTuneJob:
    try:
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, Mapping)]
    except yaml.YAMLError as error:
        raise Unusable(f"not YAML: {error}") from None
    jobs = [document for document in documents if document.get("kind") == "FineTuneJob"]
    if len(jobs) != 1:
        raise Unusable(f"{len(jobs)} FineTuneJobs found: give one")
    body: dict[str, Any] = dict(jobs[0])
    body["metadata"] = {"name": "unnamed", "namespace": "default", "uid": "none"} | (body.get("metadata") or {})
    try:
        return FineTuneJob.parse(body)
    except ValidationError as error:
        raise Unusable(f"not a FineTuneJob that the API server would take: {error}") from None
