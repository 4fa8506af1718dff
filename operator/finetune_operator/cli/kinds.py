"""The kinds as people name them, and what is printed of each. Pure; objects are JSON as the API server has them."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from rich.text import Text

from finetune_operator.cli.failures import usage
from finetune_operator.cli.printing import SIGNS, Column, Signs, age, clean

Object = dict[str, Any]


class Standing(StrEnum):
    """How something is doing, for colours, signs and exit codes."""

    GOOD = "good"
    BAD = "bad"
    BUSY = "busy"
    WAITING = "waiting"


STYLES = {Standing.GOOD: "green", Standing.BAD: "red", Standing.BUSY: "cyan", Standing.WAITING: "yellow"}
STANDINGS: Mapping[str, Standing] = {
    "Succeeded": Standing.GOOD,
    "Ready": Standing.GOOD,
    "Deployed": Standing.GOOD,
    "Won": Standing.GOOD,
    "Failed": Standing.BAD,
    "Cancelled": Standing.BAD,
    "Archived": Standing.BAD,
    "Lost": Standing.BAD,
    "Inconclusive": Standing.BAD,
    "Aborted": Standing.BAD,
    "Preparing": Standing.BUSY,
    "Training": Standing.BUSY,
    "Running": Standing.BUSY,
}
"""Of phases, states and verdicts; all others wait for something."""


class Kind(NamedTuple):
    """One of ours; `word` is how people are told of it."""

    plural: str
    kind: str
    word: str
    names: frozenset[str]
    columns: tuple[Column, ...]
    row: Callable[[Object, datetime], tuple[str | Text, ...]]
    state: Callable[[Object], str]


def found(body: Mapping[str, Any], *path: str) -> Any:
    """What is there, None where any part of the way is absent."""
    value: Any = body
    for part in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def text(value: Any) -> str:
    return "" if value is None else clean(str(value))


def standing(state: str) -> Standing:
    return STANDINGS.get(state, Standing.WAITING)


def styled(state: str) -> Text:
    return Text(state, style=STYLES[standing(state)])


def sign(state: str, signs: Signs = SIGNS) -> Text:
    known = standing(state)
    marks = {
        Standing.GOOD: signs.good,
        Standing.BAD: signs.bad,
        Standing.BUSY: signs.busy,
        Standing.WAITING: signs.waiting,
    }
    return Text(marks[known], style=STYLES[known])


def job_state(body: Object) -> str:
    return text(found(body, "status", "phase")) or "Pending"


def version_state(body: Object) -> str:
    return text(found(body, "status", "state")) or "Pending"


def test_state(body: Object) -> str:
    """The verdict, once there is one."""
    return text(found(body, "status", "verdict") or found(body, "status", "phase")) or "Pending"


def money(amount: Any, currency: Any) -> str:
    """Empty where it is unknown."""
    return f"{amount} {currency or ''}".strip() if amount is not None else ""


def arms(body: Object) -> tuple[str, str]:
    """Baseline and candidate, as the spec names them."""
    baseline = found(body, "spec", "baseline", "modelVersion") or "base"
    return baseline, text(found(body, "spec", "candidate", "modelVersion"))


def _job_row(body: Object, now: datetime) -> tuple[str | Text, ...]:
    progress = found(body, "status", "progress") or {}
    cost = found(body, "status", "cost") or {}
    return (
        styled(job_state(body)),
        text(progress.get("summary")),
        text(progress.get("epoch")),
        text(progress.get("loss")),
        text(progress.get("eta")),
        text(found(body, "status", "modelVersion")),
        age(found(body, "metadata", "creationTimestamp"), now),
        text(found(body, "spec", "baseModel", "name")),
        text(found(body, "spec", "method")),
        text(found(body, "status", "dataset", "rows")),
        money(cost.get("spent"), cost.get("currency")),
        text(found(body, "status", "message")),
    )


def _version_row(body: Object, now: datetime) -> tuple[str | Text, ...]:
    return (
        text(found(body, "spec", "model")),
        text(found(body, "spec", "version")),
        styled(version_state(body)),
        text(found(body, "status", "replicas")),
        age(found(body, "status", "promotedAt"), now),
        age(found(body, "metadata", "creationTimestamp"), now),
        text(found(body, "spec", "baseModel", "name")),
        text(found(body, "status", "engine")),
        text(found(body, "status", "metrics", "ratings", "average")),
        text(found(body, "spec", "notes")),
        text(found(body, "status", "message")),
    )


def _test_row(body: Object, now: datetime) -> tuple[str | Text, ...]:
    baseline, candidate = arms(body)
    status = found(body, "status") or {}
    return (
        styled(text(status.get("phase")) or "Pending"),
        baseline,
        candidate,
        text(status.get("split")),
        text(found(status, "votes", "total")),
        text(found(status, "votes", "winRatePercent")),
        text(status.get("pValue")),
        styled(text(status["verdict"])) if status.get("verdict") else "",
        text(status.get("votesStillNeeded")),
        age(found(body, "metadata", "creationTimestamp"), now),
        text(status.get("message")),
    )


def _batch_row(body: Object, now: datetime) -> tuple[str | Text, ...]:
    progress = found(body, "status", "progress") or {}
    return (
        text(found(body, "spec", "modelVersion")),
        styled(job_state(body)),
        text(progress.get("summary")),
        text(progress.get("failed")),
        text(progress.get("eta")),
        age(found(body, "metadata", "creationTimestamp"), now),
        text(found(body, "status", "results", "uri")),
        _batch_cost(body),
        text(found(body, "status", "message")),
    )


def _batch_cost(body: Object) -> str:
    """Nothing of one that goes on; an unknown cost is said, and `-o yaml` has why."""
    cost = found(body, "status", "cost") or {}
    if cost.get("spent") is None:
        return "unknown" if cost.get("unknown") else ""
    return f"{text(cost['spent'])} {text(cost.get('currency'))}".strip()


JOB = Kind(
    "finetunejobs",
    "FineTuneJob",
    "job",
    frozenset({"job", "jobs", "ftj", "finetunejob", "finetunejobs"}),
    (
        Column("PHASE"),
        Column("PROGRESS", 1, right=True),
        Column("EPOCH", 4, right=True),
        Column("LOSS", 2, right=True),
        Column("ETA", 1),
        Column("VERSION", 1),
        Column("AGE", 2),
        Column("BASE", 5),
        Column("METHOD", 6),
        Column("ROWS", 7, right=True),
        Column("COST", 5, right=True),
        Column("MESSAGE", 9),
    ),
    _job_row,
    job_state,
)
VERSION = Kind(
    "modelversions",
    "ModelVersion",
    "version",
    frozenset({"version", "versions", "model", "models", "modelver", "modelversion", "modelversions"}),
    (
        Column("MODEL", 3),
        Column("VERSION", 4, right=True),
        Column("STATE"),
        Column("LOADED", 1),
        Column("PROMOTED", 2),
        Column("AGE", 2),
        Column("BASE", 5),
        Column("ENGINE", 6),
        Column("RATING", 6, right=True),
        Column("NOTES", 8),
        Column("MESSAGE", 9),
    ),
    _version_row,
    version_state,
)
TEST = Kind(
    "abtests",
    "ABTest",
    "test",
    frozenset({"test", "tests", "abt", "abtest", "abtests", "ab-test", "ab-tests"}),
    (
        Column("PHASE"),
        Column("BASELINE", 3),
        Column("CANDIDATE", 2),
        Column("SPLIT", 4),
        Column("VOTES", 1, right=True),
        Column("WINRATE", 1, right=True),
        Column("P-VALUE", 3, right=True),
        Column("VERDICT", 1),
        Column("NEEDED", 5, right=True),
        Column("AGE", 2),
        Column("MESSAGE", 9),
    ),
    _test_row,
    test_state,
)
BATCH = Kind(
    "batchinferences",
    "BatchInference",
    "batch",
    frozenset({"batch", "batches", "batchinference", "batchinferences"}),
    (
        Column("VERSION", 2),
        Column("PHASE"),
        Column("PROGRESS", 1, right=True),
        Column("FAILED", 3, right=True),
        Column("ETA", 1),
        Column("AGE", 2),
        Column("RESULTS", 6),
        Column("COST", 5, right=True),
        Column("MESSAGE", 9),
    ),
    _batch_row,
    job_state,
)
KINDS = (JOB, VERSION, TEST, BATCH)
WIDE_ONLY_RANK = 5
"""Columns of this rank and beyond are shown with `-o wide` alone."""


def kind_named(word: str) -> Kind:
    """Raises `Failed` for a word that names none."""
    lower = word.lower()
    for kind in KINDS:
        if lower in kind.names:
            return kind
    raise usage(f"{word!r} is no kind: write jobs, versions, tests or batches")


def named(text_: str) -> tuple[Kind, str]:
    """KIND/NAME, such as `job/plato-1`; a name alone is a job."""
    word, slash, name = text_.partition("/")
    if not slash:
        return JOB, text_
    if not name:
        raise usage(f"{text_!r} names nothing: write KIND/NAME, such as job/plato-1")
    return kind_named(word), name


def columns_of(kind: Kind, *, namespaced: bool, wide: bool) -> list[Column]:
    own = [column for column in kind.columns if wide or column.rank < WIDE_ONLY_RANK]
    return [*([Column("NAMESPACE")] if namespaced else []), Column("NAME"), *own]


def rows_of(
    kind: Kind, bodies: Iterable[Object], now: datetime, *, namespaced: bool, wide: bool
) -> list[list[str | Text]]:
    """A row has the cells of `columns_of`."""
    keep = [wide or column.rank < WIDE_ONLY_RANK for column in kind.columns]
    rows: list[list[str | Text]] = []
    for body in bodies:
        metadata = body["metadata"]
        cells = [cell for cell, kept in zip(kind.row(body, now), keep, strict=True) if kept]
        rows.append([*([metadata["namespace"]] if namespaced else []), metadata["name"], *cells])
    return rows
