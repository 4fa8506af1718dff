"""Users' requests, answered by both arms, become samples and blind comparisons: on a real node, streamed or not."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from demo.chat import MAX_TOKENS, client
from demo.install import EXAMPLES
from demo.story import ALIAS, FIRST, SECOND
from tests.e2e.blind_votes import address, comparison, vote
from tests.e2e.conftest import World

TIMEOUT_SECONDS = 120


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


def samples(api: httpx2.Client, test: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        api.get(f"{address(test)}/samples", params={"arm": arm}).raise_for_status().json()["samples"]
    )
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_users_request_is_judged_blind(
    world: World, api: httpx2.Client, judged_copies: dict[str, Any], stream: bool
) -> None:
    prompt = f"What is virtue? {uuid.uuid4()}"

    def copied() -> str | None:
        """Asked until the gateway has heard of the test."""
        text, version, arm = ask(world, prompt, stream=stream)
        assert version == FIRST
        return text if arm == "baseline" else None

    answer = world.kubectl.wait_for("the gateway copies", copied, TIMEOUT_SECONDS)
    found = world.kubectl.wait_for(
        "both answers are put to the vote", lambda: comparison(api, judged_copies), TIMEOUT_SECONDS
    )
    assert found["prompt"] == prompt
    assert answer in found["answers"].values()
    assert not any(name in json.dumps(found) for name in (FIRST, SECOND))

    sides = vote(api, judged_copies, found, "tie")
    assert {side["served_name"] for side in sides.values()} == {FIRST, SECOND}
    (of_first,) = (letter for letter, side in sides.items() if side["served_name"] == FIRST)
    assert found["answers"][of_first] == answer

    for arm, version, is_shadow in (("baseline", FIRST, False), ("candidate", SECOND, True)):
        recorded = world.kubectl.wait_for(
            f"a sample of {version}", lambda arm=arm: samples(api, judged_copies, arm), TIMEOUT_SECONDS
        )
        for sample in recorded:
            assert (sample["served_name"], sample["is_shadow"], sample["status"]) == (version, is_shadow, 200)
            assert sample["latency_ms"] > 0
            # A stream tells its tokens to clients alone that ask for them.
            assert stream or 0 < sample["completion_tokens"] <= MAX_TOKENS
