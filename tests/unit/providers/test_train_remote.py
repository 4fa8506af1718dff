"""Trainings at a provider: real processes against a real HTTP server that fails, hangs up and forgets."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from finetune_operator.contract.failures import EXIT_CODES, FailureReason
from finetune_operator.contract.training import Progress, ProgressBatch
from tests.unit.providers.openai_server import API_KEY, Body, Fault, OpenAIServer, error_body
from tests.unit.providers.pods import MODEL, UID, RemoteJobDirectory, training_config
from tests.waiting import eventually

CREATE = "/fine_tuning/jobs"
REFUSED = EXIT_CODES[FailureReason.PROVIDER_REFUSED]
QUOTA = error_body("You exceeded your current quota.", type_="insufficient_quota", code="credit_balance_exhausted")
BUSY = error_body("Rate limit reached", type_="rate_limit_error", code="rate_limit_exceeded")


@dataclass
class Api:
    """The api process as a trainer sees it."""

    url: str = ""
    points: list[Progress] = field(default_factory=list)
    refuses: int = 0


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api()

    async def post(request: web.Request) -> web.Response:
        if api.refuses:
            api.refuses -= 1
            return web.Response(status=503)
        api.points.extend(ProgressBatch.model_validate_json(await request.read()).points)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/progress/batch", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/progress"  # type: ignore[union-attr]
    yield api
    await runner.cleanup()


async def test_a_training_from_rows_to_a_model(openai_server: OpenAIServer, tmp_path: Path, api: Api) -> None:
    config = training_config(openai_server, learning_rate_multiplier=0.5, price_per_million_tokens="5.00")
    job = RemoteJobDirectory(tmp_path, config.model_copy(update={"progress_url": api.url}))
    api.refuses = 1

    pod = await job.start()
    ending = await pod.ended()

    assert ending.exit_code == 0, pod.log
    (created,) = openai_server.created
    assert created["model"] == MODEL
    assert created["suffix"] == "plato"
    assert created["seed"] == 42
    assert created["metadata"] == {"finetune_job_uid": UID, "finetune_job": "finetune/plato-1"}
    assert created["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 0.5}},
    }
    sent = openai_server.contents[created["training_file"]].splitlines()
    assert [json.loads(line) for line in sent] == job.train_rows
    assert len(openai_server.contents[created["validation_file"]].splitlines()) == 2
    result = ending.result
    assert result.remote
    assert result.remote.model in openai_server.models
    assert (result.remote.base_url, result.adapter_digest) == (openai_server.base_url, None)
    assert (result.tokens, result.remote.cost) == (1500, Decimal("0.0075"))
    assert (result.steps, result.final_loss, result.best_loss) == (30, 1.0, 1.0)
    assert result.test_loss == pytest.approx(2.5 / 3)
    assert result.train_seconds == 321
    assert [point.step for point in api.points] == list(range(1, 31))
    assert api.points[14].model_copy(update={"time": None, "eta_seconds": 0}) == Progress.model_construct(
        job=job.config.job,
        attempt="plato-1-abcde",
        step=15,
        total_steps=30,
        epoch=1.5,
        total_epochs=3.0,
        loss=2.0,
        eta_seconds=0,
        time=None,
    )
    assert "Step 30/30: training loss=1.00" in pod.log
    assert '"cost": "0.0' in pod.log
    assert openai_server.files == {}, "the training data leave with the training"


async def test_preferences_go_in_the_providers_own_form(openai_server: OpenAIServer, tmp_path: Path) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server, "DPO"))

    pod = await job.run()

    assert pod.exit_code == 0
    (created,) = openai_server.created
    assert created["method"] == {
        "type": "dpo",
        "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": 2, "beta": 0.1}},
    }
    assert json.loads(openai_server.contents[created["training_file"]].splitlines()[0]) == {
        "input": {"messages": [{"role": "user", "content": "Question 0"}]},
        "preferred_output": [{"role": "assistant", "content": "Good"}],
        "non_preferred_output": [{"role": "assistant", "content": "Bad"}],
    }


async def test_without_held_out_rows_nothing_is_validated(openai_server: OpenAIServer, tmp_path: Path) -> None:
    ending = await RemoteJobDirectory(tmp_path, training_config(openai_server), test_rows=0).run()

    assert ending.exit_code == 0
    (created,) = openai_server.created
    assert "validation_file" not in created
    assert len(openai_server.contents) == 1


async def test_a_model_without_a_price_costs_nobody_knows_what(openai_server: OpenAIServer, tmp_path: Path) -> None:
    ending = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run()

    assert ending.result.remote
    assert (ending.result.remote.trained_tokens, ending.result.remote.cost) == (1500, None)


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


async def test_a_wrong_key_is_told_without_the_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    wrong = "sk-wrong-but-secret"

    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run(wrong)

    assert pod.exit_code == REFUSED
    assert "Incorrect API key provided: [the API key]." in pod.failure.message
    assert "spec.openai.secretRef" in pod.failure.remedy
    assert_nowhere(wrong, tmp_path)


@pytest.mark.parametrize("key", [None, "", " \n", "two\nlines"])
async def test_an_unusable_key_is_said_before_anything_is_sent(
    openai_server: OpenAIServer, tmp_path: Path, key: str | None
) -> None:
    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run(key)

    assert pod.exit_code == REFUSED
    assert "no usable API key" in pod.failure.message
    assert openai_server.requests == []


async def test_the_key_is_in_no_file_and_no_log(openai_server: OpenAIServer, tmp_path: Path) -> None:
    openai_server.faults.append(Fault("GET", "/events", status=500, text=f"trace: Bearer {API_KEY}"))

    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).start()

    assert (await pod.ended()).exit_code == 0
    assert "trace: Bearer [the API key]" in pod.log
    assert_nowhere(API_KEY, tmp_path)


def assert_nowhere(key: str, directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if key.encode() in path.read_bytes()] == []


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


@dataclass(frozen=True)
class Moment:
    """When a pod is killed: during this request, which the provider carries out all the same."""

    title: str
    method: str
    path: str
    times: int = 1


MOMENTS = [
    Moment("at the look for uploads", "GET", "/files"),
    Moment("at the upload", "POST", "/files"),
    Moment("at the look for the job", "GET", CREATE),
    Moment("at the creation", "POST", CREATE),
    Moment("while it waits", "GET", "/events"),
    Moment("at the end", "GET", "/checkpoints"),
    Moment("at the tidying up", "DELETE", "/file-1"),
]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.title)
async def test_an_attempt_that_is_killed_leaves_one_job(
    openai_server: OpenAIServer, tmp_path: Path, moment: Moment
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.faults.append(Fault(moment.method, moment.path, lost="time"))
    pod = await job.start()
    await eventually(openai_server.hanging.is_set)
    await pod.killed()

    ending = await job.run()

    assert ending.exit_code == 0
    assert ending.result.remote
    assert ending.result.remote.model in openai_server.models
    assert len(openai_server.jobs) == 1
    assert len(openai_server.contents) == 2


@pytest.mark.parametrize("keeps_metadata", [True, False])
async def test_a_job_whose_id_was_never_written_is_found_again(tmp_path: Path, keeps_metadata: bool) -> None:
    server = OpenAIServer(keeps_metadata=keeps_metadata)
    await server.start()
    try:
        job = RemoteJobDirectory(tmp_path, training_config(server))
        server.faults.append(Fault("POST", CREATE, lost="time"))
        pod = await job.start()
        await eventually(server.hanging.is_set)
        await pod.killed()
        assert job.record.job is None

        ending = await job.run()

        assert ending.exit_code == 0
        assert list(server.jobs) == [job.record.job]
    finally:
        await server.stop()


async def test_a_finished_training_is_told_again_without_asking_the_provider(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    first = (await job.run()).result
    (tmp_path / "termination-log").unlink()
    openai_server.requests.clear()

    again = await job.run()

    assert again.exit_code == 0
    assert again.result == first
    assert openai_server.requests == []


async def test_two_pods_of_one_job_make_one_job(openai_server: OpenAIServer, tmp_path: Path) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.held = True
    first = await job.start()
    await eventually(lambda: openai_server.jobs)

    second = await job.run()

    assert second.exit_code == 75
    openai_server.held = False
    assert (await first.ended()).exit_code == 0, first.log
    assert len(openai_server.jobs) == 1


async def test_a_drained_pod_lets_the_training_go_on_and_its_successor_takes_it_up(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.held = True
    drained = await job.start()
    await eventually(lambda: openai_server.asked("GET", "/events"))

    drained.told_to_leave()

    assert (await drained.ended()).exit_code == 143
    assert [made["status"] for made in openai_server.jobs.values()] == ["validating_files"]
    openai_server.held = False
    assert (await job.run()).exit_code == 0
    assert len(openai_server.jobs) == 1


async def test_a_training_that_nobody_wants_is_cancelled(openai_server: OpenAIServer, tmp_path: Path) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.held = True
    (tmp_path / "unwanted").write_text("the FineTuneJob is deleted")
    openai_server.faults.append(Fault("POST", "/cancel", status=502, text=""))
    pod = await job.start()
    await eventually(lambda: openai_server.asked("GET", "/events"))

    pod.told_to_leave()

    assert (await pod.ended()).exit_code == 143
    assert [made["status"] for made in openai_server.jobs.values()] == ["cancelled"], pod.log
    assert openai_server.files == {}


async def test_a_job_that_the_pod_never_learned_of_is_cancelled_too(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    (tmp_path / "unwanted").write_text("the FineTuneJob is deleted")
    openai_server.faults.append(Fault("POST", CREATE, lost="time"))
    pod = await job.start()
    await eventually(openai_server.hanging.is_set)

    pod.told_to_leave()

    assert (await pod.ended()).exit_code == 143
    assert [made["status"] for made in openai_server.jobs.values()] == ["cancelled"], pod.log


async def test_the_training_data_leave_the_provider_though_the_pod_dies_while_they_are_deleted(
    openai_server: OpenAIServer, tmp_path: Path
) -> None:
    job = RemoteJobDirectory(tmp_path, training_config(openai_server))
    openai_server.faults = [Fault("DELETE", "", lost="time")]
    pod = await job.start()
    await asyncio.wait_for(openai_server.hanging.wait(), 30)
    await pod.killed()

    ending = await job.run()

    assert ending.exit_code == 0
    assert openai_server.files == {}
    assert len(openai_server.created) == 1


class TestCancelledByAProcessOfItsOwn:
    """What has no pod, or whose pod was stopped too early, is ended by `train-remote --cancel`."""

    async def test_what_trains_on_while_it_is_suspended(self, openai_server: OpenAIServer, tmp_path: Path) -> None:
        job = RemoteJobDirectory(tmp_path, training_config(openai_server))
        openai_server.held = True
        suspended = await job.start()
        await eventually(lambda: openai_server.asked("GET", "/events"))
        suspended.told_to_leave()
        assert (await suspended.ended()).exit_code == 143
        assert [made["status"] for made in openai_server.jobs.values()] == ["validating_files"]

        assert (await job.run(cancel=True)).exit_code == 0

        assert [made["status"] for made in openai_server.jobs.values()] == ["cancelled"]
        assert openai_server.files == {}
        assert (await job.run(cancel=True)).exit_code == 0, "it may be asked twice"

    async def test_a_job_that_was_made_while_its_pod_was_stopped_and_shows_only_later(
        self, openai_server: OpenAIServer, tmp_path: Path
    ) -> None:
        """The pod looks, finds none and ends; the provider goes on with the request that it has."""
        job = RemoteJobDirectory(tmp_path, training_config(openai_server))
        openai_server.faults.append(Fault("POST", CREATE, lost="time"))
        pod = await job.start()
        await eventually(openai_server.hanging.is_set)
        await pod.killed()
        ((name, late),) = openai_server.jobs.items()
        openai_server.jobs.clear()

        cancelling = asyncio.create_task(job.run(cancel=True))
        looks = openai_server.asked("GET", CREATE)
        await eventually(lambda: openai_server.asked("GET", CREATE) > looks)
        openai_server.jobs[name] = late

        assert (await cancelling).exit_code == 0
        assert late["status"] == "cancelled"

    async def test_it_waits_for_an_attempt_that_is_still_at_work(
        self, openai_server: OpenAIServer, tmp_path: Path
    ) -> None:
        job = RemoteJobDirectory(tmp_path, training_config(openai_server))
        openai_server.held = True
        first = await job.start()
        await eventually(lambda: openai_server.asked("GET", "/events"))

        assert (await job.run(cancel=True)).exit_code == 75
        assert [made["status"] for made in openai_server.jobs.values()] == ["validating_files"]

        await first.killed()
        assert (await job.run(cancel=True)).exit_code == 0
        assert [made["status"] for made in openai_server.jobs.values()] == ["cancelled"]

    async def test_what_never_began_asks_nobody(self, openai_server: OpenAIServer, tmp_path: Path) -> None:
        job = RemoteJobDirectory(tmp_path, training_config(openai_server))
        (tmp_path / "artifacts").rename(tmp_path / "elsewhere")

        assert (await job.run(cancel=True)).exit_code == 0
        assert openai_server.requests == []

    async def test_a_key_that_is_no_longer_taken_is_said(self, openai_server: OpenAIServer, tmp_path: Path) -> None:
        job = RemoteJobDirectory(tmp_path, training_config(openai_server))
        assert (await job.run()).exit_code == 0

        ending = await job.run("sk-revoked", cancel=True)

        assert ending.exit_code == REFUSED
        assert "spec.openai.secretRef" in ending.failure.remedy
