"""Settings from the environment."""

from decimal import Decimal

import pytest

from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook
from finetune_operator.shell.settings import Settings, SettingsError

REQUIRED = {
    "FINETUNE_NAMESPACES": "finetune",
    "FINETUNE_OPERATOR_IMAGE": "operator:1",
    "FINETUNE_TRAINER_IMAGE": "trainer:1",
    "FINETUNE_AXOLOTL_IMAGE": "trainer-axolotl:1",
    "FINETUNE_SERVER_IMAGE": "server:1",
}


def test_the_least_that_must_be_set() -> None:
    settings = Settings.from_environment(REQUIRED)
    assert settings.namespaces == ("finetune",)
    assert settings.config == OperatorConfig("operator:1", "trainer:1", "server:1", "trainer-axolotl:1")
    assert (settings.internal_token, settings.engine_api_key) == ("", "")
    assert settings.engine_url_template == "http://{ip}:8000"


def test_everything_that_can_be_set() -> None:
    settings = Settings.from_environment(
        REQUIRED
        | {
            "FINETUNE_NAMESPACES": " one, two,",
            "FINETUNE_IMAGE_PULL_POLICY": "Always",
            "FINETUNE_ARTIFACTS_CLAIM": "adapters",
            "FINETUNE_BASE_MODELS_CLAIM": "weights",
            "FINETUNE_HUB_ENDPOINT": "https://hub.example",
            "FINETUNE_FETCH_ENV": '{"C": "3"}',
            "FINETUNE_SECRET_NAME": "secret",
            "FINETUNE_WORKLOAD_SERVICE_ACCOUNT": "workload",
            "FINETUNE_API_URL": "http://api:8080",
            "FINETUNE_ENGINE_ARGS": '["--dtype", "float32"]',
            "FINETUNE_ENGINE_ENV": '{"A": "1"}',
            "FINETUNE_TRAINER_ENV": '{"B": "2"}',
            "FINETUNE_PRICES": '{"currency": "EUR", "perHour": {"cpu": "0.04"}, "gpuTypes": {}}',
            "FINETUNE_POLL_SECONDS": "0.5",
            "FINETUNE_DATABASE_TIMEOUT_SECONDS": "3",
            "FINETUNE_INTERNAL_TOKEN": "token",
            "VLLM_API_KEY": "key",
            "FINETUNE_ENGINE_POD_URL_TEMPLATE": "http://{ip}:9000",
            "FINETUNE_LIVENESS_ENDPOINT": "http://0.0.0.0:1/healthz",
            "FINETUNE_METRICS_PORT": "8082",
            "FINETUNE_LOG_LEVEL": "DEBUG",
        }
    )
    assert settings == Settings(
        namespaces=("one", "two"),
        config=OperatorConfig(
            operator_image="operator:1",
            trainer_image="trainer:1",
            axolotl_image="trainer-axolotl:1",
            server_image="server:1",
            image_pull_policy="Always",
            artifacts_claim="adapters",
            base_models_claim="weights",
            hub_endpoint="https://hub.example",
            fetch_env={"C": "3"},
            secret_name="secret",  # noqa: S106 - the name of one
            workload_service_account="workload",
            api_url="http://api:8080",
            engine_args=("--dtype", "float32"),
            engine_env={"A": "1"},
            trainer_env={"B": "2"},
            prices=PriceBook(currency="EUR", per_hour={"cpu": Decimal("0.04")}),
            poll_seconds=0.5,
            database_timeout_seconds=3.0,
        ),
        internal_token="token",  # noqa: S106 - of this test
        engine_api_key="key",
        engine_url_template="http://{ip}:9000",
        liveness_endpoint="http://0.0.0.0:1/healthz",
        metrics_port=8082,
        log_level="DEBUG",
    )


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({key: value for key, value in REQUIRED.items() if key != name})


WRONG = {
    ("FINETUNE_NAMESPACES", " , "): "no namespace",
    ("FINETUNE_POLL_SECONDS", "often"): "a number, not 'often'",
    ("FINETUNE_POLL_SECONDS", "0"): "above 0",
    ("FINETUNE_POLL_SECONDS", "nan"): "finite",
    ("FINETUNE_DATABASE_TIMEOUT_SECONDS", "inf"): "finite",
    ("FINETUNE_ENGINE_ARGS", "--dtype float32"): "must be JSON",
    ("FINETUNE_ENGINE_ARGS", "{}"): "JSON list",
    ("FINETUNE_ENGINE_ARGS", "[1]"): "list of strings",
    ("FINETUNE_ENGINE_ENV", "[]"): "JSON dict",
    ("FINETUNE_TRAINER_ENV", '{"A": 1}'): "dict of strings",
    ("FINETUNE_METRICS_PORT", "0"): "a port from 1 to 65535",
    ("FINETUNE_METRICS_PORT", "http"): "or empty for none",
    ("FINETUNE_PRICES", "2.50"): "must be JSON such as",
    ("FINETUNE_PRICES", '{"perHour": {"cpu": "cheap"}}'): "perHour.cpu",
}


@pytest.mark.parametrize(("variable", "hint"), WRONG.items(), ids=[f"{name}={value}" for name, value in WRONG])
def test_what_is_wrong_is_named_with_what_it_should_be(variable: tuple[str, str], hint: str) -> None:
    with pytest.raises(SettingsError, match=variable[0]) as caught:
        Settings.from_environment(REQUIRED | dict([variable]))
    assert hint in str(caught.value)
