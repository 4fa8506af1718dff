"""The commands of `ftctl` for data, files and figures: their arguments and help, as in `app`."""

from pathlib import Path
from typing import Annotated

import typer

from finetune_operator.cli.failures import usage
from finetune_operator.cli.options import (
    Api,
    Cluster,
    Everywhere,
    Format,
    FormatOption,
    MinRatingDifferenceOption,
    PhilosopherOption,
    command,
)

PANEL = "Data, files and figures"
CostJob = Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only of this training.")]
CostModel = Annotated[str | None, typer.Option("--model", help="Only of this model.")]
Totals = Annotated[bool, typer.Option("--totals", help="Ask the api for the sums of trainings and answers.")]
RoiOf = Annotated[str | None, typer.Option("--roi", metavar="VERSION", help="Ask the api whether this version pays.")]
ValuePerError = Annotated[
    str | None, typer.Option("--value-per-error", help="What an error saved is worth, with --roi. Default: 10.")
]


def add_data_commands(app: typer.Typer) -> None:
    """In the order in which they are used."""
    for function in (base_models, export, cost, dashboard, lint):
        app.command(rich_help_panel=PANEL)(function)


@command
async def base_models(cluster: Cluster, api: Api, output: FormatOption = Format.TABLE) -> None:
    """List well-known open models to begin with; any other one of the hub works as well."""
    from finetune_operator.cli.base_models import base_models as run

    await run(cluster, api, output)


@command
async def export(
    cluster: Cluster,
    api: Api,
    directory: Annotated[Path | None, typer.Argument(help="Download the files into it.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="chatml, alpaca, openai, dpo, ...")] = None,
    philosopher: PhilosopherOption = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Only this domain.")] = None,
    task_type: Annotated[str | None, typer.Option("--task-type", help="Only this type of task.")] = None,
    min_rating: Annotated[int | None, typer.Option("--min-rating", min=1, max=5, help="Lowest rating.")] = None,
    all_ratings: Annotated[bool, typer.Option("--all", help="Not only gold stars.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = None,
    test_fraction: Annotated[float | None, typer.Option("--test-fraction", min=0, help="Share for test.jsonl.")] = None,
    min_examples: Annotated[int | None, typer.Option("--min-examples", min=1, help="Refuse fewer.")] = None,
    min_rating_difference: MinRatingDifferenceOption = None,
    min_confidence_diff: Annotated[
        float | None,
        typer.Option("--min-confidence-diff", min=0, max=1, help="The same as a share of the scale: 0.5: two points."),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only count what would be exported.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List exported datasets, of a --format or filters.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Have the api make a dataset of its ratings, and download it."""
    from finetune_operator.cli import datasets

    if listing:
        filters = {"format": format_, "philosopher": philosopher, "domain": domain, "task_type": task_type}
        await datasets.list_datasets(cluster, api, filters, output)
        return
    request = {
        "format": format_, "philosopher": philosopher, "domain": domain, "task_type": task_type,
        "min_rating": min_rating, "gold_star_only": False if all_ratings else None, "limit": limit,
        "test_fraction": test_fraction, "min_examples": min_examples,
        "min_rating_difference": min_rating_difference, "min_confidence_diff": min_confidence_diff,
    }  # fmt: skip
    await datasets.export(cluster, api, request, directory, output, count_only=count)


@command
async def cost(
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
    """Tell what trainings have cost, and which costs are unknown."""
    await costs_of(cluster, api, job, model, roi, value_per_error, output, totals=totals, everywhere=everywhere)


async def costs_of(
    cluster: Cluster,
    api: Api,
    job: str | None,
    model: str | None,
    roi: str | None,
    value_per_error: str | None,
    output: Format,
    *,
    totals: bool,
    everywhere: bool,
    with_answers: bool = False,
) -> None:
    """Of `cost`, and of `cost-summary`, which has answers, too. Raises `Failed`."""
    from finetune_operator.cli import costs

    if value_per_error is not None and roi is None:
        raise usage("--value-per-error goes with --roi VERSION")
    if roi is not None:
        await costs.roi(cluster, api, roi, value_per_error, output)
    elif totals:
        await costs.totals_by_api(cluster, api, output)
    else:
        asked = api if with_answers else None
        await costs.cost(cluster, job, model, output, everywhere=everywhere, api=asked)


@command
async def dashboard(
    cluster: Cluster,
    api: Api,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On this machine; 0 takes a free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Open the pages in a browser, by a port of this machine."""
    from finetune_operator.cli.dashboard import dashboard as run

    await run(cluster, api, port=port, open_browser=not no_browser)


@command
def lint(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML files or directories; - reads stdin.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Judge files by the kinds' own schema and rules, without a cluster."""
    from finetune_operator.cli.linting import lint as run

    raise typer.Exit(run(files, output))
