"""The API key of a training at a provider: in no message, file or log, and looked at before anything is sent."""

from pathlib import Path

import pytest

from tests.unit.providers.openai_server import API_KEY, Fault, OpenAIServer
from tests.unit.providers.pods import REFUSED, RemoteJobDirectory, training_config


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
