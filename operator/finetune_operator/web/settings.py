"""Everything that the api process is told, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from finetune_operator.contract.places import DATABASE_URL_VARIABLE, INTERNAL_TOKEN_VARIABLE
from finetune_operator.core.cost import PriceBook, price_book

ISSUER_PATTERN = r"^(https://[^\s?#@]+|http://(localhost|127\.0\.0\.1)(:[0-9]+)?(/[^\s?#]*)?)$"
AccountName = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[a-z0-9][-.a-z0-9]{0,252}$")]


class InvalidSettings(ValueError):
    """The environment is wrong; the text says which variable, and never a secret's value."""


def _names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


@dataclass(frozen=True)
class OidcSettings:
    """Where people log in."""

    issuer: str
    client_id: str
    redirect_url: str
    client_secret: SecretStr | None
    scopes: str
    name: str


def _price_book(value: object) -> object:
    return price_book(value) if isinstance(value, str) else value


class Settings(BaseModel):
    """Each field's alias is its environment variable; an empty variable counts as absent."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    database_url: SecretStr = Field(SecretStr("sqlite:////data/finetune.db"), alias=DATABASE_URL_VARIABLE)
    """SQLAlchemy URL of the api's own database, SQLite or PostgreSQL."""
    gateway_url: str = Field(
        "http://finetune-gateway:8080", alias="FINETUNE_GATEWAY_URL", pattern=r"^https?://[^\s?#]+$"
    )
    """Base URL of the gateway, which both arms of a comparison are asked through, and completions are passed on to."""
    gateway_api_key: SecretStr | None = Field(None, alias="FINETUNE_GATEWAY_API_KEY")
    """Bearer token for the gateway, where it wants one."""
    api_token: SecretStr | None = Field(None, alias="FINETUNE_API_TOKEN")
    """Bearer token of the public interface."""
    api_open: bool = Field(False, alias="FINETUNE_API_OPEN")
    """Run the public interface without a token. Only for a demonstration on one machine."""
    internal_token: SecretStr = Field(alias=INTERNAL_TOKEN_VARIABLE)
    """Bearer token of trainers, gateway and operator."""
    namespaces: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field((), alias="FINETUNE_NAMESPACES")
    """Namespaces that are served, separated by commas; all of them where empty."""
    api_key_accounts: Annotated[tuple[AccountName, ...], BeforeValidator(_names)] = Field(
        (), alias="FINETUNE_API_KEY_ACCOUNTS"
    )
    """`<namespace>/<ServiceAccount>` that API keys may stand for, separated by commas; no keys where empty."""
    oidc_issuer: str | None = Field(None, alias="FINETUNE_OIDC_ISSUER", pattern=ISSUER_PATTERN)
    """Where people log in to the dashboard, exactly as the API server is told it; no such log-in where absent."""
    oidc_client_id: str | None = Field(None, alias="FINETUNE_OIDC_CLIENT_ID")
    """As which the issuer knows the dashboard; the API server must take tokens for it."""
    oidc_client_secret: SecretStr | None = Field(None, alias="FINETUNE_OIDC_CLIENT_SECRET")
    """Of a client that is not public; PKCE is used either way."""
    oidc_redirect_url: str | None = Field(
        None, alias="FINETUNE_OIDC_REDIRECT_URL", pattern=r"^https?://[^\s?#]+/login/oidc/callback$"
    )
    """`https://<host of the dashboard>/login/oidc/callback`, as it is registered at the issuer."""
    oidc_scopes: str = Field("openid email", alias="FINETUNE_OIDC_SCOPES", pattern=r"^([!-~]+ )*openid( [!-~]+)*$")
    """What is asked for, separated by spaces; those whose claims the API server maps to user and groups."""
    oidc_name: str = Field("single sign-on", alias="FINETUNE_OIDC_NAME", max_length=64)
    """The issuer as people call it, on the button."""
    host: str = Field("0.0.0.0", alias="FINETUNE_API_HOST")  # noqa: S104 - a pod's only interface
    """Address to listen on."""
    port: int = Field(8080, alias="FINETUNE_API_PORT", ge=0, le=65_535)
    """Port to listen on."""
    comparison_temperature: float = Field(0.7, alias="FINETUNE_COMPARISON_TEMPERATURE", gt=0, le=2)
    """Sampling temperature of the compared answers. Above 0, since at 0 a repeated prompt gives the same two answers
    again, and of the votes on one and the same pair only the first one counts."""
    comparison_max_tokens: int = Field(512, alias="FINETUNE_COMPARISON_MAX_TOKENS", ge=1, le=32_768)
    """Longest compared answer."""
    comparison_timeout_seconds: float = Field(120.0, alias="FINETUNE_COMPARISON_TIMEOUT_SECONDS", gt=0, le=3600)
    """Time that an arm has for its answer."""
    body_max_bytes: int = Field(1_048_576, alias="FINETUNE_API_BODY_MAX_BYTES", ge=1024)
    """Largest request body."""
    completion_max_bytes: int = Field(8_388_608, alias="FINETUNE_MAX_BODY_BYTES", ge=1024)
    """Largest body of a completion that is passed on; the gateway's own bound."""
    body_timeout_seconds: float = Field(30.0, alias="FINETUNE_API_BODY_TIMEOUT_SECONDS", gt=0)
    """Time that a client has to send its body."""
    drain_timeout_seconds: int = Field(25, alias="FINETUNE_API_DRAIN_TIMEOUT_SECONDS", ge=0)
    """Time that running requests have after SIGTERM."""
    ratings_url_file: Path = Field(Path("/etc/finetune/ratings/url"), alias="FINETUNE_RATINGS_URL_FILE")
    """File with the URL of the ratings database, read anew for each export; nothing is exported while it is absent."""
    datasets_directory: Path | None = Field(None, alias="FINETUNE_DATASETS_DIRECTORY")
    """Where exported datasets are kept; none are made where it is absent."""
    datasets_claim: str | None = Field(
        None, alias="FINETUNE_DATASETS_CLAIM", pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[a-z0-9][-.a-z0-9]{0,252}$"
    )
    """`<namespace>/<claim>` of the volume with nothing but these, so that jobs of that namespace can read them."""
    ratings_claim: str | None = Field(
        None, alias="FINETUNE_RATINGS_CLAIM", pattern=r"^[a-z0-9][-a-z0-9]{0,62}/[a-z0-9][-.a-z0-9]{0,252}$"
    )
    """`<namespace>/<claim>` of the volume of an SQLite ratings database, for trainings in that namespace."""
    datasets_max_count: int = Field(100, alias="FINETUNE_DATASETS_MAX_COUNT", ge=1, le=10_000)
    """Most exported datasets that are kept; at that number the next export is refused, and none is deleted unasked."""
    datasets_max_bytes: int = Field(2_147_483_648, alias="FINETUNE_DATASETS_MAX_BYTES", ge=1_048_576)
    """Most bytes that all exported datasets together may have."""
    datasets_min_free_bytes: int = Field(268_435_456, alias="FINETUNE_DATASETS_MIN_FREE_BYTES", ge=0)
    """Bytes that an export leaves free on its volume, where the api's own database may be, too."""
    file_max_bytes: int = Field(536_870_912, alias="FINETUNE_FILE_MAX_BYTES", ge=1024)
    """Largest file that may be uploaded."""
    files_max_bytes: int = Field(2_147_483_648, alias="FINETUNE_FILES_MAX_BYTES", ge=1024)
    """Most bytes that all uploaded files together may have, beside exported datasets."""
    files_namespace_max_bytes: int = Field(1_073_741_824, alias="FINETUNE_FILES_NAMESPACE_MAX_BYTES", ge=1024)
    """Most bytes that the uploaded files of one namespace may have, so that it leaves room for those of the others."""
    file_timeout_seconds: float = Field(1800.0, alias="FINETUNE_FILE_TIMEOUT_SECONDS", gt=0, le=86_400)
    """Time that an upload may take."""
    datasets_timeout_seconds: float = Field(1800.0, alias="FINETUNE_DATASETS_TIMEOUT_SECONDS", gt=0, le=86_400)
    """Time that an export may take."""

    prices: Annotated[PriceBook, BeforeValidator(_price_book)] = Field(PriceBook(), alias="FINETUNE_PRICES")
    """The installation's prices, as JSON: what an estimate of a training multiplies its time with."""

    @model_validator(mode="after")
    def _closed_unless_said_otherwise(self) -> Self:
        if self.api_token is None and not self.api_open:
            raise ValueError("set FINETUNE_API_TOKEN, or FINETUNE_API_OPEN=true to run without authentication")
        return self

    @model_validator(mode="after")
    def _whole_issuer(self) -> Self:
        if self.oidc_issuer and not (self.oidc_client_id and self.oidc_redirect_url):
            raise ValueError("FINETUNE_OIDC_ISSUER needs FINETUNE_OIDC_CLIENT_ID and FINETUNE_OIDC_REDIRECT_URL")
        return self

    @property
    def oidc(self) -> OidcSettings | None:
        """None where people bring their tokens."""
        if not (self.oidc_issuer and self.oidc_client_id and self.oidc_redirect_url):
            return None
        return OidcSettings(
            issuer=self.oidc_issuer,
            client_id=self.oidc_client_id,
            redirect_url=self.oidc_redirect_url,
            client_secret=self.oidc_client_secret,
            scopes=self.oidc_scopes,
            name=self.oidc_name,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises `InvalidSettings`."""
        names = {field.alias for field in cls.model_fields.values()}
        try:
            return cls.model_validate({name: value for name, value in environment.items() if name in names and value})
        except ValidationError as error:
            mistakes = (
                f"{'.'.join(str(part) for part in mistake['loc']) or 'environment'}: {mistake['msg']}"
                for mistake in error.errors(include_url=False, include_input=False)
            )
            raise InvalidSettings("; ".join(mistakes)) from None
