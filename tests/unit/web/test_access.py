"""Who gets in, how errors look, and what is too much."""

import json
from typing import Any

import httpx2
import pytest

from finetune_operator.contract.places import (
    BATCH_ANSWERS_PATH,
    EVALUATION_PATH,
    PAIRS_PATH,
    PROGRESS_BATCH_PATH,
    PROGRESS_PATH,
    SAMPLES_PATH,
    STORED_FILE_PATH,
    TALLY_PATH,
    USAGE_PATH,
    VERSION_RATINGS_PATH,
)
from finetune_operator.web.app import create_app
from finetune_operator.web.openai_api.errors import is_spoken
from finetune_operator.web.services import Services
from finetune_operator.web.settings import InvalidSettings, Settings
from tests.unit.web.conftest import ENVIRONMENT, INTERNAL, PUBLIC, Api

TEST = "/v1/fine-tuning/ab-test/finetune/v1-v2"
PATH_EXAMPLES = {
    "namespace": "finetune",
    "name": "v1-v2",
    "uid": "00000000-0000-4000-8000-000000000001",
    "job_id": "finetune.plato-1",
    "model_id": "finetune.plato-v2",
    "test_id": "finetune.v1-v2",
    "batch_id": "finetune.answers",
    "fine_tuning_job_id": "ftjob-finetune.plato-1",
    "dataset_id": f"chatml-{'0' * 32}",
    "file": "train.jsonl",
    "key_id": "0" * 16,
    "file_id": f"file-finetune.{'0' * 32}",
}


def documented_operations() -> dict[str, dict[str, Any]]:
    """What the document says of each, by method and path."""
    nothing: Any = None
    app = create_app(Services(Settings.from_environment(ENVIRONMENT), nothing, nothing, nothing))
    operations = app.openapi()["paths"].items()
    return {f"{method.upper()} {path}": said for path, methods in operations for method, said in methods.items()}


def public_routes() -> list[tuple[str, str]]:
    """Each documented operation with an example of its path."""
    operations = (operation.split(" ", 1) for operation in documented_operations())
    return [(method, path.format(**PATH_EXAMPLES)) for method, path in operations]


PUBLIC_ROUTES = public_routes()
INTERNAL_ROUTES = [
    ("POST", PROGRESS_PATH),
    ("POST", PROGRESS_BATCH_PATH),
    ("GET", PROGRESS_PATH),
    ("POST", SAMPLES_PATH),
    ("POST", USAGE_PATH),
    ("GET", TALLY_PATH.format(uid="uid")),
    ("GET", VERSION_RATINGS_PATH.format(uid="uid")),
    ("GET", STORED_FILE_PATH.format(namespace="finetune", id=f"file-{'0' * 32}", file="data.jsonl")),
    ("PUT", PAIRS_PATH.format(uid="uid")),
    ("PUT", BATCH_ANSWERS_PATH.format(uid="uid")),
    ("PUT", EVALUATION_PATH.format(id="uid")),
]
STRANGERS: dict[str, dict[str, str]] = {
    "nobody": {},
    "wrong token": {"Authorization": "Bearer guess"},
    "empty token": {"Authorization": "Bearer "},
    "other scheme": {"Authorization": "Basic public-token"},
}


def is_problem(response: httpx2.Response, status: int, kind: str) -> bool:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body.keys() == {"type", "title", "status", "detail"}
    assert (response.status_code, body["status"]) == (status, status), body
    assert body["type"] == f"urn:finetune-operator:problem:{kind}", body
    return True


@pytest.mark.parametrize("headers", [*STRANGERS.values(), INTERNAL], ids=[*STRANGERS, "internal"])
@pytest.mark.parametrize(("method", "path"), PUBLIC_ROUTES)
async def test_public_routes_want_the_public_token(api: Api, method: str, path: str, headers: dict[str, str]) -> None:
    response = await api.client.request(method, path, headers=headers)
    if is_spoken(path):
        assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert "FINETUNE_API_TOKEN" in response.json()["error"]["message"]
    else:
        assert is_problem(response, 401, "unauthorized")
        assert "FINETUNE_API_TOKEN" in response.json()["detail"]
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [*STRANGERS.values(), PUBLIC], ids=[*STRANGERS, "public"])
@pytest.mark.parametrize(("method", "path"), INTERNAL_ROUTES)
async def test_internal_routes_want_the_internal_token(
    api: Api, method: str, path: str, headers: dict[str, str]
) -> None:
    assert is_problem(await api.client.request(method, path, headers=headers), 401, "unauthorized")


