"""`finetune-operator remote`: what is at the provider, by hand."""

import asyncio
import json
from pathlib import Path

import pytest

from finetune_operator.__main__ import main
from finetune_operator.contract.places import PROVIDER_KEY_VARIABLE
from tests.unit.providers.openai_server import API_KEY, OpenAIServer
from tests.unit.providers.pods import RemoteJobDirectory, training_config

NOBODY = "http://127.0.0.1:9/v1"


async def remote(server: OpenAIServer, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["remote", "--base-url", server.base_url, *arguments])


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROVIDER_KEY_VARIABLE, API_KEY)


@pytest.mark.usefixtures("_key")
async def test_jobs_are_listed_shown_and_cancelled_and_models_deleted(
    openai_server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = await RemoteJobDirectory(tmp_path, training_config(openai_server)).run()
    assert ending.result.remote
    capsys.readouterr()

    assert await remote(openai_server, "jobs") == 0
    (listed,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["id"], listed["status"]) == (ending.result.remote.job, "succeeded")

    assert await remote(openai_server, "status", listed["id"]) == 0
    assert json.loads(capsys.readouterr().out)["fine_tuned_model"] == ending.result.remote.model

    assert await remote(openai_server, "cancel", listed["id"]) == 1
    assert "already completed" in capsys.readouterr().err

    assert await remote(openai_server, "delete-model", ending.result.remote.model) == 0
    assert openai_server.models == set()
    assert await remote(openai_server, "delete-model", ending.result.remote.model) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("price", "cost"), [((), None), (("--price-per-million-tokens", "25.00"), "0.0025")], ids=["unknown", "known"]
)
def test_an_estimate_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], price: tuple[str, ...], cost: str | None
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("x" * 200)

    assert main(["remote", "--base-url", NOBODY, "estimate", str(rows), "--epochs", "2", *price]) == 0

    estimate = json.loads(capsys.readouterr().out)
    assert (estimate["tokens"], estimate.get("cost")) == (100, cost)


def test_no_key_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(PROVIDER_KEY_VARIABLE, raising=False)

    assert main(["remote", "jobs"]) == 2

    assert PROVIDER_KEY_VARIABLE in capsys.readouterr().err


@pytest.mark.usefixtures("_key")
def test_no_answer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["remote", "--base-url", NOBODY, "jobs"]) == 1

    assert "Cannot connect" in capsys.readouterr().err
