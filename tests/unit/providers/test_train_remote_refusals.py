"""A provider that fails, hangs up or refuses: what passes is tried again, and all else is told with its remedy."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_operator.contract.failures import FailureReason
from tests.unit.providers.openai_server import CREATE, Body, Fault, OpenAIServer, error_body
from tests.unit.providers.pods import REFUSED, RemoteJobDirectory, training_config

QUOTA = error_body("You exceeded your current quota.", type_="insufficient_quota", code="credit_balance_exhausted")
BUSY = error_body("Rate limit reached", type_="rate_limit_error", code="rate_limit_exceeded")


@dataclass(frozen=True)
class Trouble:
    """What passes by itself."""

    title: str
    fault: Fault


TROUBLES = [
    Trouble("a busy upload", Fault("POST", "/files", status=429, error=BUSY, headers={"Retry-After": "0"}, times=2)),
    Trouble("a lost upload", Fault("POST", "/files", lost="request")),
    Trouble("an upload whose answer is lost", Fault("POST", "/files", lost="answer")),
    Trouble("a broken server at the creation", Fault("POST", CREATE, status=500, text="<html>oops</html>", times=2)),
    Trouble("a busy server at the creation", Fault("POST", CREATE, status=429, error=BUSY)),
    Trouble("a creation that never arrives", Fault("POST", CREATE, lost="request")),
    Trouble("a creation whose answer is lost", Fault("POST", CREATE, lost="answer")),
    Trouble(
        "a status that is a captive portal's page", Fault("GET", "/ftjob-3", status=200, text="<html>log in</html>")
    ),
    Trouble("a gateway's timeout at the status", Fault("GET", "/ftjob-3", status=504, text="", times=5)),
    Trouble("lost events", Fault("GET", "/events", lost="request", times=3)),
    Trouble("no checkpoints at this provider", Fault("GET", "/checkpoints", status=404, error=error_body("no route"))),
    Trouble("files that can't be listed just now", Fault("GET", "/files", status=503, error=error_body("maintenance"))),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.title)
async def test_trouble_passes_and_nothing_is_made_twice(
    openai_server: OpenAIServer, tmp_path: Path, trouble: Trouble
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.faults.append(trouble.fault)

    pod = await job.run()

    assert pod.exit_code == 0
    assert openai_server.faults == [], "the fault was met"
    assert len(openai_server.jobs) == 1
    assert len(openai_server.contents) == 2
    assert pod.result.remote
    assert pod.result.test_loss is not None


@dataclass(frozen=True)
class Refusal:
    """What only the user can change."""

    title: str
    fault: Fault
    said: str
    remedy: str


REFUSALS = [
    Refusal(
        "no quota", Fault("POST", CREATE, status=429, error=QUOTA), "exceeded your current quota", "spending limit"
    ),
    Refusal(
        "no right",
        Fault("POST", "/files", status=403, error=error_body("You are not allowed to fine-tune")),
        "not allowed to fine-tune",
        "right to fine-tune",
    ),
    Refusal(
        "a closed platform",
        Fault("POST", CREATE, status=400, error=error_body("Fine-tuning is no longer offered")),
        "no longer offered",
        "change what the provider names",
    ),
    Refusal(
        "a path that is not an API",
        Fault("GET", "/files", status=404, text="<html>not found</html>"),
        "not found",
        "spec.openai.baseUrl",
    ),
    Refusal(
        "a redirect",
        Fault("GET", "/files", status=302, text="", headers={"Location": "http://127.0.0.1:1/"}),
        "302",
        "",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.title)
async def test_a_refusal_is_final_and_says_what_to_change(
    openai_server: OpenAIServer, tmp_path: Path, refusal: Refusal
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.faults.append(refusal.fault)

    pod = await job.run()

    assert pod.exit_code == REFUSED
    assert pod.failure.reason is FailureReason.PROVIDER_REFUSED
    assert refusal.said in pod.failure.message
    assert refusal.remedy in pod.failure.remedy
    assert openai_server.jobs == {}


async def test_a_model_that_the_provider_does_not_know(openai_server: OpenAIServer, tmp_path: Path) -> None:
    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server, model="gpt-0")).run()

    assert pod.exit_code == REFUSED
    assert "gpt-0 can't be fine-tuned" in pod.failure.message
    assert "baseModel.source.openai.model" in pod.failure.remedy


async def test_rows_that_the_provider_does_not_take(openai_server: OpenAIServer, tmp_path: Path) -> None:
    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server), rows=9).run()

    assert pod.exit_code == REFUSED
    assert "invalid_training_file" in pod.failure.message
    assert "at least 10 examples" in pod.failure.message
    assert "dataset's rows" in pod.failure.remedy
    assert openai_server.files == {}


async def test_a_job_that_was_cancelled_at_the_provider(openai_server: OpenAIServer, tmp_path: Path) -> None:
    def cancel(job: Body) -> None:
        job["status"] = "cancelled"

    openai_server.end = cancel

    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run()

    assert pod.exit_code == REFUSED
    assert "was cancelled at the provider" in pod.failure.message


async def test_a_job_that_fails_by_the_providers_fault_is_made_anew_by_the_next_attempt(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    def fail(job: Body) -> None:
        error = {"code": "server_error", "message": "The job failed due to an internal error.", "param": None}
        job |= {"status": "failed", "error": error}

    openai_server.end = fail
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))

    pod = await job.start()
    first = await pod.ended()

    assert first.exit_code == 1, pod.log
    assert "internal error" in pod.log.splitlines()[-1]
    assert job.record.job is None
    openai_server.end = None
    second = await job.run()
    assert second.exit_code == 0
    assert second.result.remote
    assert len(openai_server.jobs) == 2
    assert second.result.remote.job not in job.record.abandoned
    assert len(openai_server.contents) == 2, "what was uploaded is used again"
