"""`watch`: the tree as it changes; without a terminal a line for each change."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.family_tree import CHILD_SELECTOR, Snapshot, trees
from finetune_operator.cli.kinds import KINDS, Kind, found, sign, text
from finetune_operator.cli.options import Cluster
from finetune_operator.cli.printing import hint, output, print_line, signs
from finetune_operator.cli.reading import OURS, read_all, slim
from finetune_operator.kube.mirror import Mirror

REDRAW_SECONDS = 0.25
CLOCK_SECONDS = 1.0
"""Ages grow, with or without a change."""

Object = dict[str, Any]


async def watch(cluster: Cluster, *, everywhere: bool, as_json: bool) -> None:
    """Until it is interrupted. Raises `Failed` where the caller may not read."""
    async with connected(cluster) as connection:
        namespace = None if everywhere else connection.namespace
        first = await read_all(connection, namespace)
        if as_json or not output().is_terminal:
            await _tell_changes(connection, namespace, as_json=as_json)
        else:
            await _redraw(connection, namespace, first)


async def _redraw(connection: Connection, namespace: str | None, first: Snapshot) -> None:
    changed = asyncio.Event()
    trouble = _Trouble()
    console = output()
    readable = [plural for plural in first.objects if plural not in first.unreadable]
    async with _mirrors(connection, namespace, readable, changed.set, trouble) as mirrors:
        with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
            snapshot = first
            while True:
                grown = trees(snapshot, datetime.now(UTC), signs=signs(console), namespaced=namespace is None)
                where = namespace or "all namespaces"
                live.update(_page(grown, where, connection.access.context, trouble.text), refresh=True)
                try:
                    async with asyncio.timeout(CLOCK_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    continue
                changed.clear()
                if all(mirror.listed.is_set() for mirror in mirrors.values()):
                    trouble.text = ""
                    objects = {plural: tuple(mirror.objects.values()) for plural, mirror in mirrors.items()}
                    snapshot = Snapshot(objects, first.unreadable)
                await asyncio.sleep(REDRAW_SECONDS)


def _page(grown: list[Any], where: str, context: str, trouble: str) -> RenderableType:
    clock = datetime.now().astimezone().strftime("%H:%M:%S")
    head = Text(f"{where} · {context} · {clock} · Ctrl-C ends", style="bright_black", no_wrap=True, overflow="ellipsis")
    parts: list[RenderableType] = [head, *(grown or [Text("nothing here yet")])]
    if trouble:
        parts.append(Text(trouble, style="yellow", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


async def _tell_changes(connection: Connection, namespace: str | None, *, as_json: bool) -> None:
    """The resources of the product alone; a change is one of what the line says."""
    told: dict[str, str] = {}
    changed = asyncio.Event()
    trouble = _Trouble(told=hint)
    async with _mirrors(connection, namespace, [kind.plural for kind in KINDS], changed.set, trouble) as mirrors:
        while True:
            await changed.wait()
            changed.clear()
            for kind in KINDS:
                for body in list(mirrors[kind.plural].objects.values()):
                    line = _line(kind, body)
                    if told.get(body["metadata"]["uid"]) != line:
                        told[body["metadata"]["uid"]] = line
                        _say(body, line, as_json=as_json)


def _say(body: Object, line: str, *, as_json: bool) -> None:
    if as_json:
        import json

        sys.stdout.write(json.dumps(slim(body), ensure_ascii=False) + "\n")
    else:
        print_line(f"{datetime.now(UTC):%H:%M:%S} {line}")
    sys.stdout.flush()


def _line(kind: Kind, body: Object) -> str:
    state = kind.state(body)
    parts = [
        sign(state, signs(output())).plain,
        f"{body['metadata']['namespace']} {kind.word}/{body['metadata']['name']}",
        state,
        text(found(body, "status", "progress", "summary")),
        text(found(body, "status", "votes", "total") and f"{found(body, 'status', 'votes', 'total')} votes"),
        " ".join(text(found(body, "status", "message")).split()),
    ]
    return " ".join(part for part in parts if part)


class _Trouble(logging.Handler):
    """What the mirrors warn of, kept for the page instead of written across it."""

    def __init__(self, told: Callable[[str], None] | None = None) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self.text = " ".join(record.getMessage().split())
        if self._told:
            self._told(self.text)


@asynccontextmanager
async def _mirrors(
    connection: Connection, namespace: str | None, plurals: list[str], changed: Callable[[], None], trouble: _Trouble
) -> AsyncIterator[dict[str, Mirror]]:
    logger = logging.getLogger("finetune_operator.kube.mirror")
    logger.addHandler(trouble)
    logger.propagate = False
    source = _Children(connection)
    mirrors = {plural: Mirror(source, plural, namespace, changed) for plural in plurals}
    tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors.values()]
    try:
        yield mirrors
    finally:
        logger.removeHandler(trouble)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Children:
    """The client, with a selector for what the product has made: others' pods are not read."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client

    async def list(self, plural: str, namespace: str | None, selector: str = "") -> tuple[list[Object], str]:
        return await self._client.list(plural, namespace, selector or _selector(plural))

    def watch(
        self, plural: str, namespace: str | None, resource_version: str, selector: str = ""
    ) -> AsyncIterator[tuple[str, Object]]:
        return self._client.watch(plural, namespace, resource_version, selector or _selector(plural))


def _selector(plural: str) -> str:
    return "" if plural in OURS else CHILD_SELECTOR
