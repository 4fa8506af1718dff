"""What people say of answers is what the next version learns from: on a real node, with PostgreSQL behind the api."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import yaml

from demo import install
from demo.chat import MAX_TOKENS, ask, client
from demo.console import Narrator
from demo.conversations import Conversation, load_conversations
from demo.story import ALIAS, FIRST, TEST
from local_cluster.versions import NODE_ADDRESS, POD_SUBNET
from tests import postgres_server
from tests.e2e.conftest import World, editors_api

Object = dict[str, Any]
DATABASE = "feedback-db"
DOMAIN = "corrected"
JOB, VERSION = "plato-corrected", "corrected-v1"
CORRECTIONS = 40
TIMEOUT_SECONDS = 600


@pytest.fixture(scope="module")
def database(world: World) -> Iterator[str]:
    """The URL that pods reach a new PostgreSQL by."""
    if world.target.name != "local":
        pytest.skip("needs this machine to be the node, whose pods reach a server on it")
    with postgres_server.running(NODE_ADDRESS) as server:
        password = secrets.token_urlsafe()
        server.admit(POD_SUBNET, password)
        name = server.database().rpartition("/")[2]
        yield f"postgresql://{postgres_server.SERVER_USER}:{password}@{NODE_ADDRESS}:{server.port}/{name}"


@pytest.fixture(scope="module")
def api_on_postgresql(world: World, database: str) -> Iterator[httpx2.Client]:
    """Its database is where ratings are, too."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": DATABASE}, "stringData": {"url": database}}
    world.kubectl.apply(secret)
    ours = {"api.database.existingSecret": DATABASE, "api.ratings.existingSecret": DATABASE}
    settings = {name: value for name, value in world.target.settings.items() if name != "api.ratings.claimName"} | ours
    with installed_with(world, settings), editors_api(world) as client:
        yield client


@contextmanager
def installed_with(world: World, settings: Mapping[str, str]) -> Iterator[None]:
    install.install_chart(replace(world.target, settings=settings), Narrator())
    try:
        yield
    finally:
        install.install_chart(world.target, Narrator())


def corrections() -> list[Conversation]:
    """What people would have liked to read: long enough to be learnt from, one for each prompt."""
    chosen: dict[str, Conversation] = {}
    for conversation in load_conversations():
        if len(conversation.prompt) >= 10 and len(conversation.response) >= 20:
            chosen.setdefault(conversation.prompt, conversation)
    return list(chosen.values())[:CORRECTIONS]


@pytest.fixture(scope="module")
def told(world: World, api_on_postgresql: httpx2.Client) -> list[Object]:
    """Everybody asks, is answered by the first version, and says what the answer should have been."""
    create = client(world.gateway_url).chat.completions.with_raw_response.create
    found = []
    for conversation in corrections():
        messages = [{"role": "user", "content": conversation.prompt}]
        raw = create(model=ALIAS, messages=messages, max_tokens=MAX_TOKENS, temperature=0)
        assert raw.headers["x-finetune-version"] == FIRST
        answer = raw.parse().choices[0].message.content
        texts = {"prompt": conversation.prompt, "response": answer, "reference": conversation.response}
        body = {"request_id": raw.headers["x-request-id"], "thumbs": "down", "texts": {**texts, "domain": DOMAIN}}
        # The second time is a client that did not hear the first answer.
        first, again = (api_on_postgresql.post("/v1/fine-tuning/feedback", json=body) for _ in range(2))
        assert first.raise_for_status().json() == again.raise_for_status().json()
        found.append(first.json())
    return found


@pytest.fixture
def job(world: World, told: list[Object]) -> Iterator[Object]:
    """Trained on them alone."""
    manifest: Object = yaml.safe_load((install.EXAMPLES / "finetunejob-second-domain.yaml").read_text())
    manifest["metadata"]["name"], spec = JOB, manifest["spec"]
    spec["model"] = VERSION.removesuffix("-v1")
    spec["dataset"]["ratings"] = {"secretRef": {"name": DATABASE, "key": "url"}, "domain": DOMAIN}
    spec["training"]["epochs"] = 2
    world.kubectl.apply(manifest)

    def ended() -> Object | None:
        found = world.kubectl.get("finetunejob", JOB)
        return found if found.get("status", {}).get("phase") in ("Succeeded", "Failed") else None

    try:
        yield world.kubectl.wait_for(f"FineTuneJob {JOB} ends", ended, TIMEOUT_SECONDS)
    finally:
        world.kubectl.run("delete", f"finetunejob/{JOB}", f"modelversion/{VERSION}", "--ignore-not-found")


def test_corrections_become_the_next_version(world: World, told: list[Object], job: Object) -> None:
    assert all(feedback["is_trainable"] and not feedback["is_gold_star"] for feedback in told)
    status = job["status"]
    assert status["phase"] == "Succeeded", status["message"]
    assert status["dataset"]["rows"] + status["dataset"]["testRows"] == len(told) == CORRECTIONS
    world.kubectl.run(
        "wait", f"modelversion/{VERSION}", "--for=jsonpath={.status.state}=Ready", f"--timeout={TIMEOUT_SECONDS}s"
    )
    assert ask(client(world.gateway_url), VERSION, "What is virtue?").version == VERSION


def test_the_version_that_was_judged_tells_how(world: World, told: list[Object]) -> None:
    def ratings() -> Object | None:
        found: Object | None = world.kubectl.get("modelversion", FIRST)["status"]["metrics"].get("ratings")
        return found if found and found["count"] == len(told) else None

    known = world.kubectl.wait_for(f"the ratings of {FIRST}", ratings, TIMEOUT_SECONDS)
    assert {name: float(known[name]) for name in ("average", "standardDeviation", "goldStarRate")} == {
        "average": 1,
        "standardDeviation": 0,
        "goldStarRate": 0,
    }


def test_a_verdict_outlasts_the_database_that_its_votes_were_in(world: World, told: list[Object]) -> None:
    assert told
    before, now = world.story.experiment.test["status"], world.kubectl.get("abtest", TEST)["status"]
    for member in ("phase", "verdict", "votes", "pValue", "leader"):
        assert now[member] == before[member]
