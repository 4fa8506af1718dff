"""`vote`: two answers side by side, without names, and a key for each judgement."""

import sys
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finetune_operator.cli.api_access import ApiClient, api_at
from finetune_operator.cli.changing import abtest_name
from finetune_operator.cli.failures import ExitCode, Failed
from finetune_operator.cli.options import Api, Cluster
from finetune_operator.cli.printing import clean, hint, output, signs

KEYS = {"a": "a", "b": "b", "t": "tie", "x": "both_bad"}
KEY_LINE = "a  left is better   b  right is better   t  tie   x  both bad   s  stop"
NARROW_KEY_LINE = "a first   b second   t tie   x both bad   s stop"
STOPS = frozenset({"s", "q", "\x03", "\x04", ""})
SIDE_BY_SIDE_COLUMNS = 90
READABLE_COLUMNS = 140

Answer = dict[str, Any]


async def vote(
    cluster: Cluster, api: Api, test: str, *, count: int | None, evaluator: str | None, reveal: bool
) -> None:
    """Until there are `count` votes, nothing to judge any more, or somebody stops. Raises `Failed`."""
    name = abtest_name(test)
    console = output()
    cast = 0
    async with api_at(cluster, api) as reached:
        client, path = reached.client, f"/v1/fine-tuning/ab-test/{reached.id_of(name)}"
        named = {"evaluator": evaluator} if evaluator else {}
        while count is None or cast < count:
            try:
                pair = await client.ask("POST", f"{path}/comparisons", named)
            except Failed as failed:
                if cast and failed.code is ExitCode.FAILED:
                    # There was something to judge before, and now there is not.
                    hint(str(failed))
                    break
                raise
            width = min(console.width, READABLE_COLUMNS)
            console.print(shown(pair, width), width=width)
            key = _key(console)
            if key is None:
                break
            body = {"comparison_id": pair["comparison_id"], "vote": KEYS[key]} | named
            result = await client.ask("POST", f"{path}/vote", body)
            cast += 1
            console.print(_thanks(result, cast, reveal=reveal))
        await _farewell(client, path, cast)


def shown(pair: Answer, width: int) -> RenderableType:
    """Side by side where there is room for it, else one below the other. Answers are text, whatever is in them."""
    prompt = Panel(Text(clean(pair["prompt"])), title="Question", title_align="left", border_style="bright_black")
    answers = pair["answers"]
    panels = [
        Panel(Text(clean(answers[side])), title=side.upper(), title_align="left", border_style=style)
        for side, style in (("a", "cyan"), ("b", "magenta"))
    ]
    if width < SIDE_BY_SIDE_COLUMNS:
        return Group(prompt, *panels)
    grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*panels)
    return Group(prompt, grid)


def _key(console: Console) -> str | None:
    """One of `KEYS`, None for who stops."""
    line = KEY_LINE if console.width >= SIDE_BY_SIDE_COLUMNS else NARROW_KEY_LINE
    while True:
        console.print(Text(line, style="bold"))
        pressed = _pressed()
        if pressed in STOPS:
            return None
        if pressed in KEYS:
            return pressed


def _pressed() -> str:
    """A key on a terminal, the first letter of a line elsewhere; empty at the end of the input."""
    if sys.stdin.isatty():
        import typer

        try:
            return typer.getchar().lower()
        except (KeyboardInterrupt, EOFError):
            return ""
    line = sys.stdin.readline()
    return (line.strip()[:1] or "?").lower() if line else ""


def _thanks(result: Answer, cast: int, *, reveal: bool) -> Text:
    if result["late"]:
        told = Text("late: the test has its verdict")
    else:
        told = Text.assemble((f"{signs(output()).good} ", "green"), f"vote {cast}")
    if result["second_opinion"]:
        told.append("  (a second opinion: the first vote on these answers counts)")
    if reveal:
        sides = result["sides"]
        told.append(f"  A was {sides['a']['served_name']}, B was {sides['b']['served_name']}", style="bright_black")
    return told


async def _farewell(client: ApiClient, path: str, cast: int) -> None:
    if not cast:
        return
    try:
        state = await client.ask("GET", path)
    except Failed:
        # Who may only vote need not be able to read.
        return
    tally = state["tally"]
    total = tally["fine_tuned"] + tally["base"] + tally["tie"]
    told = f"{cast} {'vote' if cast == 1 else 'votes'} cast, {total} in all."
    if state["verdict"]:
        told += f" The verdict is {state['verdict']}."
    elif state["votes_still_needed"] is not None:
        told += f" About {state['votes_still_needed']} more are needed for a verdict."
    output().print(told, highlight=False, soft_wrap=True)
