"""What the gateway counts and times."""

import time

from tests.unit.gateway.clients import answer_of, chat
from tests.unit.gateway.conftest import World, has_metric
from tests.waiting import eventually


async def test_metrics_count_what_was_served(gateway: World) -> None:
    await answer_of(gateway, "plato")
    await answer_of(gateway, "kant")
    async with gateway.session.get(f"{gateway.url}/metrics") as response:
        text = await response.text()
    assert 'finetune_gateway_requests_total{arm="",served_name="plato-v1",status="200"} 1.0' in text
    assert 'finetune_gateway_requests_total{arm="",served_name="",status="404"} 1.0' in text
    assert "finetune_gateway_requests_in_flight 0.0" in text


async def test_the_time_to_the_first_token_is_that_of_streams(gateway: World) -> None:
    """A whole answer comes with its last token; its time is in the duration."""
    await answer_of(gateway, "plato")
    assert await gateway.metric("finetune_gateway_time_to_first_token_seconds_count") == 0
    gateway.engine.proceed.clear()
    async with gateway.post(data=chat("plato", stream=True)) as response:
        await response.content.readuntil(b"\n\n")
        held_since = time.monotonic()
        await eventually(lambda: time.monotonic() - held_since > 0.3)
        gateway.engine.proceed.set()
        await response.read()
    await eventually(lambda: has_metric(gateway, "finetune_gateway_time_to_first_token_seconds_count", 1))
    first_token = await gateway.metric("finetune_gateway_time_to_first_token_seconds_sum")
    assert first_token < await gateway.metric("finetune_gateway_request_duration_seconds_sum") - 0.25
