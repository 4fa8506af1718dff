"""Rules of a training at a provider, by table."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.contract.failures import FailureReason
from finetune_operator.contract.training import JobIdentity
from finetune_operator.core import remote_training as rules
from finetune_operator.core.fine_tuning_api import JobError, JobStatus, Page, RemoteEvent, RemoteJob
from tests.builders import condition

JOB = JobIdentity(namespace="finetune", name="plato-1", uid="uid-1")


def event(**changes: Any) -> RemoteEvent:
    return RemoteEvent.model_validate({"id": "ftevent-1", "created_at": 1_700_000_000, **changes})


def remote_job(**changes: Any) -> RemoteJob:
    return RemoteJob.model_validate({"id": "ftjob-1", "status": "failed", **changes})


@pytest.mark.parametrize(
    ("tokens", "price", "wanted"),
    [
        (1_000_000, Decimal("5.00"), Decimal("5.0000")),
        (1500, Decimal("25"), Decimal("0.0375")),
        (1, Decimal("0.5"), Decimal("0.0000")),
        (0, Decimal("25"), Decimal("0.0000")),
        (None, Decimal("25"), None),
        (1_000_000, None, None),
    ],
)
def test_cost_is_tokens_times_price_or_unknown(
    tokens: int | None, price: Decimal | None, wanted: Decimal | None
) -> None:
    assert rules.cost(tokens, price) == wanted


@given(st.integers(0, 10**9), st.integers(1, 100))
def test_an_estimate_bills_each_epoch(characters: int, epochs: int) -> None:
    once, all_of_them = rules.estimated_tokens(characters, 1), rules.estimated_tokens(characters, epochs)
    assert once * epochs - epochs <= all_of_them <= once * epochs


@dataclass(frozen=True)
class Metrics:
    """Data of an event, and what progress it makes."""

    title: str
    data: object
    wanted: tuple[int, int, float, float | None, float | None] | None
    """Step, total steps, epoch, loss and held-out loss."""


METRICS = [
    Metrics("all that OpenAI tells", {"step": 10, "total_steps": 30, "train_loss": 0.5, "full_valid_loss": 0.7,
                                      "valid_loss": 0.9, "train_mean_token_accuracy": 0.8}, (10, 30, 1.0, 0.5, 0.7)),
    Metrics("a part of the held-out rows", {"step": 9, "total_steps": 9, "valid_loss": 0.9}, (9, 9, 3.0, None, 0.9)),
    Metrics("no total", {"step": 6, "train_loss": 0.5}, (6, 60, 0.3, 0.5, None)),
    Metrics("more steps than were estimated", {"step": 90, "train_loss": 0.5}, (90, 90, 3.0, 0.5, None)),
    Metrics("a whole number with a point", {"step": 10.0, "total_steps": 30}, (10, 30, 1.0, None, None)),
    Metrics("no step", {"train_loss": 0.5}, None),
    Metrics("nothing", {}, None),
    Metrics("nonsense", {"step": "soon"}, None),
    Metrics("a list", [1, 2], None),
]  # fmt: skip


@pytest.mark.parametrize("metrics", METRICS, ids=lambda metrics: metrics.title)
def test_metrics_become_progress(metrics: Metrics) -> None:
    found = rules.measurements([event(data=metrics.data)], JOB, "pod", total_steps=60, total_epochs=3.0)

    assert [(p.step, p.total_steps, p.epoch, p.loss, p.eval_loss) for p in found] == (
        [metrics.wanted] if metrics.wanted else []
    )


def test_progress_is_in_the_order_of_steps_and_knows_the_end() -> None:
    events = [event(data={"step": 2}), event(data={"step": 1})]

    found = rules.measurements(events, JOB, "pod", total_steps=2, total_epochs=1.0, finish=1_700_000_090)

    assert [point.step for point in found] == [1, 2]
    assert {point.eta_seconds for point in found} == {90}
    assert {point.time for point in found} == {datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}


@pytest.mark.parametrize("created_at", [1_700_000_000_000, -(10**18)], ids=["milliseconds", "before all calendars"])
def test_a_time_that_no_calendar_has_ends_no_training(created_at: int) -> None:
    (found,) = rules.measurements(
        [event(created_at=created_at, data={"step": 1})], JOB, "pod", total_steps=2, total_epochs=1.0
    )

    assert (found.step, found.time.year) == (1, 1970)


@pytest.mark.parametrize(
    ("status", "code", "type_", "passing"),
    [
        (500, None, "server_error", True),
        (503, None, None, True),
        (408, None, None, True),
        (409, None, None, True),
        (429, "rate_limit_exceeded", "rate_limit_error", True),
        (429, "credit_balance_exhausted", "insufficient_quota", False),
        (429, "insufficient_quota", None, False),
        (400, "invalid_request", None, False),
        (401, "invalid_api_key", None, False),
        (403, None, None, False),
        (404, "model_not_found", None, False),
        (302, None, None, False),
    ],
)
def test_what_passes_by_itself(status: int, code: str | None, type_: str | None, passing: bool) -> None:
    assert rules.is_passing(status, JobError(code=code), type_) is passing


@pytest.mark.parametrize(
    ("status", "error", "type_", "remedy"),
    [
        (401, JobError(message="Incorrect API key"), None, "spec.openai.secretRef"),
        (403, JobError(message="No access"), None, "right to fine-tune"),
        (404, JobError(message="No such model"), None, "baseModel.source.openai.model"),
        (413, JobError(message="Too large"), None, "fewer rows"),
        (429, JobError(message="Pay first"), "insufficient_quota", "spending limit"),
        (400, JobError(message="batch_size is too large"), None, "FineTuneJob's spec"),
        (400, JobError(), None, "FineTuneJob's spec"),
    ],
)
def test_a_refusal_has_a_remedy(status: int, error: JobError, type_: str | None, remedy: str) -> None:
    failure = rules.refusal(status, error, type_, "POST /files")

    assert failure.reason is FailureReason.PROVIDER_REFUSED
    assert (error.message or f"HTTP status {status}") in failure.message
    assert remedy in failure.remedy


@pytest.mark.parametrize(
    ("job", "remedy"),
    [
        (remote_job(status="cancelled"), "create the FineTuneJob anew"),
        (remote_job(error={"code": "invalid_training_file", "param": "training_file"}), "as its training_file"),
        (remote_job(error={"code": "invalid_file_format"}), "as its training_file"),
        (remote_job(error={"code": "exceeded_quota"}), "spending limit"),
        (remote_job(error={"code": "unsafe"}), "what the provider names"),
        (remote_job(error=None), "what the provider names"),
        (remote_job(error={"code": "server_error", "message": "oops"}), None),
    ],
)
def test_a_failed_job_is_final_unless_the_fault_is_the_providers(job: RemoteJob, remedy: str | None) -> None:
    failure = rules.failure_of(job)

    assert (failure is None) == (remedy is None)
    assert failure is None or remedy is None or remedy in failure.remedy


@pytest.mark.parametrize(
    ("job", "wanted"),
    [
        (remote_job(metadata={"finetune_job_uid": "uid-1"}), True),
        (remote_job(metadata={"finetune_job_uid": "uid-2"}, training_file="file-2"), False),
        (remote_job(training_file="file-1"), True),
        (remote_job(), False),
    ],
)
def test_a_job_is_known_by_its_mark_or_by_its_file(job: RemoteJob, wanted: bool) -> None:
    assert rules.is_ours(job, "uid-1", "file-1") is wanted
    assert rules.is_ours(remote_job(), "uid-1", None) is False


def resource(*, spec: dict[str, Any] | None = None, held: str = "", **metadata: Any) -> dict[str, Any]:
    conditions = [condition(held)] if held else []
    return {"metadata": {"uid": "uid-1", **metadata}, "spec": spec or {}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("title", "job", "workload", "reason"),
    [
        ("drained", resource(), resource(), None),
        ("suspended", resource(spec={"suspend": True}), resource(held="Suspended"), None),
        ("its Job deleted by hand", resource(), None, None),
        ("deleted", None, None, "deleted"),
        ("being deleted", resource(deletionTimestamp="2026-01-01T00:00:00Z"), resource(), "deleted"),
        ("created anew under its name", resource(uid="uid-2"), resource(), "deleted"),
        ("cancelled", resource(spec={"cancel": True}), resource(), "cancelled"),
        ("failed", resource(held="Stalled"), resource(), "failed"),
        ("out of time", resource(), resource(held="FailureTarget"), "the Job has failed"),
        ("out of attempts", resource(), resource(held="Failed"), "the Job has failed"),
    ],
)  # fmt: skip
def test_when_nobody_waits(title: str, job: Any, workload: Any, reason: str | None) -> None:
    found = rules.unwanted_because(job, workload, "uid-1")

    assert (found is None) == (reason is None), title
    assert reason is None or reason in str(found)


def test_a_status_of_tomorrow_is_waited_for() -> None:
    assert remote_job(status="paused").status is JobStatus.RUNNING
    assert not JobStatus.RUNNING.is_final


def test_what_a_provider_leaves_out_or_adds_does_not_matter() -> None:
    page = Page[RemoteJob].model_validate_json(
        '{"object": "list", "data": [{"id": "j", "status": "queued", "new": {}}], "first_id": "j"}'
    )
    assert (page.data[0].id, page.has_more) == ("j", False)
