"""`finetune-operator axolotl-config FILE`: a FineTuneJob as Axolotl's config, for machines outside the cluster.

kubectl get finetunejob plato-1 -o yaml | finetune-operator axolotl-config - > axolotl.yaml
axolotl train axolotl.yaml
"""

import argparse
import sys

import yaml

from finetune_operator.core.axolotl import Axolotl, Places, axolotl
from finetune_operator.providers.job_file import Unusable, config_of, read_job
from finetune_operator.resources.finetunejob import FineTuneJob


def main(options: argparse.Namespace) -> int:
    """Prints the config; what of the job is not in it stands above it as comments."""
    try:
        found = rendered(read_job(options.job), options.base_model, options.dataset, options.output)
    except Unusable as error:
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
        return axolotl(config_of(job), Places(where or "", dataset, output))
    except ValueError as error:
        raise Unusable(str(error)) from None