async def test_probes_want_no_token(api: Api) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await api.client.get(path)).status_code == 200


async def test_open_only_when_said_so(api: Api) -> None:
    settings = Settings.from_environment({"FINETUNE_API_OPEN": "true", "FINETUNE_INTERNAL_TOKEN": "t"})
    services = Services(settings, api.services.engine, api.cluster, api.arms)
    transport = httpx2.ASGITransport(create_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as client:
        assert (await client.get(TEST)).status_code == 200
        assert (await client.get(TALLY_PATH.format(uid="uid"))).status_code == 401
        assert is_problem(await client.get("/v1/fine-tuning/datasets"), 403, "open-api")
        assert is_problem(await client.post("/api/training/export/sft"), 403, "open-api")
        pairs = {"baselineServedName": "v1", "candidateServedName": "v2", "pairs": []}
        url, holder = PAIRS_PATH.format(uid="uid"), {"Authorization": "Bearer t"}
        assert (await client.put(url, json=pairs, headers=holder)).status_code == 204, "of a batch"
        assert is_problem(await client.put(url, json=pairs | {"keepMax": 9}, headers=holder), 403, "open-api")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "FINETUNE_INTERNAL_TOKEN"),
        ({"FINETUNE_INTERNAL_TOKEN": "t"}, "set FINETUNE_API_TOKEN, or FINETUNE_API_OPEN=true"),
        (ENVIRONMENT | {"FINETUNE_API_TOKEN": ""}, "FINETUNE_API_TOKEN"),
        (ENVIRONMENT | {"FINETUNE_API_PORT": "many"}, "FINETUNE_API_PORT"),
        (ENVIRONMENT | {"FINETUNE_GATEWAY_URL": "gateway"}, "FINETUNE_GATEWAY_URL"),
    ],
)
def test_settings_name_the_variable_that_is_wrong(environment: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message) as caught:
        Settings.from_environment(environment)
    assert "token" not in str(caught.value).replace("_TOKEN", "")


def test_settings_never_show_a_secret() -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"FINETUNE_DATABASE_URL": "postgresql://u:hunter2@h/d"})
    assert not {"hunter2", "public-token", "internal-token"} & set(repr(settings).replace("@", ":").split(":"))
    assert "hunter2" not in repr(settings)


def test_namespaces_are_separated_by_commas() -> None:
    assert Settings.from_environment(ENVIRONMENT | {"FINETUNE_NAMESPACES": "a, b,"}).namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/nowhere", 404, "http"),
        ("/v1/fine-tuning/ab-test/finetune/none", 404, "unknown-ab-test"),
        ("/v1/fine-tuning/ab-test/finetune/..%2f..%2fsecrets", 404, "http"),
        ("/v1/fine-tuning/ab-test/UPPER/name", 422, "invalid-request"),
        ("/v1/fine-tuning/ab-test/a%3Fb/name", 422, "invalid-request"),
        ("/v1/fine-tuning/comparisons?limit=many", 422, "invalid-request"),
    ],
)
async def test_errors_are_problems(api: Api, path: str, status: int, kind: str) -> None:
    assert is_problem(await api.get(path), status, kind)


