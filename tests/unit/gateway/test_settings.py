"""Settings from the environment: documented one by one, and refused with a remedy."""

import dataclasses
import inspect
import re

import pytest

from finetune_operator.gateway.limits import Limits
from finetune_operator.gateway.settings import GatewaySettings, SettingsError


def test_defaults() -> None:
    assert GatewaySettings.from_environment({}) == GatewaySettings()


def test_everything_can_be_set() -> None:
    settings = GatewaySettings.from_environment(
        {
            "FINETUNE_NAMESPACES": "left, right,",
            "FINETUNE_GATEWAY_HOST": "127.0.0.1",
            "FINETUNE_GATEWAY_PORT": "9000",
            "FINETUNE_GATEWAY_TOKENS": "one,two",
            "FINETUNE_ENGINE_URL_TEMPLATE": "http://{engine}.{namespace}/",
            "VLLM_API_KEY": "key",
            "FINETUNE_API_URL": "http://api",
            "FINETUNE_INTERNAL_TOKEN": "internal",
            "FINETUNE_MAX_BODY_BYTES": "1",
            "FINETUNE_MAX_CONCURRENT_REQUESTS": "2",
            "FINETUNE_REQUESTS_PER_MINUTE": "60",
            "FINETUNE_TOKENS_PER_MINUTE": "10000",
            "FINETUNE_REQUESTS_AT_ONCE": "4",
            "FINETUNE_SHADOWS_AT_ONCE": "5",
            "FINETUNE_CONNECT_TIMEOUT_SECONDS": "0.5",
            "FINETUNE_RETRY_SECONDS": "6",
            "FINETUNE_ANSWER_TIMEOUT_SECONDS": "3",
            "FINETUNE_DRAIN_DELAY_SECONDS": "4",
            "FINETUNE_DRAIN_TIMEOUT_SECONDS": "5",
            "FINETUNE_LOG_LEVEL": "DEBUG",
        }
    )
    unchanged = {
        field.name
        for field in dataclasses.fields(GatewaySettings)
        if getattr(settings, field.name) == getattr(GatewaySettings(), field.name)
    }
    assert unchanged == set()
    assert settings.limits == Limits(requests_per_minute=60, tokens_per_minute=10_000, concurrent_requests=4)
    assert settings.namespaces == ("left", "right")
    assert settings.engine_url("vllm-a", "left") == "http://vllm-a.left"


def test_the_default_address_is_the_service() -> None:
    assert GatewaySettings().engine_url("vllm-a", "finetune") == "http://vllm-a.finetune.svc:8000"


def test_every_field_names_its_variable() -> None:
    source = inspect.getsource(GatewaySettings)
    documented = re.findall(r'"""(FINETUNE_[A-Z_]+(?:, FINETUNE_[A-Z_]+)*|VLLM_API_KEY): .+"""', source)
    assert len(documented) == len(dataclasses.fields(GatewaySettings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FINETUNE_GATEWAY_PORT", "http"),
        ("FINETUNE_MAX_BODY_BYTES", "-1"),
        ("FINETUNE_ANSWER_TIMEOUT_SECONDS", "nan"),
        ("FINETUNE_DRAIN_TIMEOUT_SECONDS", "inf"),
        ("FINETUNE_ENGINE_URL_TEMPLATE", "http://{service}:8000"),
        ("FINETUNE_ENGINE_URL_TEMPLATE", "http://{engine"),
        ("FINETUNE_ENGINE_URL_TEMPLATE", "{engine}.{namespace}.svc:8000"),
        ("FINETUNE_ENGINE_URL_TEMPLATE", "http://{engine}:{namespace}:8000"),
        ("VLLM_API_KEY", "key\n"),
    ],
)
def test_unreadable_values(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        GatewaySettings.from_environment({name: value})
