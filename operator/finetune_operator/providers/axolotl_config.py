"""`finetune-operator axolotl-config FILE`: a FineTuneJob as Axolotl's config, for machines outside the cluster.

kubectl get finetunejob plato-1 -o yaml | finetune-operator axolotl-config - > axolotl.yaml
axolotl train axolotl.yaml
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from finetune_operator.contract.training import StartingAdapter
from finetune_operator.core.axolotl import Axolotl, Places, axolotl
from finetune_operator.core.config import OperatorConfig
from finetune_operator.manifests.training import training_config
from finetune_operator.resources.finetunejob import FineTuneJob

NOWHERE = OperatorConfig(operator_image="", trainer_image="", server_image="")


class Unusable(Exception):
    """The file is no FineTuneJob that Axolotl could train; the text says why."""


def main(options: argparse.Namespace) -> int:
    """Prints the config; what of the job is not in it stands above it as comments."""
    try:
        with open(0 if options.job == "-" else options.job, encoding="utf-8", closefd=options.job != "-") as file:
            found = rendered(_job_in(file.read()), options.base_model, options.dataset, options.output)
    except (OSError, UnicodeDecodeError, Unusable) as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        return 1
    for name in found.left_out:
        sys.stdout.write(f"# not carried over: {name}\n")
    sys.stdout.write(yaml.safe_dump(found.config, sort_keys=False, allow_unicode=True))
    return 0


def rendered(job: FineTuneJob, base_model: str | None, dataset: str, output: str) -> Axolotl:
    """Raises `Unusable`."""
    hub = job.spec.base_model.source.hub
    where = base_model or (hub.id if hub else None)
    if where is None and job.spec.base_model.source.volume:
        raise Unusable("the base model is on a volume of the cluster: say with --base-model where it is here")
    try:
        return axolotl(training_config(job, NOWHERE, _start(job)), Places(where or "", dataset, output))
    except ValueError as error:
        raise Unusable(str(error)) from None


def _start(job: FineTuneJob) -> StartingAdapter | None:
    """By its name alone: where its files are is known in the cluster only."""
    wanted = job.spec.init_from
    return StartingAdapter(model_version=wanted.model_version, path="", digest="") if wanted else None


def _job_in(text: str) -> FineTuneJob:
    """The one FineTuneJob of the file, applied or not."""
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
