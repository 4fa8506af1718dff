"""The client against a real HTTP server."""

import json
from collections.abc import AsyncIterator

import aiohttp
import kopf
import pytest
import pytest_asyncio
from aiohttp import web

from finetune_operator.kube import client as module
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.paths import path_of

LARGEST_OBJECT_BYTES = 1_500_000
"""What etcd takes by default."""


def event_of_size(size_bytes: int) -> bytes:
    item = {"metadata": {"name": "wordy", "namespace": "finetune"}, "spec": {"prompts": ["x" * size_bytes]}}
    return json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n"


async def _echo(request: web.Request) -> web.Response:
    return web.json_response(
        {"shown": request.headers.getall("Authorization"), "user agent": request.headers["User-Agent"]}
    )


async def _watch(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(event_of_size(LARGEST_OBJECT_BYTES))
    await response.write(event_of_size(1))
    return response


async def _groups(_: web.Request) -> web.Response:
    return web.json_response({"groups": [{"name": "finetune.dev"}, {"name": "batch"}]})


async def _kinds(_: web.Request) -> web.Response:
    return web.json_response({"resources": [{"name": "finetunejobs"}, {"name": "finetunejobs/status"}]})


async def _create(request: web.Request) -> web.Response:
    return web.json_response({"user agent": request.headers["User-Agent"], "query": request.query_string})


@pytest_asyncio.fixture
async def client() -> AsyncIterator[KubeClient]:
    application = web.Application()
    application.router.add_get("/apis", _groups)
    application.router.add_get("/apis/finetune.dev/v1alpha1", _kinds)
    application.router.add_get("/{path:.*}", _watch)
    application.router.add_patch("/{path:.*}", _echo)
    application.router.add_post("/{path:.*}", _create)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        server = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield KubeClient(session, kopf.ConnectionInfo(server=server, token="own"))  # noqa: S106 - of this test
    await runner.cleanup()


async def test_a_watch_takes_objects_as_large_as_the_api_server_does(client: KubeClient) -> None:
    events = [item async for _, item in client.watch("abtests", "finetune", "7")]

    assert [len(item["spec"]["prompts"][0]) for item in events] == [LARGEST_OBJECT_BYTES, 1]


async def test_discovery_tells_kinds_of_a_group_that_it_knows(client: KubeClient) -> None:
    assert await client.discovered("finetune.dev/v1alpha1") == {"finetunejobs", "finetunejobs/status"}
    assert await client.discovered("elsewhere.dev/v1") == frozenset()


async def test_on_behalf_of_a_caller_the_callers_token_goes_along_however_long_it_lasts(
    client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CREDENTIALS_MAX_AGE_SECONDS", -1.0)
    answer = await client.on_behalf_of("theirs", "finetune-api").merge_patch(
        "modelversions", "finetune", "plato-v1", {}
    )

    assert answer == {"shown": ["Bearer theirs"], "user agent": "finetune-api"}


async def test_what_is_written_bears_the_operators_name(client: KubeClient) -> None:
    """The API server takes the field manager from the user agent, up to its first slash."""
    assert await client.create("modelversions", "finetune", {}) == {"user agent": "finetune-operator", "query": ""}


async def test_what_a_caller_writes_bears_their_name(client: KubeClient) -> None:
    """A merge patch says nothing of it in its body, and the user agent tells the program alone."""
    caller = client.on_behalf_of("theirs", "finetune-api", "ada")
    answer = await caller.create("modelversions", "finetune", {}, strict=True)

    assert answer == {
        "user agent": "finetune-api",
        "query": "fieldManager=ada (finetune-api)&fieldValidation=Strict",
    }


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        ("https://issuer.example/#ada", "https://issuer.example/#ada (finetune-api)"),
        ("two\nlines", "two?lines (finetune-api)"),
        ("ä" * 100, "ä" * 56 + " (finetune-api)"),
    ],
)
def test_a_name_becomes_what_the_api_server_takes(person: str, expected: str) -> None:
    assert module.manager_for(person, "finetune-api") == expected
    assert len(expected.encode()) <= 128


async def test_a_strict_creation_refuses_unknown_fields(client: KubeClient) -> None:
    answer = await client.create("modelversions", "finetune", {}, strict=True)

    assert answer["query"] == "fieldValidation=Strict"


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("a/b", ""),
        ("..", ""),
        ("A", ""),
        ("a.b", ""),
        ("x" * 64, ""),
        ("a", "../b"),
        ("a", "b/c"),
        ("a", "b?c"),
        ("a", "b..c"),
    ],
)
def test_what_is_no_name_makes_no_path(namespace: str, name: str) -> None:
    with pytest.raises(ValueError, match="is no na"):
        path_of("abtests", namespace, name)


def test_names_make_paths() -> None:
    assert path_of("abtests", None).endswith("/abtests")
    assert path_of("abtests", "a-1", "b.c-2", "status").endswith("/namespaces/a-1/abtests/b.c-2/status")


async def test_callers_share_no_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    known = kopf.ConnectionInfo(server="http://127.0.0.1:1")
    monkeypatch.setattr(module, "credentials_from_environment", lambda: known)
    async with KubeClient.from_environment() as client:
        assert isinstance(client._session.cookie_jar, aiohttp.DummyCookieJar)