@pytest.mark.parametrize("path", ["/nowhere", "/v1/fine-tuning/job"])
async def test_a_path_that_is_not_there_is_named(api: Api, path: str) -> None:
    detail = (await api.get(path)).json()["detail"]
    assert detail == f"there is no path {path}; /openapi.json has the paths that there are"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/fine-tuning/jobs", "GET, HEAD, POST"),
        ("PATCH", "/v1/fine-tuning/jobs/finetune.plato-1", "DELETE, GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_none_of_a_path_is_told_which_are(
    api: Api, method: str, path: str, allowed: str
) -> None:
    response = await api.client.request(method, path, headers=PUBLIC)
    assert is_problem(response, 405, "http")
    assert response.headers["allow"] == allowed
    assert response.json()["detail"] == f"there is no {method} of this path, only {allowed}"


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (
            "/v1/fine-tuning/jobs?limit=2&stauts=Failed",
            "query.stauts: /v1/fine-tuning/jobs has no query parameter of this name; there are after, limit, model, "
            "namespace, status",
        ),
        (
            "/v1/fine-tuning/base-models?limit=1",
            "query.limit: /v1/fine-tuning/base-models has no query parameter of this name; there is none",
        ),
    ],
)
async def test_a_misspelled_filter_is_not_left_out(api: Api, path: str, detail: str) -> None:
    response = await api.get(path)
    assert is_problem(response, 422, "unknown-query-parameter")
    assert response.json()["detail"] == detail


@pytest.mark.parametrize("path", ["/v1/models?limt=1", "/v1/fine_tuning/jobs?metdata[team]=a"])
async def test_and_openais_clients_are_told_so_in_their_form(api: Api, path: str) -> None:
    response = await api.get(path)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == path.split("?")[1].split("=")[0]


async def test_who_is_nobody_is_told_that_first(api: Api) -> None:
    assert is_problem(await api.client.get("/v1/fine-tuning/jobs?stauts=Failed"), 401, "unauthorized")


@pytest.mark.parametrize("path", ["/healthz", "/v1/fine-tuning/jobs", "/v1/models", "/fine-tuning", "/nowhere"])
async def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    got, head = await api.get(path), await api.client.head(path, headers=PUBLIC)
    assert (head.status_code, head.content) == (got.status_code, b"")
    told = ("content-type", "content-security-policy", "location")
    assert [head.headers.get(name) for name in told] == [got.headers.get(name) for name in told]


async def test_other_namespaces_are_not_served(api: Api) -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"FINETUNE_NAMESPACES": "other"})
    await api.compare()
    transport = httpx2.ASGITransport(create_app(Services(settings, api.services.engine, api.cluster, api.arms)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=PUBLIC) as client:
        assert is_problem(await client.get(TEST), 404, "unknown-namespace")
        assert (await client.get("/v1/fine-tuning/comparisons")).json()["comparisons"] == []


BODIES = {
    "not JSON": b"{",
    "no evaluator": b"{}",
    "blank evaluator": b'{"evaluator": " "}',
    "control character": b'{"evaluator": "a\\u0000b"}',
    "half of a surrogate pair": b'{"evaluator": "\\ud800"}',
    "surrogate as a name": b'{"evaluator": "a", "\\ud800": 1}',
    "too long": json.dumps({"evaluator": "a" * 129}).encode(),
    "unknown field": b'{"evaluator": "a", "side": "b"}',
    "a list": b"[]",
    "not UTF-8": b'{"evaluator": "\xff"}',
    "deep": b"[" * 20_000 + b"]" * 20_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_bad_bodies_are_explained(api: Api, body: bytes) -> None:
    headers = PUBLIC | {"Content-Type": "application/json"}
    response = await api.client.post(f"{TEST}/comparisons", content=body, headers=headers)
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]


async def test_a_form_is_no_json(api: Api) -> None:
    headers = PUBLIC | {"Content-Type": "text/plain"}
    response = await api.client.post(f"{TEST}/comparisons", content=b'{"evaluator": "a"}', headers=headers)
    assert is_problem(response, 422, "invalid-request")


async def test_large_bodies_are_refused(api: Api) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 65_536

    for content in (b"x" * 2_000_000, endless()):
        response = await api.client.post(f"{TEST}/comparisons", content=content, headers=PUBLIC)
        assert is_problem(response, 413, "large-body")


async def test_a_database_that_fails_is_a_503(api: Api) -> None:
    async with api.services.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE abtest_counts")
    response = await api.get(TEST)
    assert is_problem(response, 503, "database-unavailable")
    assert response.headers["retry-after"]


async def test_a_cluster_that_is_away_is_a_503(api: Api) -> None:
    api.cluster.away = True
    assert is_problem(await api.get(TEST), 503, "cluster-unavailable")


async def test_answers_carry_safe_headers(api: Api) -> None:
    response = await api.get(TEST)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in response.headers["content-security-policy"]
