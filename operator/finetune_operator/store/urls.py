"""Database URLs in SQLAlchemy's form, read without it: importing it takes more memory than an export does."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from finetune_operator.core.redaction import blanked

SECRET_PARAMETERS = ("password", "sslpassword", "passfile")
EXAMPLE_URLS = "sqlite:////ratings/ratings.db or postgresql://user:password@host:5432/database"
BACKENDS = frozenset({"sqlite", "postgresql"})

# SQLAlchemy's own pattern, so that the same text means the same to the api and to an export.
_URL = re.compile(
    r"""(?P<scheme>[\w+]+)://
        (?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?
        (?:(?:\[(?P<ipv6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?)?
        (?:/(?P<database>[^?]*))?
        (?:\?(?P<query>.*))?""",
    re.VERBOSE,
)


class UnusableUrl(ValueError):
    """A database URL that no driver here understands; the text never contains the URL."""


@dataclass(frozen=True)
class DatabaseUrl:
    """A URL of SQLite or PostgreSQL; `scheme` may name a driver, as in `postgresql+psycopg`."""

    scheme: str
    user: str | None
    password: str | None
    host: str | None
    port: int | None
    database: str | None
    query: Mapping[str, tuple[str, ...]]

    @property
    def backend(self) -> str:
        return self.scheme.partition("+")[0]

    @property
    def parameters(self) -> dict[str, str]:
        """What libpq is given; a parameter of the query replaces a part of the URL, several hosts become a list."""
        port = str(self.port) if self.port else None
        parts = {"host": self.host, "port": port, "user": self.user, "password": self.password, "dbname": self.database}
        named = {name: value for name, value in parts.items() if value}
        hosts = [value.rpartition(":") if ":" in value else (value, "", "") for value in self.query.get("host", ())]
        queried = {name: values[-1] for name, values in self.query.items()}
        if len(hosts) > 1:
            queried["host"] = ",".join(host for host, _, _ in hosts)
            if any(number for _, _, number in hosts):
                queried["port"] = ",".join(number for _, _, number in hosts)
        return named | queried


def parse_url(text: str) -> DatabaseUrl:
    """Read a URL of SQLite or PostgreSQL, with or without a driver. Raises `UnusableUrl`."""
    found = _URL.match(re.sub(r"^postgres://", "postgresql://", text.strip()))
    port = found["port"] if found else None
    if found is None or (port and not port.isdecimal()):
        raise UnusableUrl(f"the database URL can't be parsed; write it like {EXAMPLE_URLS}")
    query: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(found["query"] or ""):
        query[name] = (*query.get(name, ()), value)
    user, password, database = (
        unquote(found[name]) if found[name] is not None else None for name in ("user", "password", "database")
    )
    host = found["ipv6"] or found["host"]
    url = DatabaseUrl(found["scheme"], user, password, host, int(port) if port else None, database, query)
    if url.backend not in BACKENDS:
        raise UnusableUrl(f"databases of type {url.backend!r} are not supported; write the URL like {EXAMPLE_URLS}")
    if url.backend == "sqlite" and not url.database:
        raise UnusableUrl(f"the SQLite URL names no file; write it like {EXAMPLE_URLS}")
    return url


def conninfo(parameters: Mapping[str, str]) -> str:
    """https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE"""
    escaped = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in parameters.items()}
    return " ".join(f"{name}='{value}'" for name, value in escaped.items())


def shown(url: DatabaseUrl) -> str:
    """The URL for people: the password blanked, no parameters."""
    user = "" if url.user is None else quote(url.user, safe=" +") + ("@" if url.password is None else ":***@")
    host = "" if url.host is None else f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port is None else f":{url.port}"
    database = "" if url.database is None else f"/{url.database}"
    return f"{url.scheme}://{user}{host}{port}{database}"


def without_secrets(text: str, url: DatabaseUrl) -> str:
    """A driver's message with the URL's secrets blanked."""
    return blanked(text, secrets_of(url))


def secrets_of(url: DatabaseUrl) -> tuple[str | None, ...]:
    """As drivers may name them, outside of the URL."""
    return (url.password, *(value for name in SECRET_PARAMETERS for value in url.query.get(name, ())))
