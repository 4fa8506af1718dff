"""Hostile requests, wherever the OpenAPI document takes a text: refused or taken for the data that they are.

On both databases: no answer is a server's error, none shows a secret, no log line does, and no row comes or goes.
"""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy import create_engine, inspect, text

from tests.postgres_server import PostgresServer
from tests.unit.web.contract import corpus
from tests.unit.web.contract.corpus import Place
from tests.unit.web.contract.furnishing import ROBOT, furnish
from tests.unit.web.contract.running_api import RunningApi, running_api
from tests.unit.web.contract.test_contract import CI_EXAMPLES, EXAMPLES, document
from tests.unit.web.rest.example_requests import BODIES
from tests.unit.web.rest.played_api_server import EDIT, User
from tests.unit.web.test_access import PATH_EXAMPLES

SECRET_TOKEN, WRONG_TOKEN = "very-secret-admin-token", "very-secret-wrong-token"
SECRETS = (SECRET_TOKEN, WRONG_TOKEN, "public-token", "internal-token", "own-token", "/etc/passwd:", "root:x:")
DOCUMENT = document()
PLACES = corpus.places(DOCUMENT)
WITH_BODIES = corpus.with_bodies(DOCUMENT)
LOGIN = {"Authorization": f"Bearer {SECRET_TOKEN}"}
KEEPS = {
    "/v1/api-keys": {"api_keys"},
    "/v1/fine-tuning/feedback": {"feedback", "ml_analysis_rating"},
    "/v1/fine-tuning/ab-test/{namespace}/{name}/comparisons": {"abtest_comparisons", "abtest_counts"},
    "/v1/fine-tuning/ab-test/{test_id}/comparisons": {"abtest_comparisons", "abtest_counts"},
}
"""What a well-formed request keeps, however odd its texts are."""
ANSWER_SECONDS = 15.0
UNPARSED = "Invalid HTTP request received."
"""Of the HTTP server itself, to what is no HTTP and hence no request of the api's."""
TEXTS_EACH = len(corpus.TEXTS) if EXAMPLES > CI_EXAMPLES else 6
TEXTS_AT = corpus.texts_of(PLACES, TEXTS_EACH)


class Attacker:
    """Somebody with all rights: nothing but the request itself is wrong."""

    def __init__(self, api: RunningApi, database: str) -> None:
        self.api = api
        self._engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
        self._client = httpx2.Client(base_url=api.url, timeout=ANSWER_SECONDS)
        api.cluster.users[SECRET_TOKEN] = User("admin", set(EDIT), accounts={ROBOT})

    def close(self) -> None:
        self._client.close()
        self._engine.dispose()

    def rows(self) -> dict[str, int]:
        """How many each table has."""

        with self._engine.connect() as connection:
            return {
                name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()  # noqa: S608
                for name in inspect(connection).get_table_names()
            }

    def send(self, method: str, path: str, refused_as: str = "json", **request: Any) -> httpx2.Response:
        self.api.cluster.objects.clear()
        furnish(self.api.cluster)
        response = self._client.request(method, path, **request)
        said = response.text + str(response.headers)
        assert response.status_code < 500, f"{method} {path}: {response.status_code} {said[:300]}"
        assert "x-injected" not in response.headers
        for secret in SECRETS:
            assert secret not in said, f"{method} {path} shows {secret}"
        if response.status_code >= 400 and response.text != UNPARSED:
            assert refused_as in response.headers["content-type"], f"{method} {path}: {said[:300]}"
        return response

    def send_raw(self, request: bytes) -> bytes:
        """Bytes as they are; what comes until the server closes, or pauses."""
        host, port = self.api.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(request)
            answer = b""
            try:
                while piece := connection.recv(65_536):
                    answer += piece
                    connection.settimeout(0.2)
            except (TimeoutError, ConnectionResetError):
                pass
        return answer


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def attacker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    directory = tmp_path_factory.mktemp("attacks")
    database = f"sqlite:///{directory}/api.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.database()
    with running_api(directory, database) as api:
        made = Attacker(api, database)
        yield made
        made.close()


