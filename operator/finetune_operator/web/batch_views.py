"""What REST says of a BatchInference, and of its first answers. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from finetune_operator.contract.batch_answers import BatchAnswer
from finetune_operator.core.inference_cost import amount, rounded
from finetune_operator.resources.batch_inference import KIND, BatchInference, BatchInferenceStatus, BatchPhase
from finetune_operator.store.batch_answers import KeptRow
from finetune_operator.web.abtest_requests import BASE
from finetune_operator.web.ids import ObjectId
from finetune_operator.web.odd_resources import parsed
from finetune_operator.web.shown import shown_manifest

Object = dict[str, Any]
BEFORE_COSTS = "it ended under an operator that did not tell costs of batches: run it anew to know what it costs"
FINISHED = frozenset({BatchPhase.SUCCEEDED, BatchPhase.FAILED, BatchPhase.CANCELLED})


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class BatchProgress(_View):
    """How far it is; a row counts once for each model."""

    percent: int
    done: int
    total: int
    failed: int
    eta_seconds: int | None
    updated_at: datetime | None


class BatchFile(_View):
    """The answers of one model."""

    served_name: str
    uri: str
    """`volume://<claim>/<path>`: a line a row in the shape of OpenAI's Batch output."""
    failed: int
    first_error: str | None


class BatchResults(_View):
    """All answers."""

    uri: str
    """The directory of all files."""
    rows: int
    failed: int
    digest: str
    pairs: int | None
    """Pairs of answers that people can vote on."""
    files: tuple[BatchFile, ...]


class BatchTokens(_View):
    """As the engines counted them."""

    prompt: int
    completion: int


class BatchCost(_View):
    """What its answers cost; an absent amount is unknown, not 0."""

    currency: str | None
    spent: float | None
    """Of all models together."""
    basis: str | None
    """What is multiplied by what."""
    unknown: str | None
    """Why there is no amount, and what makes it known."""


class BatchEntry(_View):
    """A BatchInference."""

    id: str
    """`<namespace>.<name>`."""
    uid: str
    namespace: str
    name: str
    model_version: str
    compare_with: str | None
    """A version's name, or `base`."""
    ab_test: str | None
    """The id of the test that gets the pairs of answers."""
    phase: BatchPhase | None
    """As `kubectl get` prints it; none before the operator has seen it."""
    message: str | None
    suspended: bool
    """Whether it waits to be resumed."""
    cancelled: bool
    """Whether its end was asked for."""
    progress: BatchProgress | None
    directory: str | None
    """`volume://<claim>/<path>` of what was asked and answered so far; it stays when the BatchInference is deleted."""
    results: BatchResults | None
    tokens: BatchTokens | None
    cost: BatchCost
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class BatchDetail(BatchEntry):
    """A BatchInference, and how it would be written as YAML."""

    manifest: dict[str, JsonValue]


class BatchList(_View):
    """The newest first; `after` of the next page is `next`."""

    batches: tuple[BatchEntry, ...]
    total: int
    has_more: bool
    next: str | None
    """`after` of the next page."""


class ModelAnswer(_View):
    """What one model answered, or why it did not."""

    served_name: str
    answer: str | None
    error: str | None
    shortened: bool
    """Whether this or the prompt is longer than 4,000 characters and cut there."""


class AnsweredRow(_View):
    """One row, and its answers so far, of the version first."""

    number: int
    """Its place among all rows, from 1."""
    custom_id: str
    prompt: str
    answers: tuple[ModelAnswer, ...]


class AnsweredRows(_View):
    """In the order of the dataset."""

    rows: tuple[AnsweredRow, ...]
    kept: int
    """How many rows of this batch the api has: of at most 100, as many as its pod has told; the files have all."""
    has_more: bool
    next: int | None
    """`after` of the next page."""


def is_finished(body: Object) -> bool:
    return body.get("status", {}).get("phase") in FINISHED


def batch_entry(body: Object) -> BatchEntry:
    return BatchEntry(**_members(body))


def batch_detail(body: Object) -> BatchDetail:
    return BatchDetail(**_members(body), manifest=shown_manifest(KIND, body))


def answered_rows(body: Object, found: Sequence[KeptRow], kept: int, limit: int) -> AnsweredRows:
    """Of one row more than the page has, which says whether there is another one."""
    version = body["spec"]["modelVersion"]
    rows = tuple(_row(row.number, row.answers, version) for row in found[:limit])
    has_more = len(found) > limit
    return AnsweredRows(rows=rows, kept=kept, has_more=has_more, next=rows[-1].number if has_more else None)


def _row(number: int, answers: Sequence[BatchAnswer], version: str) -> AnsweredRow:
    in_order = sorted(answers, key=lambda each: each.served_name != version)
    shown = (
        ModelAnswer(served_name=each.served_name, answer=each.answer, error=each.error, shortened=each.shortened)
        for each in in_order
    )
    return AnsweredRow(number=number, custom_id=in_order[0].custom_id, prompt=in_order[0].prompt, answers=tuple(shown))


def _members(body: Object) -> dict[str, Any]:
    batch = parsed(BatchInference, body)
    metadata, spec, status = batch.metadata, batch.spec, batch.status
    other, test = spec.compare_with, spec.ab_test
    return {
        "id": str(ObjectId(metadata.namespace, metadata.name)),
        "uid": metadata.uid,
        "namespace": metadata.namespace,
        "name": metadata.name,
        "model_version": spec.model_version,
        "compare_with": (other.model_version or BASE) if other else None,
        "ab_test": str(ObjectId(metadata.namespace, test.name)) if test else None,
        "phase": status.phase,
        "message": status.message,
        "suspended": spec.suspend,
        "cancelled": spec.cancel,
        "progress": _progress(status),
        "directory": status.directory,
        "results": _results(status),
        "tokens": BatchTokens(**status.tokens.model_dump()) if status.tokens else None,
        "cost": _cost(status),
        "created_at": metadata.creation_timestamp,
        "started_at": status.start_time,
        "finished_at": status.completion_time,
    }


def _progress(status: BatchInferenceStatus) -> BatchProgress | None:
    if (known := status.progress) is None:
        return None
    return BatchProgress(
        percent=known.percent,
        done=known.done,
        total=known.total,
        failed=known.failed,
        eta_seconds=known.eta_seconds,
        updated_at=known.last_update_time,
    )


def _cost(status: BatchInferenceStatus) -> BatchCost:
    if (known := status.cost) is None:
        unknown = _without_cost(status)
        return BatchCost(currency=None, spent=None, basis=None, unknown=unknown)
    spent = amount(known.spent)
    return BatchCost(
        currency=known.currency,
        spent=None if spent is None else float(rounded(spent)),
        basis=known.basis,
        unknown=known.unknown,
    )


def _without_cost(status: BatchInferenceStatus) -> str:
    if status.results:
        return BEFORE_COSTS
    if status.phase in FINISHED:
        return "only a run that comes to its end tells its tokens"
    return "its tokens are told with its results, once all are there"


def _results(status: BatchInferenceStatus) -> BatchResults | None:
    if (known := status.results) is None:
        return None
    return BatchResults(
        uri=known.uri,
        rows=known.rows,
        failed=known.failed,
        digest=known.digest,
        pairs=known.pairs,
        files=tuple(
            BatchFile(
                served_name=each.served_name,
                uri=f"{known.uri}/{each.file}",
                failed=each.failed,
                first_error=each.first_error,
            )
            for each in known.models
        ),
    )
