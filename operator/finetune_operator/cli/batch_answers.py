"""`answers`: the first rows of a batch with what each model said, and how to get the files with all of them."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finetune_operator.cli.api_access import api_at
from finetune_operator.cli.changing import batch_name
from finetune_operator.cli.connection import connected
from finetune_operator.cli.failures import ExitCode, Failed, usage
from finetune_operator.cli.kinds import BATCH, found, job_state
from finetune_operator.cli.options import Api, Cluster, Format
from finetune_operator.cli.printing import clean, hint, output, print_data
from finetune_operator.cli.voting import READABLE_COLUMNS, SIDE_BY_SIDE_COLUMNS
from finetune_operator.manifests.volume_copies import copy_script

STYLES = ("cyan", "magenta")
Answer = dict[str, Any]


async def show(cluster: Cluster, api: Api, batch: str, limit: int, form: Format) -> None:
    """As far as the api was told. Raises `Failed`."""
    name = batch_name(batch)
    async with api_at(cluster, api) as reached:
        path = f"/v1/fine-tuning/batches/{reached.id_of(name)}/answers?limit={limit}"
        told = await reached.client.ask("GET", path)
    if form is not Format.TABLE:
        print_data(told, form)
        return
    if not told["rows"]:
        raise Failed(
            f"the api keeps no answers of batch {name}: `ftctl status batch/{name}` tells where it stands, and "
            f"`ftctl answers {name} --script {name}.sh` gets the files",
            ExitCode.REFUSED,
        )
    console = output()
    width = min(console.width, READABLE_COLUMNS)
    for row in told["rows"]:
        console.print(shown(row, width), width=width)
    if told["has_more"]:
        hint(f"{told['kept']} rows are kept here: --limit {told['kept']}; all: ftctl answers {name} --script {name}.sh")


def shown(row: Answer, width: int) -> RenderableType:
    """A question with its answers, side by side where there is room for it. Both are text, whatever is in them."""
    title = f"Row {row['number']}, {clean(row['custom_id'])}"
    prompt = Panel(Text(clean(row["prompt"])), title=title, title_align="left", border_style="bright_black")
    panels = [_panel(answer, STYLES[index % len(STYLES)]) for index, answer in enumerate(row["answers"])]
    if width < SIDE_BY_SIDE_COLUMNS or len(panels) == 1:
        return Group(prompt, *panels)
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in panels:
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return Group(prompt, grid)


def _panel(answer: Answer, style: str) -> Panel:
    failed = answer["error"] is not None
    text = Text(clean(answer["error"] if failed else answer["answer"]), style="red" if failed else "")
    if answer["shortened"]:
        text.append(" [...]", style="bright_black")
    return Panel(text, title=clean(answer["served_name"]), title_align="left", border_style="red" if failed else style)


async def write_script(cluster: Cluster, batch: str, image: str, file: str) -> None:
    """To a file, or to standard output by `-`. Raises `Failed` where there is nothing to copy yet."""
    name = batch_name(batch)
    async with connected(cluster) as connection:
        body = await connection.get(BATCH.plural, name)
    directory = found(body, "status", "directory")
    if not directory:
        raise Failed(f"batch {name} ({job_state(body)}) has no files yet", ExitCode.REFUSED)
    namespace = body["metadata"]["namespace"]
    _write(file, copy_script(f"BatchInference {name}", name, namespace, directory, image))


def _write(file: str, script: str) -> None:
    if file == "-":
        sys.stdout.write(script)
        return
    try:
        Path(file).write_text(script, encoding="utf-8")
    except OSError as error:
        raise usage(f"{file}: {error.strerror}") from None
    hint(f"Copy the files: sh {file}")
