"""The commands of `ftctl`: their arguments and help; what they do is imported when they run."""

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from finetune_operator import __version__
from finetune_operator.cli.failures import usage
from finetune_operator.cli.options import (
    Api,
    Cluster,
    DatasetOption,
    DryRun,
    DryRunOption,
    EpochsOption,
    Everywhere,
    Format,
    FormatOption,
    MadeOption,
    MadeOutput,
    MethodOption,
    MinExamplesOption,
    MinRatingDifferenceOption,
    Output,
    OutputOption,
    PhilosopherOption,
    Yes,
    command,
)

LOOK = "Look"
TRAIN = "Train"
SERVE = "Serve and compare"
CODES = (
    "Exit codes: 0 done (status: it has succeeded), 1 failed, 2 wrong arguments or files, 3 not found or not allowed, "
    "4 no answer (try again), 124 not yet, 130 interrupted."
)

Suspendable = Annotated[
    list[str], typer.Argument(metavar="[KIND/]NAME...", help="FineTuneJobs, and BatchInferences as batch/NAME.")
]
TestName = Annotated[str, typer.Argument(metavar="TEST", help="Name of an ABTest.")]
VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="Name of a ModelVersion, such as plato-v2.")]
Notes = Annotated[str | None, typer.Option("--notes", help="For people.")]
MemoryShare = Annotated[str | None, typer.Option("--gpu-memory-utilization", help="Such as 0.9.")]
LongestConversation = Annotated[int | None, typer.Option("--max-model-len", help="Longest conversation in tokens.")]
EngineGpus = Annotated[int | None, typer.Option("--tensor-parallel-size", help="GPUs of an engine.")]

app = typer.Typer(
    help="Train, watch, compare and serve fine-tuned models of a cluster, with a kubeconfig alone.",
    epilog=CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ftctl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Train, watch, compare and serve fine-tuned models of a cluster, with a kubeconfig alone."""


@app.command(rich_help_panel=LOOK)
@command
async def get(
    cluster: Cluster,
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="jobs, versions, tests or batches; all as a tree without it.")
    ] = None,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Only these.")] = None,
    output: OutputOption = Output.TABLE,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    phase: Annotated[str | None, typer.Option("--phase", help="Only in this phase, state or verdict.")] = None,
    everywhere: Everywhere = False,
) -> None:
    """Show jobs, versions, tests and batches, or all of them as a tree."""
    from finetune_operator.cli.reading import get as run

    await run(cluster, kind, names or [], output, everywhere=everywhere, model=model, phase=phase)


@app.command(rich_help_panel=LOOK)
@command
async def watch(
    cluster: Cluster,
    everywhere: Everywhere = False,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="json: each change as a line, for programs.")
    ] = Format.TABLE,
) -> None:
    """Follow everything as a live tree; without a terminal, a line for each change."""
    from finetune_operator.cli.watching import watch as run

    if output is Format.YAML:
        raise usage("changes are printed as json or as lines: leave out -o yaml")
    await run(cluster, everywhere=everywhere, as_json=output is Format.JSON)


@app.command(rich_help_panel=LOOK, epilog=CODES)
@command
async def status(
    cluster: Cluster,
    what: Annotated[str, typer.Argument(metavar="KIND/NAME", help="Such as version/plato-v2; a name alone is a job.")],
    within: Annotated[str, typer.Option("--timeout", help="Wait for the end, such as 90s, 30m, 2h.")] = "0",
    awaited: Annotated[
        str | None, typer.Option("--for", metavar="STATE", help="Wait for this state, such as Deployed.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Tell where something stands; the exit code says whether it has succeeded."""
    from finetune_operator.cli.waiting import status as run

    raise typer.Exit(await run(cluster, what, seconds(within), output, awaited))


@app.command(rich_help_panel=LOOK)
@command
async def logs(
    cluster: Cluster,
    api: Api,
    job: Annotated[
        str, typer.Argument(metavar="[KIND/]NAME", help="A FineTuneJob, or a BatchInference as batch/NAME.")
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it has ended, over all pods.")] = False,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Only this container.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last lines.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Of all pods, not of the newest one alone.")] = False,
) -> None:
    """Print what the pods of a training or a batch wrote; of a training without pods, what the api keeps."""
    from finetune_operator.cli.pod_logs import logs as run

    await run(cluster, api, job, follow=follow, container=container, tail_lines=tail, everything=every)


