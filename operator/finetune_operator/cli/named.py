"""The pipeline's commands under the names that its users know: faces of what `ftctl` does anyway."""

from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_operator.cli.app import CODES, VersionName, evaluate, rollback, seconds
from finetune_operator.cli.data_commands import CostJob, CostModel, RoiOf, Totals, ValuePerError, costs_of
from finetune_operator.cli.failures import ExitCode
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
    Output,
    OutputOption,
    PhilosopherOption,
    command,
)

PANEL = "The pipeline's commands"


def add_named_commands(app: typer.Typer) -> None:
    """In the order in which they are used."""
    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("prepare-dataset", rich_help_panel=PANEL, context_settings=anything, add_help_option=False)(
        prepare_dataset
    )
    app.command("create-openai-job", rich_help_panel=PANEL)(create_openai_job)
    app.command("check-job-status", rich_help_panel=PANEL, epilog=CODES)(check_job_status)
    app.command("create-ollama-script", rich_help_panel=PANEL)(create_ollama_script)
    app.command("evaluate-model", rich_help_panel=PANEL)(evaluate)
    app.command("setup-ab-test", rich_help_panel=PANEL)(setup_ab_test)
    app.command("register-model", rich_help_panel=PANEL)(register_model)
    app.command("list-models", rich_help_panel=PANEL)(list_models)
    app.command("rollback-model", rich_help_panel=PANEL)(rollback)
    app.command("cost-summary", rich_help_panel=PANEL)(cost_summary)


@command
def prepare_dataset(context: typer.Context) -> None:
    """Make train.jsonl and test.jsonl on this machine, from a database of ratings or a file."""
    from finetune_operator.cli.datasets import prepare_dataset as run

    raise typer.Exit(run(context.args))


