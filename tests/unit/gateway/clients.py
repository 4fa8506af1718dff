"""What clients ask a gateway, what they are answered, and as which subjects of a test."""

import json
from typing import Any

from finetune_operator.core.split import assign
from tests.unit.gateway.conftest import World
from tests.unit.resource_builders import abtest_object

INTERNAL_TOKEN = "internal"  # noqa: S105 - of this test
MESSAGES: list[Any] = [{"role": "user", "content": "Who are you?"}]


def chat(model: str, **members: Any) -> bytes:
    return json.dumps({"model": model, "messages": MESSAGES} | members).encode()


async def answer_of(world: World, model: str, **members: Any) -> tuple[int, dict[str, Any], Any]:
    async with world.post(data=chat(model, **members)) as response:
        return response.status, await response.json(), response.headers


async def refused_with(world: World, model: str, status: int) -> bool:
    return (await answer_of(world, model))[0] == status


def subject_in(arm: str, percent: int = 50) -> str:
    """A subject that the test of `abtest_object()` puts into this arm."""
    uid = abtest_object()["metadata"]["uid"]
    return next(f"user-{n}" for n in range(1000) if assign(uid, f"user-{n}", percent) == arm)
