"""Pods that are killed, doubled or drained: one job at the provider, and nothing of the data stays there."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.providers.openai_server import CREATE, Fault, OpenAIServer
from tests.unit.providers.pods import RemoteJobDirectory, training_config
from tests.waiting import eventually


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
