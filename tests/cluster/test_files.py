"""Files by OpenAI's client, and a training on them that the real schema takes."""

import json
from pathlib import Path

from openai import AsyncOpenAI

from tests.cluster.rest_api import rest_api, token_with
from tests.cluster.world import World
from tests.waiting import eventually


def rows(count: int) -> bytes:
    question, answer = {"role": "user", "content": "What is justice?"}, "Everyone doing their own work, number {}."
    lines = (
        json.dumps({"messages": [question, {"role": "assistant", "content": answer.format(number)}]})
        for number in range(count)
    )
    return "\n".join(lines).encode()


async def test_a_training_on_files_is_one_by_yaml(resting_world: World, tmp_path: Path) -> None:
    world = resting_world
    editor = await token_with(world, "editor", "edit")
    async with (
        rest_api(world, tmp_path) as api,
        AsyncOpenAI(base_url=f"{api.url}/v1", api_key=editor, max_retries=0) as client,
    ):

        async def may() -> bool:
            status, body = await api.ask("GET", "/v1/files", editor)
            assert status == 200, body
            return True

        await eventually(may)
        train, test = [
            await client.files.create(file=(f"{count}.jsonl", rows(count)), purpose="fine-tune") for count in (60, 9)
        ]
        job = await client.fine_tuning.jobs.create(
            model="volume://models/tiny-llama", training_file=train.id, validation_file=test.id
        )
        assert (job.training_file, job.validation_file) == (train.id, test.id)
        (name,) = await world.names("finetunejobs")
        stored = (await world.get("finetunejobs", name))["spec"]["dataset"]["stored"]
        assert stored["path"].startswith(f"file-{train.id.rpartition('.')[2]}/")
        status, problem = await api.ask("DELETE", f"/v1/files/{train.id}", editor)
        assert (status, problem["error"]["code"]) == (400, "file_in_use"), problem
        await client.fine_tuning.jobs.cancel(job.id)
