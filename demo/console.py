"""What a person sees of the demo: stages with their duration, and lines in between."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.rule import Rule
from rich.table import Table


@dataclass
class Narrator:
    """Prints stages and remembers how long each took."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    durations_seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """One part of the story, timed."""
        self.console.print(Rule(f"[bold]{title}", align="left"))
        started = time.monotonic()
        yield
        self.durations_seconds[title] = time.monotonic() - started
        self.console.print(f"[green]done[/] {title} [dim]({self.durations_seconds[title]:.1f} s)[/]")

    def say(self, text: str) -> None:
        """A line of the story; model text may contain brackets, hence no markup."""
        self.console.print(text, markup=False)

    def command(self, text: str) -> None:
        """What a person would type to see or do the same."""
        self.console.print(f"[cyan]$ {text}[/]")

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under headers."""
        table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
        for header in headers:
            table.add_column(header, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
