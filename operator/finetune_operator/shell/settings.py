"""Settings of the operator process, read from the environment once; the chart sets every one of them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from finetune_operator.core.config import OperatorConfig
from finetune_operator.core.cost import PriceBook, price_book

Collection = TypeVar("Collection", list[str], dict[str, str])


class SettingsError(Exception):
    """A variable is missing or unreadable; the message says which and what it should be."""


@dataclass(frozen=True)
class Settings:
    """Everything that the process takes from outside."""

    namespaces: tuple[str, ...]
    config: OperatorConfig
    internal_token: str
    engine_api_key: str
    engine_url_template: str
    liveness_endpoint: str
    metrics_port: int | None
    """Where Prometheus finds `/metrics`; None is nowhere."""
    log_level: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        names = (name.strip() for name in _required(environ, "FINETUNE_NAMESPACES").split(","))
        namespaces = tuple(name for name in names if name)
        if not namespaces:
            raise SettingsError("FINETUNE_NAMESPACES names no namespace: give one, or several with commas between")
        return cls(
            namespaces=namespaces,
            config=OperatorConfig(
                operator_image=_required(environ, "FINETUNE_OPERATOR_IMAGE"),
                trainer_image=_required(environ, "FINETUNE_TRAINER_IMAGE"),
                axolotl_image=_required(environ, "FINETUNE_AXOLOTL_IMAGE"),
                server_image=_required(environ, "FINETUNE_SERVER_IMAGE"),
                image_pull_policy=environ.get("FINETUNE_IMAGE_PULL_POLICY", "IfNotPresent"),
                artifacts_claim=environ.get("FINETUNE_ARTIFACTS_CLAIM", "artifacts"),
                base_models_claim=environ.get("FINETUNE_BASE_MODELS_CLAIM") or "models",
                hub_endpoint=environ.get("FINETUNE_HUB_ENDPOINT") or None,
                secret_name=environ.get("FINETUNE_SECRET_NAME", "finetune-internal"),
                workload_service_account=environ.get("FINETUNE_WORKLOAD_SERVICE_ACCOUNT", "finetune-workload"),
                remote_service_account=environ.get("FINETUNE_REMOTE_SERVICE_ACCOUNT", "finetune-remote"),
                api_url=environ.get("FINETUNE_API_URL") or None,
                engine_args=tuple(_json(environ, "FINETUNE_ENGINE_ARGS", list, [])),
                engine_env=_json(environ, "FINETUNE_ENGINE_ENV", dict, {}),
                trainer_env=_json(environ, "FINETUNE_TRAINER_ENV", dict, {}),
                fetch_env=_json(environ, "FINETUNE_FETCH_ENV", dict, {}),
                prices=_price_book(environ, "FINETUNE_PRICES"),
                poll_seconds=_number(environ, "FINETUNE_POLL_SECONDS", 5.0),
                steady_seconds=_number(environ, "FINETUNE_STEADY_SECONDS", 120.0),
                database_timeout_seconds=_number(environ, "FINETUNE_DATABASE_TIMEOUT_SECONDS", 60.0),
            ),
            internal_token=environ.get("FINETUNE_INTERNAL_TOKEN", ""),
            engine_api_key=environ.get("VLLM_API_KEY", ""),
            engine_url_template=environ.get("FINETUNE_ENGINE_POD_URL_TEMPLATE", "http://{ip}:8000"),
            liveness_endpoint=environ.get("FINETUNE_LIVENESS_ENDPOINT", "http://0.0.0.0:8081/healthz"),
            metrics_port=_port(environ, "FINETUNE_METRICS_PORT"),
            log_level=environ.get("FINETUNE_LOG_LEVEL", "INFO"),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set; the Helm chart sets it")
    return value


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError as error:
        raise SettingsError(f"{name} must be a number, not {text!r}") from error
    if not 0 < value < inf:
        raise SettingsError(f"{name} must be a finite number above 0, not {text!r}")
    return value


def _port(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"{name} must be a port from 1 to 65535, or empty for none, not {text!r}")
    return int(text)


def _price_book(environ: Mapping[str, str], name: str) -> PriceBook:
    text = environ.get(name)
    if not text:
        return PriceBook()
    try:
        return price_book(text)
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from error


def _json(environ: Mapping[str, str], name: str, kind: type[Collection], default: Collection) -> Collection:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} must be JSON, not {text!r}") from error
    if not isinstance(value, kind):
        raise SettingsError(f"{name} must be a JSON {kind.__name__}, not {text!r}")
    if not all(isinstance(item, str) for item in (value.values() if isinstance(value, dict) else value)):
        raise SettingsError(f"{name} must be a JSON {kind.__name__} of strings, not {text!r}")
    return value