@app.command(rich_help_panel=TRAIN)
@command
async def submit(
    cluster: Cluster,
    name: Annotated[str | None, typer.Argument(help="Of the FineTuneJob; one is made up without it.")] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--filename", "-f", metavar="FILE", help="YAML files or directories; - reads stdin."),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", help="OWNER/NAME[@REVISION] of the hub, or volume://CLAIM/PATH.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Family. Default: the base model's name.")] = None,
    method: MethodOption = None,
    backend: Annotated[str | None, typer.Option("--backend", help="Unsloth, HuggingFace or Axolotl.")] = None,
    dataset: DatasetOption = None,
    format_: Annotated[str | None, typer.Option("--format", help="Of the dataset's records.")] = None,
    philosopher: PhilosopherOption = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Only this domain.")] = None,
    task_type: Annotated[str | None, typer.Option("--task-type", help="Only this type of task.")] = None,
    min_rating: Annotated[int | None, typer.Option("--min-rating", help="Lowest rating that is taken.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="At most this many ratings, the newest first.")] = None,
    min_rating_difference: MinRatingDifferenceOption = None,
    min_confidence_diff: Annotated[
        str | None, typer.Option("--min-confidence-diff", help="The same as a share of the scale: 0.5 are two points.")
    ] = None,
    ratings_claim: Annotated[
        str | None, typer.Option("--ratings-claim", help="Volume of an SQLite database of ratings.")
    ] = None,
    test_fraction: Annotated[str | None, typer.Option("--test-fraction", help="Share that is held out.")] = None,
    min_examples: MinExamplesOption = None,
    epochs: EpochsOption = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="End after so many steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples per device and step.")] = None,
    learning_rate: Annotated[str | None, typer.Option("--learning-rate", help="Such as 2e-4.")] = None,
    max_seq_length: Annotated[int | None, typer.Option("--max-seq-length", help="Longest example in tokens.")] = None,
    quantization: Annotated[str | None, typer.Option("--quantization", help="4bit, 8bit, or none for CPUs.")] = None,
    lora_r: Annotated[int | None, typer.Option("--lora-r", help="Rank of the adapter.")] = None,
    lora_alpha: Annotated[int | None, typer.Option("--lora-alpha", help="Scaling of the adapter.")] = None,
    lora_dropout: Annotated[str | None, typer.Option("--lora-dropout", help="Dropout of the adapter.")] = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=0, help="Default: 1, or 0 with --quantization none.")
    ] = None,
    gpu_type: Annotated[
        str | None, typer.Option("--gpu-type", help="Label nvidia.com/gpu.product of the nodes, such as NVIDIA-L4.")
    ] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", help="CPU cores that are reserved.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve what comes out.")] = False,
    promotion: Annotated[str | None, typer.Option("--promotion", help="Manual, or Always once it answers.")] = None,
    suspend: Annotated[bool, typer.Option("--suspended", help="Make it, and start it with `resume`.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Any field, such as training.packing=true.")
    ] = None,
    dry_run: DryRunOption = DryRun.NONE,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Train: make a FineTuneJob of flags, or whatever resources of ours are in files.

    What no flag says is left to the defaults of the kind: kubectl explain ftj.spec.
    """
    flags = {
        "method": method, "backend": backend, "format": format_, "philosopher": philosopher, "domain": domain,
        "task_type": task_type, "min_rating": min_rating, "limit": limit, "ratings_claim": ratings_claim,
        "min_rating_difference": min_rating_difference, "min_confidence_diff": min_confidence_diff,
        "test_fraction": test_fraction, "min_examples": min_examples, "epochs": epochs, "max_steps": max_steps,
        "batch_size": batch_size, "learning_rate": learning_rate, "max_seq_length": max_seq_length,
        "quantization": quantization, "lora_r": lora_r, "lora_alpha": lora_alpha, "lora_dropout": lora_dropout,
        "promotion": promotion, "suspend": suspend or None, "gpu_type": gpu_type, "cpus": cpus,
    }  # fmt: skip
    from finetune_operator.cli import submitting

    said = any(value is not None for value in (name, base_model, model, dataset, gpus, *flags.values())) or serve
    if files:
        if said or settings:
            raise usage("--filename says it all: leave out the name and the other flags, or the files")
        await submitting.submit_files(cluster, files, dry_run, output)
        return
    if base_model is None:
        raise usage("what is to be trained? Pass --base-model OWNER/NAME, or files with -f")
    from finetune_operator.cli.job_making import job_spec, manifest, with_settings

    spec = job_spec(base_model, model, dataset, gpus, flags)
    if serve:
        spec["serving"] = {}
    spec = with_settings(spec, settings or [])
    chosen = name or f"{spec['model']}-{submitting.suffix()}"
    await submitting.submit(cluster, lambda ns: [manifest("FineTuneJob", ns, chosen, spec)], dry_run, output)


@app.command(rich_help_panel=TRAIN)
@command
async def cancel(
    cluster: Cluster,
    names: Annotated[
        list[str],
        typer.Argument(metavar="[KIND/]NAME...", help="FineTuneJobs; others as test/NAME and batch/NAME."),
    ],
    yes: Yes = False,
) -> None:
    """End trainings, tests and batches for good: votes, answers and a last checkpoint are kept."""
    from finetune_operator.cli.changing import cancel as run

    await run(cluster, names, yes=yes)


@app.command(rich_help_panel=TRAIN)
@command
async def suspend(cluster: Cluster, names: Suspendable) -> None:
    """Free the resources of trainings and batches until they are resumed."""
    from finetune_operator.cli.changing import suspend as run

    await run(cluster, names, suspended=True)


@app.command(rich_help_panel=TRAIN)
@command
async def resume(cluster: Cluster, names: Suspendable) -> None:
    """Have suspended trainings go on from their last checkpoint, and batches with the next row."""
    from finetune_operator.cli.changing import suspend as run

    await run(cluster, names, suspended=False)


@app.command(rich_help_panel=TRAIN)
@command
async def retry(
    cluster: Cluster,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a FineTuneJob.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the new one; made up without it.")] = None,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Train again: make a new FineTuneJob that does the same as this one."""
    from finetune_operator.cli.repeating import retry as run

    await run(cluster, job, name, output)


