"""`ftctl` and OpenAI's client as somebody uses them who has a kubeconfig and nothing else: no kubectl, no address."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI, PermissionDeniedError

from demo.chat import ask
from demo.story import ALIAS, BASE_MODEL, QUESTIONS
from tests.e2e.conftest import World, editor_token

COMMAND = (sys.executable, "-m", "finetune_operator.cli.main")
COMMAND_TIMEOUT_SECONDS = 120
PAGE = "/fine-tuning"


@pytest.fixture
def token(world: World) -> str:
    return editor_token(world, "terminal")


@pytest.fixture
def environment(world: World, token: str, tmp_path: Path) -> dict[str, str]:
    """Where the cluster is and who asks; a PATH without any program."""
    config = json.loads(world.kubectl.run("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
    (context,) = config["contexts"]
    context["context"]["namespace"] = world.kubectl.namespace
    config["users"] = [{"name": context["context"]["user"], "user": {"token": token}}]
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    return {**os.environ, "KUBECONFIG": str(file), "PATH": "/nowhere"}


@contextmanager
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    """The api's address as long as `ftctl dashboard` runs."""
    process = subprocess.Popen(
        [*COMMAND, "dashboard", "--no-browser"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        page = process.stdout.readline().strip()
        assert page.endswith(PAGE), page
        yield page.removesuffix(PAGE)
    finally:
        process.terminate()
        process.wait(COMMAND_TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("export", "--count"), "ratings"),
        (("base-models",), "HuggingFaceTB/"),
        (("cost", "--totals"), "trainings"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_needs_the_api_reaches_it(environment: dict[str, str], arguments: tuple[str, ...], shown: str) -> None:
    ended = subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_TIMEOUT_SECONDS,
    )
    assert (ended.returncode, shown in ended.stdout) == (0, True), ended


def test_openais_client_completes_at_the_apis_own_address(
    world: World, environment: dict[str, str], token: str
) -> None:
    with dashboard(environment) as api_url:
        openai = OpenAI(base_url=f"{api_url}/v1", api_key=token, max_retries=0, timeout=COMMAND_TIMEOUT_SECONDS)
        live = world.kubectl.get("modelversions")["items"]
        deployed = {body["metadata"]["name"] for body in live if body["status"].get("state") == "Deployed"}
        answer = ask(openai, ALIAS, QUESTIONS[0])
        assert answer.text
        assert answer.version in deployed
        assert ask(openai, BASE_MODEL, QUESTIONS[0]).version == BASE_MODEL
        stream = openai.chat.completions.create(
            model=ALIAS,
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            max_tokens=40,
            temperature=0,
            stream=True,
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len(pieces) > 1
        assert "".join(pieces).strip() == answer.text

        view = world.kubectl.run("create", "token", "default", "--duration", "10m").strip()
        with pytest.raises(PermissionDeniedError, match="modelversions/completions"):
            ask(OpenAI(base_url=f"{api_url}/v1", api_key=view, max_retries=0), ALIAS, QUESTIONS[0])
