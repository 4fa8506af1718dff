"""Administration of engine pods, against a real HTTP server that behaves, and misbehaves, as vLLM does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.contract.adapters import ADAPTER_DIGEST_HEADER, Adapter
from finetune_operator.core.workloads import PodFacts, pod_facts
from finetune_operator.reconcile.engine_sharing import Refusal
from finetune_operator.shell.engines import LISTING_SECONDS, Engines, EngineUnavailable
from tests.builders import DIGEST, pod_body

UID, IP = "uid-of-pod-1", "10.0.0.1"
ADAPTER = Adapter(name="plato-v1", path="/artifacts/plato/adapter", digest=DIGEST)
READY = ({"type": "Ready", "status": "True"},)
Answer = tuple[int, dict[str, Any] | str]


class Held:
    """An answer that is ready and does not go out yet."""

    def __init__(self) -> None:
        self.reached, self.let_go = asyncio.Event(), asyncio.Event()


class Vllm:
    """The part of vLLM that the operator talks to; `answers` overrides what a path says."""

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Answer] = {}
        self.held: dict[str, Held] = {}

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    def called(self, path: str) -> list[dict[str, Any]]:
        return [body for called, body in self.calls if called == path]

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        self.calls.append((request.path, body))
        self.headers.append(dict(request.headers))
        if request.path in self.answers:
            status, answer = self.answers[request.path]
            if isinstance(answer, str):
                return web.Response(status=status, text=answer)
            return web.json_response(answer, status=status)
        match request.path:
            case "/v1/models":
                adapters = ({"id": n, "root": p, "parent": "tiny-llama"} for n, p in self.loaded.items())
                entries = [{"id": "tiny-llama", "root": "/models/tiny-llama"}, *adapters]
                if held := self.held.get(request.path):
                    held.reached.set()
                    await held.let_go.wait()
                return web.json_response({"data": entries})
            case "/v1/load_lora_adapter":
                self.loaded[body["lora_name"]] = body["lora_path"]
                return web.Response(text="Success")
            case "/v1/unload_lora_adapter" if body["lora_name"] in self.loaded:
                del self.loaded[body["lora_name"]]
                return web.Response(text="Success")
            case "/v1/completions" if body["model"] in self.loaded:
                return web.json_response({"choices": [{"text": "!"}]})
        return web.json_response({"error": {"type": "NotFoundError", "message": "no such thing"}}, status=404)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def outlast_a_listing(self) -> None:
        self.now += LISTING_SECONDS


@asynccontextmanager
async def engine(api_key: str = "key", clock: Clock | None = None) -> AsyncIterator[tuple[Vllm, Engines]]:
    vllm = Vllm()
    async with TestServer(vllm.application()) as server, aiohttp.ClientSession() as session:
        url = f"http://{{ip}}:{server.port}".replace("{ip}", "127.0.0.1")
        yield vllm, Engines(session, api_key, url, clock or Clock())


def pod(*, ready: bool = True, ip: str | None = IP) -> PodFacts:
    return pod_facts(pod_body(ip=ip, conditions=READY if ready else ()))


async def load(engines: Engines) -> None:
    await engines.load(UID, IP, ADAPTER)


class TestObserve:
    async def test_adapters_are_listed_and_base_models_are_not(self) -> None:
        async with engine() as (vllm, engines):
            vllm.loaded = {"plato-v1": "/artifacts/a", "plato-v2": "/artifacts/b"}
            (seen,) = await engines.observe((pod(),))
        assert seen.listed == {"plato-v1": "/artifacts/a", "plato-v2": "/artifacts/b"}
        assert seen.probed == frozenset()

    @pytest.mark.parametrize("facts", [pod(ready=False), pod(ip=None)], ids=["not ready", "no address"])
    async def test_a_pod_that_does_not_serve_is_not_asked(self, facts: PodFacts) -> None:
        async with engine() as (vllm, engines):
            (seen,) = await engines.observe((facts,))
        assert seen.listed is None
        assert vllm.calls == []

    async def test_a_pod_that_can_not_be_asked_now_keeps_its_last_listing(self) -> None:
        clock = Clock()
        async with engine(clock=clock) as (vllm, engines):
            vllm.loaded = {"plato-v1": "/artifacts/a"}
            await engines.observe((pod(),))
            clock.outlast_a_listing()
            vllm.answers["/v1/models"] = (503, "busy")
            (seen,) = await engines.observe((pod(),))
        assert len(vllm.called("/v1/models")) == 2
        assert seen.listed == {"plato-v1": "/artifacts/a"}

    async def test_what_was_listed_a_moment_ago_is_not_asked_again(self) -> None:
        clock = Clock()
        async with engine(clock=clock) as (vllm, engines):
            await load(engines)
            vllm.calls.clear()
            vllm.loaded = {}
            (at_once,) = await engines.observe((pod(),))
            asked_at_once = list(vllm.calls)
            clock.outlast_a_listing()
            (later,) = await engines.observe((pod(),))
        assert (asked_at_once, at_once.listed) == ([], {"plato-v1": ADAPTER.path})
        assert later.listed == {}

    async def test_a_pod_that_was_not_ready_in_between_is_asked_again(self) -> None:
        async with engine() as (vllm, engines):
            await load(engines)
            vllm.loaded = {}
            await engines.observe((pod(ready=False),))
            (seen,) = await engines.observe((pod(),))
        assert seen.listed == {}

    async def test_after_a_load_that_failed_it_is_asked_again(self) -> None:
        async with engine() as (vllm, engines):
            await engines.observe((pod(),))
            vllm.answers["/v1/completions"] = (503, "busy")
            with pytest.raises(EngineUnavailable):
                await load(engines)
            vllm.loaded = {}
            (seen,) = await engines.observe((pod(),))
        assert seen.listed == {}

    async def test_before_the_first_listing_nothing_is_known(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/models"] = (503, "busy")
            (seen,) = await engines.observe((pod(),))
        assert seen.listed is None

    async def test_a_pod_that_is_gone_is_forgotten(self) -> None:
        async with engine() as (_, engines):
            await load(engines)
            engines.forget(UID)
            (seen,) = await engines.observe((pod(),))
        assert seen.probed == frozenset()


class TestLoad:
    async def test_it_is_loaded_listed_and_asked_for_a_token(self) -> None:
        async with engine() as (vllm, engines):
            await load(engines)
            (seen,) = await engines.observe((pod(),))
        assert vllm.called("/v1/load_lora_adapter") == [{"lora_name": "plato-v1", "lora_path": ADAPTER.path}]
        (probe,) = vllm.called("/v1/completions")
        assert (probe["model"], probe["max_tokens"]) == ("plato-v1", 1)
        assert (seen.listed, seen.probed) == ({"plato-v1": ADAPTER.path}, {"plato-v1"})

    async def test_what_was_just_listed_is_not_listed_again_before_the_load(self) -> None:
        async with engine() as (vllm, engines):
            await engines.observe((pod(),))
            vllm.calls.clear()
            await load(engines)
        paths = [path for path, _ in vllm.calls]
        assert (paths[0], sorted(paths[1:])) == ("/v1/load_lora_adapter", ["/v1/completions", "/v1/models"])

    async def test_what_an_earlier_operator_has_loaded_is_only_asked_for_a_token(self) -> None:
        async with engine() as (vllm, engines):
            vllm.loaded = {"plato-v1": ADAPTER.path}
            await engines.observe((pod(),))
            vllm.calls.clear()
            await load(engines)
        assert sorted(path for path, _ in vllm.calls) == ["/v1/completions", "/v1/models"]

    async def test_what_was_evicted_since_it_was_listed_is_loaded_by_the_next_try(self) -> None:
        async with engine() as (vllm, engines):
            vllm.loaded = {"plato-v1": ADAPTER.path}
            await engines.observe((pod(),))
            vllm.loaded = {}
            with pytest.raises(EngineUnavailable, match="not listed"):
                await load(engines)
            await load(engines)
        assert vllm.loaded == {"plato-v1": ADAPTER.path}

    async def test_a_pod_that_could_not_list_is_asked_again_before_anything_is_loaded(self) -> None:
        """What stands at a reused address must not refuse a version for good."""
        clock = Clock()
        async with engine(clock=clock) as (vllm, engines):
            await engines.observe((pod(),))
            clock.outlast_a_listing()
            vllm.answers["/v1/models"] = (404, "a stranger")
            await engines.observe((pod(),))
            with pytest.raises(EngineUnavailable, match="/v1/models answered 404"):
                await load(engines)
        assert vllm.called("/v1/load_lora_adapter") == []

    async def test_a_listing_from_before_a_change_does_not_undo_what_the_change_has_told(self) -> None:
        async with engine() as (vllm, engines):
            vllm.held["/v1/models"] = held = Held()
            observation = asyncio.create_task(engines.observe((pod(),)))
            await held.reached.wait()
            del vllm.held["/v1/models"]
            await load(engines)
            held.let_go.set()
            (seen,) = await observation
        assert seen.listed == {"plato-v1": ADAPTER.path}

    async def test_the_guard_is_told_what_to_expect_and_who_asks(self) -> None:
        async with engine("secret") as (vllm, engines):
            await load(engines)
        paths = [path for path, _ in vllm.calls]
        headers = vllm.headers[paths.index("/v1/load_lora_adapter")]
        assert {key.lower(): value for key, value in headers.items()}[ADAPTER_DIGEST_HEADER] == DIGEST
        assert all(entry["Authorization"] == "Bearer secret" for entry in vllm.headers)

    async def test_two_at_once_load_once(self) -> None:
        async with engine() as (vllm, engines), asyncio.TaskGroup() as group:
            group.create_task(load(engines))
            group.create_task(load(engines))
        assert len(vllm.called("/v1/load_lora_adapter")) == 1

    async def test_that_another_operator_was_quicker_is_success(self) -> None:
        async with engine() as (vllm, engines):
            told = {"error": {"type": "InvalidUserInput", "message": "The lora adapter has already been loaded."}}
            vllm.answers["/v1/load_lora_adapter"] = (400, told)
            with pytest.raises(EngineUnavailable, match="not listed"):
                await load(engines)
            vllm.loaded = {"plato-v1": "/artifacts/a"}
            await load(engines)


class TestMergedModel:
    """An engine that was started with one version's merged weights."""

    MODELS: Answer = (200, {"data": [{"id": "plato-v1", "root": "/artifacts/merged", "parent": None}]})

    async def test_it_lists_the_model_that_it_was_started_with(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/models"] = self.MODELS
            (seen,) = await engines.observe((pod(),), merged=True)
        assert (seen.listed, seen.probed) == ({"plato-v1": "/artifacts/merged"}, frozenset())

    async def test_it_is_asked_for_a_token_and_for_nothing_else(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/models"] = self.MODELS
            vllm.answers["/v1/completions"] = (200, {"choices": [{"text": "!"}]})
            await engines.probe(UID, IP, "plato-v1")
            (seen,) = await engines.observe((pod(),), merged=True)
        assert {path for path, _ in vllm.calls} == {"/v1/models", "/v1/completions"}
        assert [body["model"] for body in vllm.called("/v1/completions")] == ["plato-v1"]
        assert (seen.listed, seen.probed) == ({"plato-v1": "/artifacts/merged"}, {"plato-v1"})

    async def test_that_it_does_not_answer_is_known_until_it_does(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers |= {"/v1/models": self.MODELS, "/v1/completions": (500, "no")}
            with pytest.raises(EngineUnavailable, match="a probe of plato-v1 answered 500"):
                await engines.probe(UID, IP, "plato-v1")
            (seen,) = await engines.observe((pod(),), merged=True)
            assert (dict(seen.failing), seen.probed) == (
                {"plato-v1": "a probe of plato-v1 answered 500: no"},
                frozenset(),
            )
            vllm.answers["/v1/completions"] = (200, {"choices": []})
            await engines.probe(UID, IP, "plato-v1")
            (seen,) = await engines.observe((pod(),), merged=True)
        assert (dict(seen.failing), seen.probed) == ({}, {"plato-v1"})


REFUSALS: dict[str, tuple[Answer, Refusal]] = {
    "the guard": (
        (422, {"error": {"type": "DigestMismatch", "message": "the files are others"}}),
        Refusal("DigestMismatch", "the files are others"),
    ),
    "vLLM": (
        (404, {"error": {"type": "NotFoundError", "message": "No adapter found"}}),
        Refusal("NotFoundError", "No adapter found"),
    ),
    "a type that is no reason for a condition": (
        (400, {"error": {"type": "400 - bad", "message": "no"}}),
        Refusal("AdapterRejected", "no"),
    ),
    "a type that begins with a number": (
        (400, {"error": {"type": "400", "message": "no"}}),
        Refusal("AdapterRejected", "no"),
    ),
    "plain text": ((400, "no"), Refusal("AdapterRejected", "no")),
    "another shape": ((400, {"detail": "no"}), Refusal("AdapterRejected", '{"detail": "no"}')),
}


class TestRefusal:
    @pytest.mark.parametrize(("answer", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
    async def test_a_refusal_is_remembered_for_the_next_look(self, answer: Answer, expected: Refusal) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/load_lora_adapter"] = answer
            await load(engines)
            (seen,) = await engines.observe((pod(),))
        assert seen.refused == {"plato-v1": expected}
        assert vllm.called("/v1/completions") == []

    async def test_a_new_try_that_succeeds_makes_it_forgotten(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/load_lora_adapter"] = (400, "no")
            await load(engines)
            vllm.answers.clear()
            await load(engines)
            (seen,) = await engines.observe((pod(),))
        assert seen.refused == {}
        assert seen.probed == {"plato-v1"}


UNAVAILABLE: dict[str, tuple[str, Answer]] = {
    "loading fails": ("/v1/load_lora_adapter", (500, "CUDA out of memory")),
    "loading is not allowed yet": ("/v1/load_lora_adapter", (401, "who are you")),
    "too many requests": ("/v1/load_lora_adapter", (429, "later")),
    "the listing fails": ("/v1/models", (500, "no")),
    "the listing is no JSON": ("/v1/models", (200, "no")),
    "the probe fails": ("/v1/completions", (500, "no")),
}


class TestUnavailable:
    @pytest.mark.parametrize(("path", "answer"), UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
    async def test_what_may_pass_is_tried_again(self, path: str, answer: Answer) -> None:
        async with engine() as (vllm, engines):
            vllm.answers[path] = answer
            with pytest.raises(EngineUnavailable):
                await load(engines)
            vllm.answers.clear()
            await load(engines)
            (seen,) = await engines.observe((pod(),))
        assert (seen.probed, seen.refused) == ({"plato-v1"}, {})

    async def test_nobody_listens(self) -> None:
        async with aiohttp.ClientSession() as session:
            engines = Engines(session, "", "http://127.0.0.1:9")
            with pytest.raises(EngineUnavailable, match="/v1/models"):
                await load(engines)
            (seen,) = await engines.observe((pod(),))
        assert seen.listed is None


class TestUnload:
    async def test_it_is_taken_out_and_must_be_asked_again_when_it_returns(self) -> None:
        async with engine() as (vllm, engines):
            await load(engines)
            await engines.unload(UID, IP, "plato-v1")
            (seen,) = await engines.observe((pod(),))
        assert vllm.loaded == {}
        assert (seen.listed, seen.probed) == ({}, frozenset())

    async def test_that_it_is_not_there_is_success(self) -> None:
        async with engine() as (_, engines):
            await engines.unload(UID, IP, "plato-v1")

    async def test_anything_else_is_tried_again(self) -> None:
        async with engine() as (vllm, engines):
            vllm.answers["/v1/unload_lora_adapter"] = (500, "no")
            with pytest.raises(EngineUnavailable, match="500"):
                await engines.unload(UID, IP, "plato-v1")
