"""Users' requests that both arms have answered: told to the api where the test asks for it, and only then."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest
from prometheus_client import Counter

from finetune_operator.contract.experiments import AnswerPair
from finetune_operator.gateway import pairs as gateway_pairs
from finetune_operator.gateway.pairs import PairSender, TrafficPair
from tests.unit.gateway.clients import INTERNAL_TOKEN, answer_of, chat
from tests.unit.gateway.conftest import World
from tests.unit.gateway.servers import Engine, SampleIntake
from tests.unit.resource_builders import abtest_object
from tests.waiting import eventually

UID = abtest_object()["metadata"]["uid"]
ASKED = [{"role": "user", "content": "Who are you?"}]


@asynccontextmanager
async def paired(world: World, *, percent: int = 100, **options: Any) -> AsyncIterator[Engine]:
    """plato-v1 answers, plato-v2 in the engine that this is gets copies, and people are to judge both."""
    candidate = Engine()
    test = abtest_object(percent=0, shadow=100, pairs=percent)
    world.put(world.version("plato-v2", engine=str(candidate.port)), test)
    async with candidate.running(), world.gateway(api_url=world.intake.url, internal_token=INTERNAL_TOKEN, **options):
        yield candidate


async def outcomes(world: World) -> dict[str, float]:
    """How many requests became what."""
    async with world.session.get(f"{world.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    prefix = 'finetune_gateway_pairs_total{outcome="'
    found = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return {outcome: float(count) for outcome, count in found}


async def ask(world: World, path: str = "/v1/chat/completions", **members: Any) -> None:
    """One question whose answer is read to its end."""
    async with world.post(path, data=chat("plato", **({"messages": ASKED} | members))) as response:
        await response.read()


def told_pairs(world: World) -> list[dict[str, Any]]:
    """In no certain order: those that did not arrive are sent again beside later ones."""
    return [pair for _, body in world.intake.pairs for pair in body["pairs"]]


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Who is number {number}?"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_both_answer_is_told_to_the_api(world: World, stream: bool) -> None:
    async with world.intake.running(), paired(world):
        await ask(world, stream=stream)
        await eventually(lambda: world.intake.pairs)
        assert await outcomes(world) == {"sent": 1}
    ending = "" if stream else " é"
    pair = {
        "id": ANY,
        "prompt": "Who are you?",
        "baselineAnswer": f"I am plato-v1{ending}",
        "candidateAnswer": f"I am plato-v2{ending}",
    }
    names = {"baselineServedName": "plato-v1", "candidateServedName": "plato-v2"}
    assert world.intake.pairs == [(UID, names | {"pairs": [pair], "keepMax": 2000})]


@pytest.mark.parametrize("stream", [False, True])
async def test_no_text_is_kept_unless_the_test_asks_for_it(world: World, stream: bool) -> None:
    async with world.intake.running(), paired(world, percent=0):
        await ask(world, stream=stream)
        await eventually(lambda: world.intake.shadows)
        assert await outcomes(world) == {}
    assert world.intake.pairs == []


LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unreadable"),
    "two answers": ({"n": 2}, "unreadable"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unreadable"),
    "what the client forbids": ({"store": False}, "private"),
    "a long question": ({"messages": [{"role": "user", "content": "x" * 60_000}]}, "too long"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("members", "outcome"), LEFT_OUT.values(), ids=LEFT_OUT)
async def test_what_people_cannot_be_shown_is_counted(
    world: World, members: dict[str, Any], outcome: str, stream: bool
) -> None:
    async with world.intake.running(), paired(world):
        await ask(world, **members, stream=stream)
        await eventually(lambda: world.intake.shadows)
        assert await outcomes(world) == {outcome: 1}
    assert world.intake.pairs == []


async def test_completions_without_messages_are_not_meant(world: World) -> None:
    async with world.intake.running(), paired(world):
        await ask(world, "/v1/completions", messages=None, prompt="Once")
        await eventually(lambda: world.intake.shadows)
        assert await outcomes(world) == {}


FAILURES: dict[str, dict[str, Any]] = {
    "an error": {"failures": [500] * 3},
    "another model's answer": {"answers_as": "tiny"},
    "a lost connection": {"breaks": "before"},
    "a broken stream": {"breaks": "between"},
    "a broken event": {"breaks": "within"},
}


@pytest.mark.parametrize("case", FAILURES)
async def test_half_an_answer_makes_no_pair(world: World, case: str) -> None:
    async with world.intake.running(), paired(world) as candidate:
        for name, value in FAILURES[case].items():
            setattr(candidate, name, deepcopy(value))
        await ask(world, stream=True)
        await eventually(lambda: world.intake.shadows)
        assert await outcomes(world) == {"incomplete": 1}
    assert world.intake.pairs == []


async def test_what_the_client_did_not_wait_for_makes_no_pair(world: World) -> None:
    world.engine.proceed.clear()
    async with world.intake.running(), paired(world) as candidate:
        async with aiohttp.ClientSession() as session:
            url = f"{world.url}/v1/chat/completions"
            async with session.post(url, data=chat("plato", messages=ASKED, stream=True)) as response:
                await response.content.readuntil(b"\n\n")
        await eventually(lambda: world.engine.aborted == 1)
        assert await outcomes(world) == {}
    assert (candidate.requests, world.intake.pairs) == ([], [])


async def test_an_api_that_is_away_delays_nobody_and_gets_its_pairs_later(world: World) -> None:
    async with paired(world):
        for number in range(3):
            await ask(world, messages=question(number))
        world.intake.pair_failures = [503]
        async with world.intake.running():
            await eventually(lambda: len(told_pairs(world)) == 3)
    assert {told["prompt"] for told in told_pairs(world)} == {question(number)[0]["content"] for number in range(3)}


async def test_one_question_asked_again_and_again_is_one_pair(world: World) -> None:
    async with paired(world):
        for number in (1, 1, 2, 1):
            await ask(world, messages=question(number))
        world.intake.pair_failures = [503]
        async with world.intake.running():
            await eventually(lambda: len(told_pairs(world)) == 4)
    identities = {(told["id"], told["prompt"]) for told in told_pairs(world)}
    assert {prompt for _, prompt in identities} == {question(number)[0]["content"] for number in (1, 2)}
    assert len(identities) == len({identity for identity, _ in identities}) == 2


async def test_pairs_are_sent_before_the_end(world: World) -> None:
    async with world.intake.running():
        async with paired(world):
            await ask(world)
            await eventually(lambda: answered_copies(world))
        assert len(world.intake.pairs) == 1


async def answered_copies(world: World) -> bool:
    async with world.session.get(f"{world.url}/metrics") as response:
        return 'finetune_gateway_shadows_total{outcome="answered"} 1.0' in await response.text()


async def test_copies_that_do_not_fit_are_no_pairs(world: World) -> None:
    async with world.intake.running(), paired(world, max_concurrent_shadows=1) as candidate:
        candidate.proceed.clear()
        for _ in range(3):
            await ask(world)
        assert await outcomes(world) == {"dropped": 2}
        candidate.proceed.set()
        await eventually(lambda: world.intake.pairs)


async def test_texts_that_do_not_fit_are_dropped_and_the_answer_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_pairs, "KEPT_AT_ONCE_MAX", 0)
    async with world.intake.running(), paired(world):
        assert (await answer_of(world, "plato"))[0] == 200
        await eventually(lambda: world.intake.shadows)
        assert await outcomes(world) == {"dropped": 1}


def pair(number: int, length: int = 10, **changes: Any) -> TrafficPair:
    texts = AnswerPair(id=str(number), prompt="?", baseline_answer="a" * length, candidate_answer="b")
    values = {"test_uid": UID, "baseline_served_name": "v1", "candidate_served_name": "v2", "keep_max": 9}
    return TrafficPair(**(values | changes), pair=texts)


@pytest.fixture
async def sender() -> AsyncIterator[PairSender]:
    async with SampleIntake().running() as intake, aiohttp.ClientSession() as session:
        yield PairSender(session, intake.url, "internal", Counter("pairs", "", ("outcome",), registry=None))


async def test_a_letter_has_the_pairs_of_one_test_and_its_arms(sender: PairSender) -> None:
    for item in (pair(1), pair(2), pair(3, candidate_served_name="v3"), pair(4, test_uid="other"), pair(5)):
        sender.put(item)
    counts = []
    while sender._buffer:
        letter = sender.letter(sender._buffer)
        counts.append((letter.path.split("/")[-2], letter.count))
        assert len(json.loads(letter.body)["pairs"]) == letter.count
        await sender._send(5.0)
    assert counts == [(UID, 2), (UID, 1), ("other", 1), (UID, 1)]


async def test_the_buffer_is_bounded_by_its_characters(sender: PairSender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairSender, "room", 120)
    for number in range(4):
        sender.put(pair(number, length=50))
    assert len(sender._buffer) == 2
    await sender._send(5.0)
    sender.put(pair(9, length=50))
    assert [item.pair.id for item in sender._buffer] == ["9"]
