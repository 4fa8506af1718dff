"""Settings of the gateway process, read from the environment once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_operator.contract.places import ENGINE_API_KEY_VARIABLE, ENGINE_PORT, INTERNAL_TOKEN_VARIABLE
from finetune_operator.gateway.engine_pool import place_of
from finetune_operator.gateway.limits import NO_LIMITS, Limits

OWN_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_ENGINE_URL_TEMPLATE = f"http://{{engine}}.{{namespace}}.svc:{ENGINE_PORT}"


class SettingsError(Exception):
    """A variable is missing or unreadable; the message says which and what it should be."""


@dataclass(frozen=True)
class GatewaySettings:
    """Everything that the process takes from outside; the variable is named in front of each meaning."""

    namespaces: tuple[str, ...] = ("default",)
    """FINETUNE_NAMESPACES: served namespaces, separated by commas; the pod's own where absent."""
    host: str = "0.0.0.0"  # noqa: S104 - the pod's own network
    """FINETUNE_GATEWAY_HOST: address to listen on."""
    port: int = 8080
    """FINETUNE_GATEWAY_PORT: port to listen on."""
    tokens: tuple[str, ...] = ()
    """FINETUNE_GATEWAY_TOKENS: bearer tokens of clients, separated by commas; open to all where absent."""
    engine_url_template: str = DEFAULT_ENGINE_URL_TEMPLATE
    """FINETUNE_ENGINE_URL_TEMPLATE: where an engine is; `{engine}` and `{namespace}` are filled in."""
    engine_api_key: str = ""
    """VLLM_API_KEY: what the engines expect."""
    api_url: str = ""
    """FINETUNE_API_URL: receives the samples of ABTests; where absent, none are taken."""
    internal_token: str = ""
    """FINETUNE_INTERNAL_TOKEN: what the api expects, and the key that request ids are signed with for feedback."""
    max_body_bytes: int = 8 * 1024 * 1024
    """FINETUNE_MAX_BODY_BYTES: larger requests are refused."""
    max_concurrent_requests: int = 1024
    """FINETUNE_MAX_CONCURRENT_REQUESTS: beyond it, requests are told to come back."""
    limits: Limits = NO_LIMITS
    """FINETUNE_REQUESTS_PER_MINUTE, FINETUNE_TOKENS_PER_MINUTE, FINETUNE_REQUESTS_AT_ONCE: of each client; 0: none."""
    max_concurrent_shadows: int = 8
    """FINETUNE_SHADOWS_AT_ONCE: beyond it, copies for the candidates of ABTests are dropped."""
    connect_timeout_seconds: float = 3.0
    """FINETUNE_CONNECT_TIMEOUT_SECONDS: time to connect to an engine, for each attempt."""
    retry_seconds: float = 10.0
    """FINETUNE_RETRY_SECONDS: how long, and six times at least, to try to connect: each may meet another pod."""
    answer_timeout_seconds: float = 600.0
    """FINETUNE_ANSWER_TIMEOUT_SECONDS: longest silence of an engine, before and within an answer."""
    drain_delay_seconds: float = 1.0
    """FINETUNE_DRAIN_DELAY_SECONDS: after SIGTERM, how long requests are still taken while /readyz fails."""
    drain_timeout_seconds: float = 300.0
    """FINETUNE_DRAIN_TIMEOUT_SECONDS: after that, how long requests in flight may take."""
    log_level: str = "INFO"
    """FINETUNE_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR; INFO has a line for each request."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "GatewaySettings":
        settings = cls(
            namespaces=_list(environ, "FINETUNE_NAMESPACES") or (_own_namespace(),),
            host=environ.get("FINETUNE_GATEWAY_HOST") or cls.host,
            port=int(_number(environ, "FINETUNE_GATEWAY_PORT", cls.port)),
            tokens=_list(environ, "FINETUNE_GATEWAY_TOKENS"),
            engine_url_template=environ.get("FINETUNE_ENGINE_URL_TEMPLATE") or cls.engine_url_template,
            engine_api_key=environ.get(ENGINE_API_KEY_VARIABLE, ""),
            api_url=environ.get("FINETUNE_API_URL", ""),
            internal_token=environ.get(INTERNAL_TOKEN_VARIABLE, ""),
            max_body_bytes=int(_number(environ, "FINETUNE_MAX_BODY_BYTES", cls.max_body_bytes)),
            max_concurrent_requests=int(
                _number(environ, "FINETUNE_MAX_CONCURRENT_REQUESTS", cls.max_concurrent_requests)
            ),
            limits=Limits(
                requests_per_minute=int(_number(environ, "FINETUNE_REQUESTS_PER_MINUTE", 0)),
                tokens_per_minute=int(_number(environ, "FINETUNE_TOKENS_PER_MINUTE", 0)),
                concurrent_requests=int(_number(environ, "FINETUNE_REQUESTS_AT_ONCE", 0)),
            ),
            max_concurrent_shadows=int(_number(environ, "FINETUNE_SHADOWS_AT_ONCE", cls.max_concurrent_shadows)),
            connect_timeout_seconds=_number(environ, "FINETUNE_CONNECT_TIMEOUT_SECONDS", cls.connect_timeout_seconds),
            retry_seconds=_number(environ, "FINETUNE_RETRY_SECONDS", cls.retry_seconds),
            answer_timeout_seconds=_number(environ, "FINETUNE_ANSWER_TIMEOUT_SECONDS", cls.answer_timeout_seconds),
            drain_delay_seconds=_number(environ, "FINETUNE_DRAIN_DELAY_SECONDS", cls.drain_delay_seconds),
            drain_timeout_seconds=_number(environ, "FINETUNE_DRAIN_TIMEOUT_SECONDS", cls.drain_timeout_seconds),
            log_level=environ.get("FINETUNE_LOG_LEVEL") or cls.log_level,
        )
        settings.check()
        return settings

    def check(self) -> None:
        """Raises `SettingsError` for what no engine could be asked with."""
        try:
            # Digits, which are a name and also a port.
            place_of(self.engine_url("1", "1"))
        except ValueError as error:
            raise SettingsError(f"FINETUNE_ENGINE_URL_TEMPLATE: {error}") from error
        if not self.engine_api_key.isprintable():
            raise SettingsError(f"{ENGINE_API_KEY_VARIABLE} must be one line: make its Secret without a line feed")

    def engine_url(self, engine: str, namespace: str) -> str:
        """Base URL of an engine, without a slash at its end."""
        try:
            return self.engine_url_template.format(engine=engine, namespace=namespace).rstrip("/")
        except (KeyError, IndexError, ValueError) as error:
            template = self.engine_url_template
            raise SettingsError(
                f"FINETUNE_ENGINE_URL_TEMPLATE may use {{engine}} and {{namespace}} only, not {template!r}"
            ) from error


def _list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in environ.get(name, "").split(",") if entry.strip())


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise SettingsError(f"{name} must be a number, zero or greater, not {text!r}")
    return value


def _own_namespace() -> str:
    return OWN_NAMESPACE_FILE.read_text().strip() if OWN_NAMESPACE_FILE.exists() else "default"