@app.command(rich_help_panel=SERVE)
@command
async def serve(
    cluster: Cluster,
    version: VersionName,
    notes: Notes = None,
    gpu_memory_utilization: MemoryShare = None,
    max_model_len: LongestConversation = None,
    tensor_parallel_size: EngineGpus = None,
) -> None:
    """Have a version answer to its own name, beside the one that is live."""
    from finetune_operator.cli.changing import serve as run
    from finetune_operator.core.version_changes import serving_fields

    serving = serving_fields(decimal(gpu_memory_utilization), max_model_len, tensor_parallel_size)
    await run(cluster, version, notes=notes, serving=serving)


@app.command(rich_help_panel=SERVE)
@command
async def promote(
    cluster: Cluster,
    version: VersionName,
    notes: Notes = None,
    gpu_memory_utilization: MemoryShare = None,
    max_model_len: LongestConversation = None,
    tensor_parallel_size: EngineGpus = None,
    yes: Yes = False,
) -> None:
    """Have the model's name answered by this version, once it is loaded."""
    from finetune_operator.cli.changing import promote as run
    from finetune_operator.core.version_changes import serving_fields

    serving = serving_fields(decimal(gpu_memory_utilization), max_model_len, tensor_parallel_size)
    await run(cluster, version, yes=yes, notes=notes, serving=serving)


@app.command(rich_help_panel=SERVE)
@command
async def rollback(
    cluster: Cluster,
    what: Annotated[str, typer.Argument(metavar="MODEL", help="A model, or its live version.")],
    to: Annotated[str | None, typer.Option("--to", help="Default: the version that was live before.")] = None,
    yes: Yes = False,
) -> None:
    """Have the model's name answered again by the version before; it is still loaded."""
    from finetune_operator.cli.changing import rollback as run

    await run(cluster, what, to, yes=yes)


@app.command(rich_help_panel=SERVE)
@command
async def vote(
    cluster: Cluster,
    api: Api,
    test: TestName,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many votes.")] = None,
    evaluator: Annotated[
        str | None, typer.Option("--evaluator", help="Who judges, where no Kubernetes token says.")
    ] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Tell after each vote which version was which.")] = False,
) -> None:
    """Judge pairs of answers without knowing whose they are."""
    from finetune_operator.cli.voting import vote as run

    await run(cluster, api, test, count=count, evaluator=evaluator, reveal=reveal)


@app.command(rich_help_panel=SERVE)
@command
async def evaluate(
    cluster: Cluster,
    version: VersionName,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Measure this now, such as RougeL; may be repeated.")
    ] = None,
    max_examples: Annotated[int | None, typer.Option("--max-examples", min=1, help="Ask so many questions.")] = None,
    saturation: Annotated[
        bool | None,
        typer.Option("--saturation/--no-saturation", help="Also how many requests a second its engine answers."),
    ] = None,
    within: Annotated[str, typer.Option("--timeout", help="Wait for the result; 0 asks and leaves.")] = "1h",
    output: FormatOption = Format.TABLE,
) -> None:
    """Compare a version with its base model on held-out questions."""
    from finetune_operator.cli.evaluating import evaluate as run
    from finetune_operator.core.version_changes import evaluation_fields

    if not metrics and (max_examples is not None or saturation is not None):
        option = "--max-examples" if max_examples is not None else "--saturation"
        raise usage(f"{option} goes with --metric, such as --metric RougeL")
    wanted = evaluation_fields(metrics, max_examples, saturation) if metrics else None
    raise typer.Exit(await run(cluster, version, wanted, output, wait_seconds=seconds(within)))


def seconds(text: str) -> float:
    """Of `90`, `90s`, `30m`, `1h30m`. Raises `Failed`."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    if not text or found is None:
        raise usage(f"--timeout {text}: write a duration such as 90s, 30m or 2h")
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def decimal(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        raise usage(f"{text!r} is no number: write it such as 0.9") from None
