"""Which of an engine's pods answers: what the guard adds to whatever vLLM or the guard itself says."""

import importlib
import socket
from types import ModuleType
from typing import Any

import pytest

from finetune_operator.contract.places import ENGINE_POD_HEADER
from tests.unit.server_image.merged_directory import SERVER_IMAGE

KEY = "engine-key"


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(socket, "gethostname", lambda: "vllm-a-7c9d-x2x4")
    monkeypatch.syspath_prepend(str(SERVER_IMAGE))
    return importlib.import_module("guard")


async def vllm(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for last in (False, True):
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": not last})


ANSWERS: dict[str, tuple[str, str, int]] = {
    "of vLLM": ("/v1/chat/completions", KEY, 200),
    "of vLLM, that it lives": ("/health", "", 200),
    "of the guard: no key": ("/v1/chat/completions", "", 401),
    "of the guard: not served": ("/adapters", KEY, 404),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_every_answer_tells_its_pod_once(guard: ModuleType, case: str) -> None:
    path, key, status = ANSWERS[case]
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"authorization", f"Bearer {key}".encode())]}
    await guard.Guard(vllm)(scope, None, send)
    head, *body = sent
    assert head["status"] == status
    assert [value for name, value in head["headers"] if name == ENGINE_POD_HEADER.encode()] == [b"vllm-a-7c9d-x2x4"]
    assert len(head["headers"]) > 1
    assert all(message["type"] == "http.response.body" for message in body)
