"""Command line of the operator's image, and the place where the processes are put together.

finetune-operator run                 the operator
finetune-operator gateway             the OpenAI-compatible gateway
finetune-operator api                 the REST interface and database
finetune-operator prepare CONFIG      one job's dataset (the prepare container)
finetune-operator fetch-base-model ID REVISION
                                      a model of the hub onto the volume (the fetch container)
finetune-operator train-remote CONFIG one job's training at a provider (in the trainer's place)
finetune-operator evaluate CONFIG     one evaluation of a served version (the evaluator's container)
finetune-operator batch CONFIG        a dataset through served models (the batch container)
finetune-operator remote ...          jobs and models at a provider, by hand
finetune-operator axolotl-config FILE a FineTuneJob as Axolotl's config, for machines outside the cluster
finetune-operator estimate FILE       time, cost and memory of a FineTuneJob on each known device
finetune-operator dataset ...         export, formats and statistics of datasets, outside a cluster
finetune-operator artifacts DIRECTORY what a job left in its directory of the artifacts volume
finetune-operator registry export     all ModelVersions with lineage and history, as kubectl apply takes them
finetune-operator crds [--check] DIR  the CustomResourceDefinitions from the models
"""

import argparse
import sys
from pathlib import Path

from finetune_operator.providers.arguments import add_arguments
from finetune_operator.store.datasets.arguments import add_arguments as add_dataset_arguments


def main(arguments: list[str] | None = None) -> int:
    """Each process imports only what it needs, so that none pays for the others."""
    options = _parser().parse_args(arguments)
    match options.command:
        case "run":
            from finetune_operator.shell.process import main as run

            return run()
        case "gateway":
            from finetune_operator.gateway.app import main as gateway

            return gateway()
        case "api":
            from finetune_operator.web.app import main as api

            return api()
        case "prepare":
            from finetune_operator.store.container import leave_when_asked
            from finetune_operator.store.prepare import main as prepare

            leave_when_asked()
            return prepare(options.config)
        case "fetch-base-model":
            from finetune_operator.store.base_models import main as fetch_base_model
            from finetune_operator.store.container import leave_when_asked

            leave_when_asked()
            return fetch_base_model(options.id, options.revision, options.job)
        case "train-remote":
            from finetune_operator.providers.train_remote import main as train_remote
            from finetune_operator.store.container import leave_when_asked

            if options.cancel:
                leave_when_asked()
            return train_remote(options.config, cancel=options.cancel)
        case "evaluate":
            from finetune_operator.evaluator.app import main as evaluate
            from finetune_operator.store.container import leave_when_asked

            leave_when_asked()
            return evaluate(options.config)
        case "batch":
            from finetune_operator.evaluator.batch import main as batch
            from finetune_operator.store.container import leave_when_asked

            leave_when_asked()
            return batch(options.config)
        case "remote":
            from finetune_operator.providers.manage import main as remote

            return remote(options)
        case "axolotl-config":
            from finetune_operator.providers.axolotl_config import main as axolotl_config

            return axolotl_config(options)
        case "estimate":
            from finetune_operator.providers.estimate import main as estimate

            return estimate(options)
        case "dataset":
            from finetune_operator.store.datasets.command import main as dataset

            return dataset(options)
        case "artifacts":
            from finetune_operator.store.artifacts import main as artifacts

            return artifacts(options.directory)
        case "registry":
            from finetune_operator.providers.registry_export import main as registry_export

            return registry_export(options)
        case "crds":
            return _crds(options.directory, check=options.check)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetune-operator", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator")
    commands.add_parser("gateway", help="run the OpenAI-compatible gateway")
    commands.add_parser("api", help="run the REST interface and own the database")
    prepare = commands.add_parser("prepare", help="make one job's dataset")
    prepare.add_argument("config", type=Path, help="the job's TrainingConfig as JSON")
    fetch = commands.add_parser("fetch-base-model", help="download a model of the hub onto the volume, once")
    fetch.add_argument("id", help="<owner>/<name> at the hub")
    fetch.add_argument("revision", help="branch, tag or commit")
    fetch.add_argument("--job", type=Path, help="TrainingConfig of the job that is to remember the commit")
    train_remote = commands.add_parser("train-remote", help="train one job at its provider")
    train_remote.add_argument("config", type=Path, help="the job's TrainingConfig as JSON")
    train_remote.add_argument("--cancel", action="store_true", help="end it there instead, whoever began it")
    evaluate = commands.add_parser("evaluate", help="ask a served version and its base model the same questions")
    evaluate.add_argument("config", type=Path, help="the evaluation's ServedEvaluationConfig as JSON")
    batch = commands.add_parser("batch", help="run a dataset through one or two served models")
    batch.add_argument("config", type=Path, help="the batch's BatchInferenceConfig as JSON")
    add_arguments(commands.add_parser("remote", help="list, cancel and delete at a provider; estimate its cost"))
    axolotl = commands.add_parser("axolotl-config", help="print a FineTuneJob as Axolotl's config")
    axolotl.add_argument("job", help="YAML or JSON of a FineTuneJob, - for standard input")
    axolotl.add_argument("--base-model", help="directory or hub repository, where the job's own is on a volume")
    axolotl.add_argument("--dataset", default="dataset", help="directory with train.jsonl and test.jsonl")
    axolotl.add_argument("--output", default="out", help="directory for checkpoints and adapter")
    estimate = commands.add_parser("estimate", help="time, cost and memory of a FineTuneJob on each known device")
    estimate.add_argument("job", help="YAML or JSON of a FineTuneJob, - for standard input")
    estimate.add_argument("--base-model", type=Path, help="its directory, where the job's own is not at the hub")
    estimate.add_argument("--dataset", type=Path, help="directory with train.jsonl, as `dataset export` writes it")
    estimate.add_argument("--rows", type=int, help="training rows, instead of a dataset")
    estimate.add_argument("--tokens", type=int, help="length of a row in tokens, instead of a dataset")
    estimate.add_argument("--prices", type=Path, help="YAML or JSON with the chart's value `prices`")
    add_dataset_arguments(commands.add_parser("dataset", help="make and describe datasets outside a cluster"))
    artifacts = commands.add_parser("artifacts", help="list what a job left, with sizes and types")
    artifacts.add_argument("directory", type=Path, help="the job's directory on the artifacts volume")
    registry = commands.add_parser("registry", help="what there is of ModelVersions, and was")
    export = registry.add_subparsers(dest="registry_command", required=True).add_parser(
        "export", help="all ModelVersions of the cluster (KUBECONFIG), as kubectl apply takes them"
    )
    export.add_argument("--namespace", "-n", help="of this namespace alone")
    export.add_argument("--output", "-o", choices=("yaml", "json"), default="yaml")
    export.add_argument(
        "--pin-active", action="store_true", help="with spec.state Deployed on those that are active, for a restore"
    )
    crds = commands.add_parser("crds", help="write the CustomResourceDefinitions")
    crds.add_argument("directory", type=Path, help="where the YAML files are")
    crds.add_argument("--check", action="store_true", help="write nothing, fail if a file differs from the models")
    return parser


def _crds(directory: Path, *, check: bool) -> int:
    from finetune_operator.kube.yaml_text import yaml_text
    from finetune_operator.resources.crd import DEFINITIONS, custom_resource_definition

    stale = []
    for definition in DEFINITIONS:
        path = directory / f"{definition.name}.yaml"
        text = yaml_text(custom_resource_definition(definition))
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if check and stale:
        sys.stderr.write(f"differs from the models: {', '.join(map(str, stale))}; run `make crds`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