def no_secrets(attacker: Attacker) -> None:
    lines = "\n".join(attacker.api.log)
    attacker.api.log.clear()
    assert lines, "nothing was logged"
    for secret in (SECRET_TOKEN, WRONG_TOKEN, "public-token", "internal-token", "own-token"):
        assert secret not in lines


def request_with(place: Place, hostile: str) -> tuple[str, dict[str, Any]]:
    """The path, and the rest of a request that is good but for one text."""
    values = PATH_EXAMPLES | ({place.name: quote(hostile, safe="")} if place.kind == "path" else {})
    sent: dict[str, Any] = {"headers": dict(LOGIN)}
    if place.kind == "query":
        sent["params"] = {place.name: hostile}
    elif place.kind == "header":
        sent["headers"] |= {place.name: hostile.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")}
        sent["headers"][place.name] = sent["headers"][place.name].replace(b"\x00", b"")[:4000]
    example = BODIES.get(f"{place.method} {place.path}", {} if place.method == "POST" else None)
    body = dict(example) if example is not None else None
    if body is not None:
        body.pop("evaluator", None)
    if place.kind == "body" and body is not None:
        outer, _, inner = place.name.partition(".")
        body[outer] = {"prompt": "prompt", "response": "response", inner: hostile} if inner else hostile
    if body is not None:
        sent["json"] = body
    return place.path.format(**values), sent


def test_every_text_reaches_every_kind_of_place() -> None:
    for kind in {place.kind for place in PLACES}:
        sent = {name for place, texts in TEXTS_AT.items() if place.kind == kind for name in texts}
        assert sent == set(corpus.TEXTS), kind
    assert TEXTS_AT.keys() == set(PLACES)
    assert min(map(len, TEXTS_AT.values())) >= TEXTS_EACH


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place))
def test_texts(attacker: Attacker, place: Place) -> None:
    before = attacker.rows()
    for name, hostile in TEXTS_AT[place].items():
        path, sent = request_with(place, hostile)
        response = attacker.send(place.method, path, **sent)
        if place.kind == "path" and name != "null word":
            assert 400 <= response.status_code < 500, f"{name}: {response.status_code} {response.text[:200]}"
        # Clients of OpenAI begin anew with an event that nobody knows.
        if place.kind == "query" and place.name != "after" and response.status_code < 300:
            answer = response.json()
            lists = [value for value in answer.values() if isinstance(value, list)]
            assert not any(lists), f"{name}: chose {answer}"
    after = attacker.rows()
    changed = {table for table in before if before[table] != after[table]}
    assert after.keys() == before.keys()
    assert changed <= KEEPS.get(place.path, set())
    no_secrets(attacker)


@pytest.mark.parametrize(("method", "path"), WITH_BODIES)
def test_bodies(attacker: Attacker, method: str, path: str) -> None:
    before = attacker.rows()
    where = path.format(**PATH_EXAMPLES)
    headers = LOGIN | {"Content-Type": "application/json"}
    for name, body in corpus.BODIES.items():
        response = attacker.send(method, where, headers=headers, content=body)
        optional = name in ("nothing", "null") and path.endswith(
            ("/deploy", "/serve", "/evaluate", "/rollback", "/sft", "/dpo", "/gauntlet")
        )
        assert 400 <= response.status_code < 500 or optional, f"{name}: {response.status_code}"
    for content_type in corpus.CONTENT_TYPES:
        response = attacker.send(method, where, headers=LOGIN | {"Content-Type": content_type}, content=b'{"a": "b"}')
        assert 400 <= response.status_code < 500, f"{content_type}: {response.status_code}"
    assert attacker.rows() == before
    no_secrets(attacker)


