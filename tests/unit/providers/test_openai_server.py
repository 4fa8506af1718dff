"""The test server is honest: OpenAI's own client trains with it, and is refused what is wrong."""

import json
from pathlib import Path

import openai
import pytest

from tests.unit.providers.openai_server import API_KEY, OpenAIServer

MODEL = "gpt-4.1-nano-2025-04-14"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
    file.write_text(f"{json.dumps(row)}\n" * 12)
    return file


async def test_openais_client_trains_lists_and_deletes(openai_server: OpenAIServer, rows: Path) -> None:
    async with openai.AsyncOpenAI(api_key=API_KEY, base_url=openai_server.base_url, max_retries=0) as client:
        file = await client.files.create(file=rows, purpose="fine-tune")
        job = await client.fine_tuning.jobs.create(
            model=MODEL,
            training_file=file.id,
            suffix="plato",
            seed=7,
            metadata={"who": "me"},
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 4}}},
        )
        assert [found.id async for found in client.fine_tuning.jobs.list(metadata={"who": "me"})] == [job.id]
        assert [found.id async for found in client.fine_tuning.jobs.list(metadata={"who": "you"})] == []
        while job.status not in ("succeeded", "failed"):
            job = await client.fine_tuning.jobs.retrieve(job.id)
        assert (job.status, job.error) == ("succeeded", None)
        events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=7)]
        assert len(events) == 33
        checkpoints = [found async for found in client.fine_tuning.jobs.checkpoints.list(job.id)]
        assert [checkpoint.step_number for checkpoint in checkpoints] == [30, 20, 10]
        assert (await client.models.delete(str(job.fine_tuned_model))).deleted
        assert (await client.files.delete(file.id)).deleted
        with pytest.raises(openai.BadRequestError, match="already completed"):
            await client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("title", "changes"),
    [
        ("an unknown field", {"colour": "blue"}),
        ("an unknown hyperparameter's type", {"method": {"type": "supervised", "supervised": {"hyperparameters": 3}}}),
        ("an unknown method", {"method": {"type": "magic"}}),
        ("a file that is not there", {"training_file": "file-0"}),
        ("a long suffix", {"suffix": "x" * 65}),
    ],
)
async def test_the_server_refuses(
    openai_server: OpenAIServer, rows: Path, title: str, changes: dict[str, object]
) -> None:
    async with openai.AsyncOpenAI(api_key=API_KEY, base_url=openai_server.base_url, max_retries=0) as client:
        file = await client.files.create(file=rows, purpose="fine-tune")
        body = {"model": MODEL, "training_file": file.id, **changes}
        with pytest.raises(openai.BadRequestError):
            await client.post("/fine_tuning/jobs", body=body, cast_to=object)


async def test_a_wrong_key_is_refused(openai_server: OpenAIServer) -> None:
    async with openai.AsyncOpenAI(api_key="sk-wrong", base_url=openai_server.base_url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.fine_tuning.jobs.list()
