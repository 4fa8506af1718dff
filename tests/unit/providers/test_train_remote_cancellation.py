"""A training that nobody wants any more is cancelled at its provider, by its pod or by a process of its own."""

import asyncio
from pathlib import Path

from tests.unit.providers.openai_server import CREATE, Fault, OpenAIServer
from tests.unit.providers.pods import REFUSED, RemoteJobDirectory, training_config
from tests.waiting import eventually


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