AUTHORIZATIONS: dict[str, bytes] = {
    "unknown token": f"Bearer {WRONG_TOKEN}".encode(),
    "token and more": f"Bearer {WRONG_TOKEN}, Bearer x".encode(),
    "other scheme": f"Basic {WRONG_TOKEN}".encode(),
    "header in a token": f"Bearer {WRONG_TOKEN}%0d%0aX-Remote-User: admin".encode(),
    "not ASCII": f"Bearer {WRONG_TOKEN}".encode() + b"\xff\xe9",
    "long": b"Bearer " + WRONG_TOKEN.encode() + b"a" * 20_000,
    "SQL": b"Bearer " + WRONG_TOKEN.encode() + b"' OR '1'='1",
    "internal": b"Bearer internal-token",
}


@pytest.mark.parametrize("authorization", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
def test_logins(attacker: Attacker, authorization: bytes) -> None:
    for path in ("/v1/fine-tuning/jobs", "/v1/models", f"/api/training/formats?access_token={WRONG_TOKEN}"):
        response = attacker.send("GET", path, headers={"Authorization": authorization})
        assert response.status_code == 401, response.text
    no_secrets(attacker)


PATH = b"/v1/fine-tuning/datasets/statistics"
HEAD = b"POST " + PATH + b" HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer very-secret-admin-token\r\n"
JSON = b"Content-Type: application/json\r\n"
RAW: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "huge header": (HEAD + b"X-Big: " + b"a" * 200_000 + b"\r\n\r\n", (b"431",)),
    "many headers": (HEAD + b"X-Many: a\r\n" * 20_000 + b"\r\n", (b"431",)),
    "long query": (b"GET /v1/models?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (b"400", b"431")),
    "folded header": (HEAD + b"X-Folded: a\r\n Bearer b\r\n" + b"Content-Length: 0\r\n\r\n", (b"400", b"422")),
    "header without a name": (HEAD + b": a\r\n\r\n", (b"400",)),
    "control character": (HEAD + b"X-Control: a\x00b\r\n\r\n", (b"400",)),
    "two lengths": (HEAD + JSON + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}", (b"400",)),
    "length and chunks": (
        HEAD + JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (b"400", b"422"),
    ),
    "negative length": (HEAD + JSON + b"Content-Length: -1\r\n\r\n", (b"400",)),
    "length without end": (HEAD + JSON + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", (b"400", b"413")),
    "bad chunk": (HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", (b"400",)),
    "truncated body": (HEAD + JSON + b"Content-Length: 100\r\n\r\n{", (b"408",)),
    "truncated chunks": (HEAD + JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", (b"408",)),
    "no such version": (b"GET / HTTP/9.9\r\n\r\n", (b"400", b"505")),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (b"400", b"")),
    "absolute path of another host": (
        b"GET http://169.254.169.254/v1/models HTTP/1.1\r\nHost: api\r\n\r\n",
        (b"401", b"404", b"400"),
    ),
    "path with dots": (b"GET /v1/fine-tuning/datasets/../../../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", (b"404",)),
    "path with a NUL": (b"GET /v1/fine-tuning/jobs/%00 HTTP/1.1\r\nHost: a\r\n\r\n", (b"401", b"404", b"422")),
}


@pytest.mark.parametrize(("request_bytes", "statuses"), RAW.values(), ids=RAW)
def test_what_is_hardly_http(attacker: Attacker, request_bytes: bytes, statuses: tuple[bytes, ...]) -> None:
    before = attacker.rows()
    answer = attacker.send_raw(request_bytes)
    status = answer.split(b" ", 2)[1] if answer else b""
    assert status in statuses, answer[:300]
    assert not any(secret.encode() in answer for secret in SECRETS)
    assert attacker.send("GET", "/v1/fine-tuning/jobs", headers=LOGIN).status_code == 200, "it goes on"
    assert attacker.rows() == before
    no_secrets(attacker)