@command
async def create_openai_job(
    cluster: Cluster,
    base_model: Annotated[str, typer.Option("--base-model", help="Of the provider, such as gpt-4.1-mini-2025-04-14.")],
    secret: Annotated[str, typer.Option("--secret", metavar="NAME[/KEY]", help="Secret with the API key.")],
    name: Annotated[str | None, typer.Argument(help="Of the FineTuneJob; one is made up without it.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Family. Default: the base model's name.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Any OpenAI-compatible API.")] = None,
    suffix: Annotated[str | None, typer.Option("--suffix", help="Part of the model's name at the provider.")] = None,
    learning_rate_multiplier: Annotated[
        str | None, typer.Option("--learning-rate-multiplier", help="Such as 0.5; the provider chooses without it.")
    ] = None,
    method: MethodOption = None,
    epochs: EpochsOption = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples in a step.")] = None,
    dataset: DatasetOption = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Only ratings of this domain.")] = None,
    philosopher: PhilosopherOption = None,
    min_examples: MinExamplesOption = None,
    test_fraction: Annotated[str | None, typer.Option("--test-fraction", help="Share for validation.")] = None,
    dry_run: DryRunOption = DryRun.NONE,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Train at OpenAI, or at any provider that speaks its fine-tuning API."""
    from finetune_operator.cli import submitting
    from finetune_operator.cli.registering import openai_job

    provider = {"baseUrl": base_url, "suffix": suffix, "learningRateMultiplier": learning_rate_multiplier}
    flags = {
        "method": method, "epochs": epochs, "batch_size": batch_size, "domain": domain, "philosopher": philosopher,
        "min_examples": min_examples, "test_fraction": test_fraction,
    }  # fmt: skip
    made = openai_job(name, base_model, model, dataset, secret, provider, flags, submitting.suffix())
    await submitting.submit(cluster, made, dry_run, output)


@command
async def check_job_status(
    cluster: Cluster,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a FineTuneJob, of whichever backend.")],
    within: Annotated[str, typer.Option("--timeout", help="Wait for the end, such as 90s, 30m, 2h.")] = "0",
    output: FormatOption = Format.TABLE,
) -> None:
    """Tell where a training stands; the exit code says whether it has succeeded."""
    from finetune_operator.cli.waiting import status as run

    raise typer.Exit(await run(cluster, f"job/{job.removeprefix('job/')}", seconds(within), output))


@command
async def create_ollama_script(
    cluster: Cluster,
    version: VersionName,
    file: Annotated[Path | None, typer.Argument(help="Where to write it; without it, it is printed.")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="As config.json of the base model has it.")
    ] = None,
    image: Annotated[
        str, typer.Option("--image", help="With sleep and tar, for the pod that has the files.")
    ] = "busybox",
) -> None:
    """Write a shell script that takes a version into Ollama."""
    from finetune_operator.cli.ollama import create_ollama_script as run
    from finetune_operator.cli.printing import hint

    script = await run(cluster, version, architecture, image)
    if file is None:
        typer.echo(script, nl=False)
        raise typer.Exit(ExitCode.DONE)
    from finetune_operator.cli.failures import usage

    try:
        file.write_text(script, encoding="utf-8")
    except OSError as error:
        raise usage(f"{file}: {error.strerror}") from None
    hint(f"Run it where Ollama is: sh {file}")


@command
async def setup_ab_test(
    cluster: Cluster,
    candidate: Annotated[str, typer.Argument(help="The version under test, such as plato-v2.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the ABTest; one is made up without it.")] = None,
    baseline: Annotated[str, typer.Option("--baseline", help="A version of the same model, or base.")] = "base",
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="Both answer it, people judge; may be repeated.")
    ] = None,
    prompts_file: Annotated[Path | None, typer.Option("--prompts-file", help="One in each line.")] = None,
    candidate_percent: Annotated[
        int | None, typer.Option("--candidate-percent", help="Share of users that the candidate answers.")
    ] = None,
    shadow_percent: Annotated[
        int | None, typer.Option("--shadow-percent", help="Share of requests that are also sent to the candidate.")
    ] = None,
    alpha: Annotated[str | None, typer.Option("--alpha", help="Largest probability of a false verdict.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="AlwaysValid or ChiSquared.")] = None,
    min_votes: Annotated[int | None, typer.Option("--min-votes", help="No verdict before.")] = None,
    max_votes: Annotated[int | None, typer.Option("--max-votes", help="The test ends then.")] = None,
    min_effect: Annotated[
        str | None, typer.Option("--min-effect", help="Least difference of the win rate from 0.5 that matters.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Of accuracy, latency and cost, in percent, such as 60,20,20.")
    ] = None,
    accuracy_from: Annotated[
        str | None,
        typer.Option("--accuracy-from", help="Votes, or References or Ratings: users' feedback decides, no votes."),
    ] = None,
    on_win: Annotated[str | None, typer.Option("--on-win", help="Promote or Notify.")] = None,
    on_loss: Annotated[str | None, typer.Option("--on-loss", help="Keep or Rollback.")] = None,
    dry_run: DryRunOption = DryRun.NONE,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Compare a version with another one or with its base model, by blind votes and live traffic."""
    from finetune_operator.cli import submitting
    from finetune_operator.cli.registering import ab_test, weights_of

    traffic = {"candidatePercent": candidate_percent, "shadowPercent": shadow_percent}
    decision: dict[str, Any] = {"alpha": alpha, "method": method, "minVotes": min_votes, "maxVotes": max_votes}
    weighed = weights_of(weights) if weights else {}
    weighed |= {"accuracyFrom": accuracy_from} if accuracy_from else {}
    decision |= {"minEffect": min_effect, "weights": weighed or None}
    others = {"onWin": on_win, "onLoss": on_loss}
    made = ab_test(
        name, candidate, baseline, prompts or [], prompts_file, traffic, decision, others, submitting.suffix()
    )
    await submitting.submit(cluster, made, dry_run, output)


@command
async def register_model(
    cluster: Cluster,
    model: Annotated[str, typer.Argument(help="Family, such as plato.")],
    base_model: Annotated[
        str, typer.Option("--base-model", help="OWNER/NAME@COMMIT of the hub, volume://CLAIM/PATH, or a provider's.")
    ],
    uri: Annotated[str, typer.Option("--uri", help="volume://CLAIM/PATH of the adapter, or openai://MODEL.")],
    digest: Annotated[str | None, typer.Option("--digest", help="Of the adapter, as its manifest.json has it.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="The provider's API, with openai://.")] = None,
    number: Annotated[int | None, typer.Option("--number", min=1, help="Default: after the highest there is.")] = None,
    notes: Annotated[str | None, typer.Option("--notes", help="For people.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it, too.")] = False,
    dry_run: DryRunOption = DryRun.NONE,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Register an adapter, or a provider's model, as a ModelVersion."""
    from finetune_operator.cli import submitting
    from finetune_operator.cli.failures import usage
    from finetune_operator.cli.registering import model_version, next_version

    if number is None:
        if dry_run is DryRun.CLIENT:
            raise usage("which number is free only the cluster knows: pass --number, or --dry-run=server")
        number = await next_version(cluster, model)
    made = model_version(model, number, base_model, uri, digest, base_url, notes, serve=serve)
    await submitting.submit(cluster, made, dry_run, output)


@command
async def list_models(
    cluster: Cluster,
    model: Annotated[str | None, typer.Argument(help="Only versions of this model.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state, such as Deployed.")] = None,
    output: OutputOption = Output.TABLE,
    everywhere: Everywhere = False,
) -> None:
    """List the versions of models."""
    from finetune_operator.cli.reading import get as run

    await run(cluster, "versions", [], output, everywhere=everywhere, model=model, phase=state)


@command
async def cost_summary(
    cluster: Cluster,
    api: Api,
    job: CostJob = None,
    model: CostModel = None,
    totals: Totals = False,
    roi: RoiOf = None,
    value_per_error: ValuePerError = None,
    output: FormatOption = Format.TABLE,
    everywhere: Everywhere = False,
) -> None:
    """Tell what trainings and the answers of versions have cost, and which costs are unknown."""
    await costs_of(
        cluster, api, job, model, roi, value_per_error, output, totals=totals, everywhere=everywhere, with_answers=True
    )
