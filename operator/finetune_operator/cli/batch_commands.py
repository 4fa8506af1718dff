"""The commands of `ftctl` for batches: their arguments and help, as in `app`."""

from typing import Annotated

import typer

from finetune_operator.cli.app import SERVE, VersionName
from finetune_operator.cli.options import (
    Api,
    Cluster,
    DryRun,
    DryRunOption,
    Format,
    FormatOption,
    MadeOption,
    MadeOutput,
    PhilosopherOption,
    command,
)


def add_batch_commands(app: typer.Typer) -> None:
    """In the order in which they are used."""
    for function in (ask, answers):
        app.command(rich_help_panel=SERVE)(function)


@command
async def ask(
    cluster: Cluster,
    version: VersionName,
    name: Annotated[str | None, typer.Argument(help="Of the BatchInference; one is made up without it.")] = None,
    compare_with: Annotated[
        str | None, typer.Option("--compare-with", help="Who gets the same rows: base, or another version.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="volume://CLAIM/PATH, s3://BUCKET/KEY, or ID/FILE of what the api keeps. Default: ratings.",
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Of its rows. Default: Prompts, or an exported dataset's own.")
    ] = None,
    philosopher: PhilosopherOption = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Only this domain.")] = None,
    task_type: Annotated[str | None, typer.Option("--task-type", help="Only this type of task.")] = None,
    min_rating: Annotated[int | None, typer.Option("--min-rating", help="Lowest rating that is taken.")] = None,
    ratings_claim: Annotated[
        str | None, typer.Option("--ratings-claim", help="Volume of an SQLite database of ratings.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first rows.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest answer.")] = None,
    temperature: Annotated[str | None, typer.Option("--temperature", help="From 0, the likeliest, to 2.")] = None,
    top_p: Annotated[str | None, typer.Option("--top-p", help="Share of probability to draw from.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the random numbers.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Rows that are asked at once.")] = None,
    vote: Annotated[bool, typer.Option("--vote", help="Make an ABTest, too, whose pairs people judge blind.")] = False,
    suspend: Annotated[bool, typer.Option("--suspended", help="Make it, and start it with `resume`.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Any other field of the spec.")
    ] = None,
    dry_run: DryRunOption = DryRun.NONE,
    output: MadeOption = MadeOutput.TEXT,
) -> None:
    """Ask a served version all rows of a dataset, and another one the same: make a BatchInference."""
    from finetune_operator.cli import submitting
    from finetune_operator.cli.batch_making import batch

    flags = {
        "philosopher": philosopher, "domain": domain, "task_type": task_type, "min_rating": min_rating,
        "ratings_claim": ratings_claim, "limit": limit, "max_tokens": max_tokens, "temperature": temperature,
        "top_p": top_p, "seed": seed, "concurrency": concurrency, "suspend": suspend or None,
    }  # fmt: skip
    made = batch(name, version, compare_with, dataset, format_, flags, settings or [], submitting.suffix(), vote=vote)
    await submitting.submit(cluster, made, dry_run, output)


@command
async def answers(
    cluster: Cluster,
    api: Api,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Name of a BatchInference.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="So many rows, the first ones.")] = 10,
    script: Annotated[
        str | None,
        typer.Option(
            "--script",
            metavar="FILE",
            help="Write a shell script that copies all files; - prints it.",
        ),
    ] = None,
    image: Annotated[str, typer.Option("--image", help="With sleep and tar, for the pod of that script.")] = "busybox",
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what the models of a batch have answered, side by side; the api has the first rows."""
    from finetune_operator.cli import batch_answers

    if script is not None:
        await batch_answers.write_script(cluster, batch, image, script)
        return
    await batch_answers.show(cluster, api, batch, limit, output)
