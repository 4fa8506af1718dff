"""`finetune-operator remote`: what is at the provider, by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.__main__ import main
from finetune_operator.contract.places import PROVIDER_KEY_VARIABLE
from tests.unit.kubeconfig import kubeconfig
from tests.unit.providers.openai_server import API_KEY, OpenAIServer
from tests.unit.providers.pods import UID, RemoteJobDirectory, training_config
from tests.waiting import eventually

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


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """FineTuneJobs by name, as an API server tells of them."""
    jobs: dict[str, dict[str, Any]] = {}

    async def get(request: web.Request) -> web.Response:
        found = jobs.get(request.match_info["name"])
        return web.json_response(found or {"message": "not found"}, status=200 if found else 404)

    app = web.Application()
    app.router.add_get("/apis/finetune.dev/v1alpha1/namespaces/finetune/finetunejobs/{name}", get)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    (tmp_path / "kubeconfig").write_text(kubeconfig(f"http://127.0.0.1:{port}"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield jobs
    await runner.cleanup()


@pytest.mark.usefixtures("_key")
async def test_strays_are_the_unfinished_jobs_that_the_cluster_does_not_want(
    openai_server: OpenAIServer,
    cluster: dict[str, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    openai_server.held = True
    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).start()
    await eventually(lambda: openai_server.jobs)
    await pod.killed()

    async def listed() -> list[Any]:
        assert await remote(openai_server, "strays") == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (job,) = openai_server.jobs
    stray = {"job": job, "status": "validating_files", "fine_tune_job": "finetune/plato-1"}
    assert await listed() == [stray | {"reason": "the FineTuneJob is deleted"}]
    cluster["plato-1"] = {"metadata": {"uid": UID}, "spec": {}}
    assert await listed() == []
    cluster["plato-1"] = {"metadata": {"uid": UID}, "spec": {"cancel": True}}
    assert await listed() == [stray | {"reason": "the FineTuneJob is cancelled"}]
    cluster["plato-1"] = {"metadata": {"uid": "a later one of this name"}, "spec": {}}
    assert await listed() == [stray | {"reason": "the FineTuneJob is deleted"}]
    openai_server.jobs[job]["status"] = "cancelled"
    assert await listed() == []


@pytest.mark.usefixtures("_key")
async def test_a_cluster_that_does_not_answer_makes_no_strays(
    openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    openai_server.held = True
    pod = await RemoteJobDirectory(tmp_path, training_config(openai_server)).start()
    await eventually(lambda: openai_server.jobs)
    await pod.killed()
    (tmp_path / "kubeconfig").write_text(kubeconfig("http://127.0.0.1:9"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    assert await remote(openai_server, "strays") == 1

    said = capsys.readouterr()
    assert (said.out, said.err.startswith("finetune-operator: GET ")) == ("", True), said.err


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
