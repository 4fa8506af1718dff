"""Users' requests, answered by both arms, become blind comparisons: on a real node, with streams and without."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from demo.chat import MAX_TOKENS, client
from demo.install import EXAMPLES, RELEASE, api_token
from demo.story import ALIAS, FIRST, SECOND
from tests.e2e.conftest import World

TIMEOUT_SECONDS = 120
EVALUATOR = "reader-of-pairs"


@pytest.fixture
def judged_copies(world: World) -> Iterator[dict[str, Any]]:
    """The first version answers everybody, and every chat is copied to the second and put to the vote."""
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLES / "abtest-shadow.yaml").read_text())
    name = manifest["metadata"]["name"] = "judged-copies"
    manifest["spec"]["traffic"] = {"candidatePercent": 0, "shadowPercent": 100, "pairPercent": 100}
    world.kubectl.apply(manifest)
    try:
        configured = "--for=condition=TrafficConfigured"
        world.kubectl.run("wait", f"abtest/{name}", configured, f"--timeout={TIMEOUT_SECONDS}s")
        yield world.kubectl.get("abtest", name)
    finally:
        world.kubectl.run("delete", "abtest", name)


def ask(world: World, prompt: str, *, stream: bool) -> tuple[str, str, str]:
    """The text, who answered and the test's arm."""
    messages = [{"role": "user", "content": prompt}]
    create = client(world.gateway_url).chat.completions.with_raw_response.create
    raw = create(model=ALIAS, messages=messages, max_tokens=MAX_TOKENS, temperature=0, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
    else:
        text = raw.parse().choices[0].message.content or ""
    return text, raw.headers.get("x-finetune-version", ""), raw.headers.get("x-finetune-arm", "")


@pytest.fixture(scope="module")
def api_url(world: World) -> Iterator[str]:
    """Of its own: the session's way there ends with the pod that other tests kill."""
    with world.kubectl.port_forward(f"{RELEASE}-api") as url:
        yield url


def post(world: World, api_url: str, test: dict[str, Any], path: str, body: dict[str, Any]) -> httpx2.Response:
    metadata = test["metadata"]
    url = f"{api_url}/v1/fine-tuning/ab-test/{metadata['namespace']}/{metadata['name']}/{path}"
    headers = {"Authorization": f"Bearer {api_token(world.target)}"}
    return httpx2.post(url, json=body, headers=headers, timeout=60)


def comparison(world: World, api_url: str, test: dict[str, Any]) -> dict[str, Any] | None:
    """None as long as no pair has reached the api."""
    response = post(world, api_url, test, "comparisons", {"evaluator": EVALUATOR})
    if response.status_code == 409:
        return None
    response.raise_for_status()
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_users_request_is_judged_blind(
    world: World, api_url: str, judged_copies: dict[str, Any], stream: bool
) -> None:
    prompt = f"What is virtue? {uuid.uuid4()}"

    def copied() -> str | None:
        """Asked until the gateway has heard of the test."""
        text, version, arm = ask(world, prompt, stream=stream)
        assert version == FIRST
        return text if arm == "baseline" else None

    answer = world.kubectl.wait_for("the gateway copies", copied, TIMEOUT_SECONDS)
    found = world.kubectl.wait_for(
        "both answers are put to the vote", lambda: comparison(world, api_url, judged_copies), TIMEOUT_SECONDS
    )
    assert found["prompt"] == prompt
    assert answer in found["answers"].values()
    assert not any(name in json.dumps(found) for name in (FIRST, SECOND))

    ballot = {"comparison_id": found["comparison_id"], "evaluator": EVALUATOR, "vote": "tie"}
    sides = post(world, api_url, judged_copies, "vote", ballot).raise_for_status().json()["sides"]
    assert {side["served_name"] for side in sides.values()} == {FIRST, SECOND}
    (of_first,) = (letter for letter, side in sides.items() if side["served_name"] == FIRST)
    assert found["answers"][of_first] == answer
