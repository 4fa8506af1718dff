"""`status`: where one thing stands, and, with a timeout, once it has come to its end; the exit code says which."""

import asyncio
from contextlib import suppress
from typing import Any

from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import ExitCode, Failed, refused, usage
from finetune_operator.cli.kinds import BATCH, JOB, TEST, VERSION, Kind, found, named, styled, text
from finetune_operator.cli.options import Cluster, Format
from finetune_operator.cli.printing import clean, output, print_data
from finetune_operator.cli.reading import slim
from finetune_operator.kube.errors import Gone, Unavailable
from finetune_operator.resources.abtest import TestPhase, Verdict
from finetune_operator.resources.batch_inference import BatchPhase
from finetune_operator.resources.finetunejob import Phase
from finetune_operator.resources.modelversion import State

Object = dict[str, Any]
AGAIN_SECONDS = 1.0
ENDS: dict[str, dict[str, ExitCode]] = {
    JOB.plural: {"Succeeded": ExitCode.DONE, "Failed": ExitCode.FAILED, "Cancelled": ExitCode.FAILED},
    VERSION.plural: {
        "Ready": ExitCode.DONE,
        "Deployed": ExitCode.DONE,
        "Archived": ExitCode.FAILED,
        "Failed": ExitCode.FAILED,
    },
    TEST.plural: {
        "Won": ExitCode.DONE,
        "Lost": ExitCode.FAILED,
        "Inconclusive": ExitCode.FAILED,
        "Aborted": ExitCode.FAILED,
    },
    BATCH.plural: {"Succeeded": ExitCode.DONE, "Failed": ExitCode.FAILED, "Cancelled": ExitCode.FAILED},
}
"""A version may still leave its state; a waiter takes the first one that answers."""
STATES: dict[str, tuple[str, ...]] = {
    JOB.plural: tuple(Phase),
    VERSION.plural: tuple(State),
    TEST.plural: (TestPhase.PENDING, TestPhase.RUNNING, *Verdict),
    BATCH.plural: tuple(BatchPhase),
}


async def status(
    cluster: Cluster, what: str, timeout_seconds: float, form: Format, awaited: str | None = None
) -> ExitCode:
    """`awaited` is the one state that counts as done. Raises `Failed` where there is no such thing, or no more."""
    kind, name = named(what)
    if awaited is not None and awaited not in STATES[kind.plural]:
        raise usage(f"{awaited!r} is no state of a {kind.word}: write one of {', '.join(STATES[kind.plural])}")
    async with connected(cluster) as connection:
        body = await connection.get(kind.plural, name)
        if timeout_seconds and _end(kind, body, awaited) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    body = await _ended(connection, kind, body, awaited)
            if _end(kind, body, awaited) is None:
                body = await connection.get(kind.plural, name)
    _show(kind, body, form)
    ended = _end(kind, body, awaited)
    return ExitCode.TIMED_OUT if ended is None else ended


def _end(kind: Kind, body: Object, awaited: str | None) -> ExitCode | None:
    state = kind.state(body)
    ended = ENDS[kind.plural].get(state)
    if awaited is None or ended is ExitCode.FAILED:
        return ExitCode.DONE if state == awaited else ended
    return ExitCode.DONE if state == awaited else None


async def _ended(connection: Connection, kind: Kind, body: Object, awaited: str | None) -> Object:
    """The object once it is at its end; breaks of the connection are waited out."""
    name, uid = body["metadata"]["name"], body["metadata"]["uid"]
    while True:
        version = body["metadata"]["resourceVersion"]
        try:
            with connection.explained(kind.plural, name):
                watch = connection.client.watch(kind.plural, connection.namespace, version, name=name)
                try:
                    async for event, seen in watch:
                        if event == "BOOKMARK":
                            version = seen["metadata"]["resourceVersion"]
                        elif event == "DELETED" or seen["metadata"]["uid"] != uid:
                            raise refused(f"{kind.word} {name} was deleted while it was waited for")
                        elif _end(kind, seen, awaited) is not None:
                            return seen
                except (Gone, Unavailable):
                    await asyncio.sleep(AGAIN_SECONDS)
            body = await connection.get(kind.plural, name)
        except Failed as failed:
            if failed.code is not ExitCode.UNAVAILABLE:
                raise
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        if body["metadata"]["uid"] != uid:
            raise refused(f"{kind.word} {name} was deleted and made anew while it was waited for")
        if _end(kind, body, awaited) is not None:
            return body


def _show(kind: Kind, body: Object, form: Format) -> None:
    if form is not Format.TABLE:
        print_data(slim(body), form)
        return
    console = output()
    name, state = body["metadata"]["name"], kind.state(body)
    console.print(f"{kind.word}/{name} ", styled(state), sep="", soft_wrap=True, highlight=False)
    for label, value in _facts(kind, body):
        if value:
            console.print(f"  {label:<12} {value}", soft_wrap=True, highlight=False, markup=False)
    for condition in found(body, "status", "conditions") or ():
        console.print(
            f"  {condition['type']:<18} {condition['status']:<8} {condition['reason']}"
            + (f": {' '.join(clean(condition['message']).split())}" if condition.get("message") else ""),
            soft_wrap=True,
            highlight=False,
            markup=False,
            style="bright_black",
        )


def _facts(kind: Kind, body: Object) -> list[tuple[str, str]]:
    told = found(body, "status") or {}
    progress = told.get("progress") or {}
    facts = [("message", " ".join(text(told.get("message")).split()))]
    match kind:
        case _ if kind is JOB:
            facts += [
                ("progress", text(progress.get("summary"))),
                ("loss", text(progress.get("loss"))),
                ("left", text(progress.get("eta"))),
                ("rows", text(found(told, "dataset", "rows"))),
                ("version", text(told.get("modelVersion"))),
                ("attempts", text(told.get("attempts"))),
                ("cost", _cost(told)),
            ]
        case _ if kind is VERSION:
            facts += [("loaded", text(told.get("replicas"))), ("engine", text(told.get("engine")))]
        case _ if kind is TEST:
            votes = told.get("votes") or {}
            facts += [
                ("split", text(told.get("split"))),
                ("votes", text(votes.get("total"))),
                ("win rate", text(votes.get("winRatePercent"))),
                ("p-value", text(told.get("pValue"))),
                ("leader", text(told.get("leader"))),
                ("needed", text(told.get("votesStillNeeded"))),
            ]
        case _:
            facts += [("progress", text(progress.get("summary"))), ("results", text(found(told, "results", "uri")))]
    return facts


def _cost(told: Object) -> str:
    cost = told.get("cost") or {}
    return f"{cost['spent']} {cost.get('currency') or ''}".strip() if cost.get("spent") is not None else "unknown"
