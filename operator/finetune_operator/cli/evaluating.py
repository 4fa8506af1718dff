"""`evaluate`: what was measured of a version beside its base model, and have it measured anew."""

import asyncio
from contextlib import suppress
from typing import Any

from rich.text import Text

from finetune_operator.cli.changing import version_name
from finetune_operator.cli.connection import Connection, connected
from finetune_operator.cli.failures import ExitCode, Failed
from finetune_operator.cli.kinds import VERSION, found, text
from finetune_operator.cli.options import Cluster, Format
from finetune_operator.cli.printing import Column, hint, note, output, print_data, table
from finetune_operator.contract.failures import FailureReason

POLL_SECONDS = 2.0
FAILURES = frozenset(FailureReason)
SOURCES = (("served", ("status", "evaluation")), ("training", ("spec", "lineage", "evaluation")))
QUANTITIES = (
    ("meanLatencySeconds", "latency, s", False),
    ("tokensPerSecond", "tokens per second", True),
    ("p95LatencySeconds", "latency of 19 in 20, s", False),
    ("meanSecondsToFirstToken", "first token, s", False),
    ("costPerAnswer", "cost of an answer", False),
    ("costPerMillionTokens", "cost of a million tokens", False),
    ("memoryGigabytes", "memory of an engine pod, GB", None),
)
"""Members of an evaluation, as people read them, and whether more is better; None where it is neither: both models
share the engine, and its memory mostly grows with its age."""

Object = dict[str, Any]


async def evaluate(
    cluster: Cluster, name: str, wanted: Object | None, form: Format, *, wait_seconds: float
) -> ExitCode:
    """Where something is wanted, ask for it first; it is measured on the served version. Raises `Failed`."""
    async with connected(cluster) as connection:
        body = await connection.get(VERSION.plural, version_name(name))
        if wanted is not None:
            body = await connection.change(VERSION.plural, body, {"evaluation": wanted})
            if not wait_seconds:
                hint(f"Asked for; look at it later: ftctl evaluate {body['metadata']['name']}")
                return ExitCode.DONE
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    body = await _measured(connection, body)
            if not _is_measured(body):
                note(f"not measured yet: {_why_not(body)}")
                return ExitCode.TIMED_OUT
            if _condition(body)["status"] != "True":
                raise Failed(f"{body['metadata']['name']} could not be measured: {_why_not(body)}")
    _show(body, form)
    return ExitCode.DONE


async def _measured(connection: Connection, body: Object) -> Object:
    name = body["metadata"]["name"]
    while not _is_measured(body):
        await asyncio.sleep(POLL_SECONDS)
        body = await connection.get(VERSION.plural, name)
    return body


def _is_measured(body: Object) -> bool:
    """What is asked for now, well or badly."""
    condition = _condition(body)
    generation = found(body, "metadata", "generation") or 0
    if (condition.get("observedGeneration") or 0) < generation:
        return False
    return condition.get("status") == "True" or condition.get("reason") in FAILURES


def _condition(body: Object) -> Object:
    conditions = found(body, "status", "conditions") or ()
    return next((each for each in conditions if each["type"] == "Evaluated"), {})


def _why_not(body: Object) -> str:
    condition = _condition(body)
    return text(condition.get("message") or condition.get("reason")) or "the operator has not begun"


def _show(body: Object, form: Format) -> None:
    name = body["metadata"]["name"]
    told = {source: measured for source, path in SOURCES if (measured := found(body, *path))}
    if form is not Format.TABLE:
        print_data({"model_version": name, "evaluations": told, "metrics": found(body, "status", "metrics")}, form)
        return
    if not told:
        why = _condition(body)
        raise Failed(
            f"nothing was measured of {name}{': ' + text(why.get('message')) if why else ''}. "
            f"Ask for it: ftctl evaluate {name} --metric RougeL --metric TokenF1",
            ExitCode.REFUSED,
        )
    console = output()
    for source, measured in told.items():
        examples = f", {measured['examples']} examples" if measured.get("examples") else ""
        console.print(f"{name} against its base model ({source}{examples})", highlight=False, soft_wrap=True)
        columns = [
            Column("METRIC"),
            Column("BASE", right=True),
            Column("FINE-TUNED", right=True),
            Column("CHANGE", 1, right=True),
        ]
        console.print(table(columns, list(_rows(measured)), console.width))
        if measured.get("message"):
            note(text(measured["message"]))


def _rows(measured: Object) -> list[list[str | Text]]:
    rows = [[text(each["name"]), *_compared(each, more_is_better=True)] for each in measured.get("metrics") or ()]
    for member, label, more_is_better in QUANTITIES:
        values = measured.get(member)
        if isinstance(values, dict) and "base" in values:
            unit = f" ({values['currency']})" if values.get("currency") else ""
            rows.append([f"{label}{unit}", *_compared(values, more_is_better=more_is_better)])
    return rows


def _compared(values: Object, *, more_is_better: bool | None) -> list[str | Text]:
    base, tuned = values["base"], values["fineTuned"]
    try:
        change = float(tuned) - float(base)
    except ValueError:
        return [text(base), text(tuned), ""]
    is_judged = change and more_is_better is not None
    style = "" if not is_judged else "green" if (change > 0) is more_is_better else "red"
    return [text(base), text(tuned), Text(f"{change:+.4g}" if change else "=", style=style)]
