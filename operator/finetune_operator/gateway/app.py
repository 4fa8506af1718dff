"""The gateway process: HTTP in front, routes from the API server, engines behind."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from finetune_operator.core.routing import RouteTable, Target
from finetune_operator.gateway import errors
from finetune_operator.gateway.aim import FollowingAim
from finetune_operator.gateway.answer_costs import AnswerCosts
from finetune_operator.gateway.bodies import parse_request
from finetune_operator.gateway.catalog import Catalog
from finetune_operator.gateway.changes import (
    LOAD_PATH,
    SWITCH_PATH,
    Caller,
    Cluster,
    Load,
    Patcher,
    Switch,
    load,
    parse_order,
    switch,
)
from finetune_operator.gateway.choice import ARM_HEADER, Choice, asker_of, choose, kubernetes_token, subject_of
from finetune_operator.gateway.client_connection import ClientServer
from finetune_operator.gateway.clients import AiohttpClient, Client
from finetune_operator.gateway.engine_pool import EnginePool
from finetune_operator.gateway.errors import GatewayError
from finetune_operator.gateway.exchange import REQUEST_ID_HEADER, Exchange, new_request_id
from finetune_operator.gateway.follow import RouteKeeper
from finetune_operator.gateway.limits import Limiter
from finetune_operator.gateway.metrics import Metrics
from finetune_operator.gateway.pairs import Pairs, PairSender
from finetune_operator.gateway.samples import SampleSender
from finetune_operator.gateway.settings import GatewaySettings, SettingsError
from finetune_operator.gateway.shadows import Shadows
from finetune_operator.gateway.upstream import Upstream
from finetune_operator.gateway.usage_sums import UsageSender
from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError
from finetune_operator.logs import configure_logging, get_logger

SPLIT_PATHS = ("/v1/chat/completions", "/v1/completions")
UNSPLIT_PATHS = ("/v1/embeddings",)
"""Vectors of two models can't be compared, so that an index whose users are split would find nothing."""
CHANGES_AT_ONCE_MAX = 8
"""Anybody may show a token that the API server has to look at."""
BACKLOG = 1024
"""Of connections that come in one moment."""
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = get_logger(__name__)


class Gateway:
    """The handlers, and the background tasks that they depend on."""

    def __init__(self, settings: GatewaySettings, cluster: Cluster) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.keeper = RouteKeeper(cluster, settings.namespaces, settings.engine_url, self.metrics)
        self.draining = False
        self._cluster = cluster
        self._changes_under_way = 0
        self._limiter = Limiter(settings.limits)
        self._aside_limiter = Limiter(replace(settings.limits, tokens_per_minute=0))
        self._in_flight = 0
        self._costs = AnswerCosts(self.metrics.answers_cost, self.metrics.unpriced)
        self.metrics.in_flight.set_function(lambda: self._in_flight)
        self._upstream: Upstream
        self._samples: SampleSender | None = None
        self._usage: UsageSender | None = None
        self._shadows: Shadows | None = None
        self._pairs: Pairs | None = None

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self.settings.max_body_bytes, middlewares=[self._answered])
        for path in (*SPLIT_PATHS, *UNSPLIT_PATHS):
            app.router.add_post(path, self._complete_by_aiohttp)
        app.router.add_post(SWITCH_PATH, self._limited(self._switch, _who_changes))
        app.router.add_post(LOAD_PATH, self._limited(self._load, _who_changes))
        app.router.add_get("/v1/models", self._limited(self._list_models, self._who_asks))
        app.router.add_get("/v1/models/active", self._limited(self._active_models, self._who_asks))
        app.router.add_get("/v1/models/{name:.+}", self._limited(self._one_model, self._who_asks))
        app.router.add_get("/healthz", self._healthy)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics_text)
        app.cleanup_ctx.append(self._connections)
        return app

    async def _connections(self, _app: web.Application) -> AsyncIterator[None]:
        pool = EnginePool(self.settings.connect_timeout_seconds, self.settings.answer_timeout_seconds)
        self._upstream = Upstream(pool, self.settings, self.metrics)
        try:
            async with self._reports():
                yield
        finally:
            pool.close()

    @asynccontextmanager
    async def _reports(self) -> AsyncIterator[None]:
        """What is told to the api, where there is one."""
        if not self.settings.api_url:
            yield
            return
        async with aiohttp.ClientSession() as session:
            api = (session, self.settings.api_url, self.settings.internal_token)
            samples, sender = SampleSender(*api, self.metrics.samples), PairSender(*api, self.metrics.pairs)
            record, pairs = partial(samples.add, shadow=True), Pairs(sender.put, self.metrics)
            shadows = Shadows(self._upstream, record, pairs, self.metrics, self.settings.max_concurrent_shadows)
            self._samples, self._shadows, self._pairs = samples, shadows, pairs
            usage = self._usage = UsageSender(*api, self.metrics.usage)
            sending = [asyncio.create_task(outbox.run(), name=outbox.what) for outbox in (samples, sender, usage)]
            yield
            await shadows.close()
            for task in sending:
                task.cancel()
            for task in sending:
                with suppress(asyncio.CancelledError):
                    await task

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer of the API has an id, whoever refused it, and every error has OpenAI's form; completions and
        changes are logged with the id.
        """
        request[REQUEST_ID] = new_request_id()
        try:
            response = await handler(request)
        except GatewayError as error:
            response = error.response({})
        except web.HTTPException as error:
            kind = "not_found" if error.status == 404 else "bad_request"
            headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            response = GatewayError(error.status, kind, f"{request.method} {request.path}: {error.reason}").response(
                headers
            )
        if not response.prepared and request.path.startswith("/v1/"):
            response.headers.setdefault(REQUEST_ID_HEADER, request[REQUEST_ID])
        return response

    def _limited(self, handler: Handler, client_of: Callable[[web.Request], str]) -> Handler:
        """What is no completion has an allowance of its own, so that whoever has used up the other can still roll
        back."""

        async def within_limits(request: web.Request) -> web.StreamResponse:
            client = client_of(request)
            self._aside_limiter.enter(client)
            try:
                return await handler(request)
            finally:
                self._aside_limiter.leave(client, 0)

        return within_limits

    def _who_asks(self, request: web.Request) -> str:
        return self._asker(request.headers) or request.remote or ""

    def _asker(self, headers: Mapping[str, str]) -> str | None:
        return asker_of(headers, self.settings.tokens, self.settings.internal_token)

    async def _complete_by_aiohttp(self, request: web.Request) -> web.StreamResponse:
        client = AiohttpClient(request, lambda: self.draining)
        await self.complete(client)
        return client.response

    async def complete(self, client: Client) -> None:
        """Answer one completion request; whatever the client need not wait for comes after its answer."""
        try:
            asker = self._asker(client.headers)
        except GatewayError as error:
            await client.answer(*error.answer({REQUEST_ID_HEADER: new_request_id()}))
            return
        exchange = Exchange(
            path=client.path,
            client_request_id=client.headers.get(REQUEST_ID_HEADER),
            counts_tokens=self.settings.limits.tokens_per_minute > 0 or self._usage is not None,
        )
        self._in_flight += 1
        try:
            await self._answer(client, asker, exchange)
        except GatewayError as error:
            exchange.status, exchange.error = error.status, error.message
            await client.answer(*error.answer(exchange.headers()))
        finally:
            self._in_flight -= 1
            sample = exchange.finish(self.metrics)
            if sample and self._samples:
                self._samples.add(sample)
            self._count(exchange)
        if self._shadows and exchange.shadow:
            self._shadows.send(exchange)

    def _count(self, exchange: Exchange) -> None:
        """Calls and tokens of a version; neither a client's own mistake nor its departure is one."""
        usage, failed = exchange.answered_usage, exchange.status >= 500
        if usage is not None:
            self.metrics.count_tokens(exchange.served_name, usage)
            if version := self.keeper.version(exchange.version_uid):
                self._costs.add(version, exchange.served_name, usage)
        if self._usage and exchange.version_uid and (failed or usage is not None):
            self._usage.add(exchange.version_uid, None if failed else usage)

    async def _answer(self, client: Client, asker: str | None, exchange: Exchange) -> None:
        if self._in_flight > self.settings.max_concurrent_requests:
            raise errors.overloaded(self.settings.max_concurrent_requests)
        payer = asker or client.remote or ""
        self._limiter.enter(payer)
        try:
            await self._pass_on(client, asker, exchange)
        finally:
            self._limiter.leave(payer, exchange.tokens if self.settings.limits.tokens_per_minute else 0)

    async def _pass_on(self, client: Client, asker: str | None, exchange: Exchange) -> None:
        body = exchange.body = parse_request(await self._read(client))
        exchange.asked = body.model
        if self.keeper.missing:
            raise errors.no_routes_yet()
        asking = partial(
            choose,
            name=body.model,
            subject=subject_of(client.headers, body.subject, asker, client.remote),
            asked_arm=client.headers.get(ARM_HEADER),
            splits=client.path in SPLIT_PATHS,
        )
        choice = asking(self.keeper.table)
        exchange.choose(choice, self.settings.internal_token)
        target = choice.answerer
        if not isinstance(target, Target):
            raise errors.unavailable_model(target, as_arm=choice.arm is not None)
        aim = FollowingAim(target, body, self.keeper, partial(self._choose_anew, asking, exchange))
        with self._pairs.watched(exchange) if self._pairs else nullcontext():
            await self._upstream.pass_on(client, aim, exchange)

    def _choose_anew(self, asking: Callable[[RouteTable], Choice], exchange: Exchange) -> Target | None:
        """By the newest routes; what they no longer allow is left for the next request to be told."""
        try:
            choice = asking(self.keeper.table)
        except GatewayError:
            return None
        if not isinstance(choice.answerer, Target):
            return None
        if exchange.choice is None or choice.answerer != exchange.choice.answerer:
            exchange.choose(choice, self.settings.internal_token)
        return choice.answerer

    async def _read(self, request: web.Request | Client) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise errors.body_too_large(self.settings.max_body_bytes) from error

    async def _switch(self, request: web.Request) -> web.Response:
        token, order = kubernetes_token(request.headers), parse_order(Switch, await self._read(request))
        async with self._change(token) as kube:
            return _changed(request, await switch(order, self.keeper.versions, self.keeper.table, kube))

    async def _load(self, request: web.Request) -> web.Response:
        token, order = kubernetes_token(request.headers), parse_order(Load, await self._read(request))
        async with self._change(token) as kube:
            return _changed(request, await load(order, self.keeper.versions, kube))

    @asynccontextmanager
    async def _change(self, token: str) -> AsyncIterator[Patcher]:
        """The API server by the rights of the caller."""
        if self.keeper.missing:
            raise errors.no_routes_yet()
        if self._changes_under_way >= CHANGES_AT_ONCE_MAX:
            raise errors.overloaded(CHANGES_AT_ONCE_MAX)
        self._changes_under_way += 1
        try:
            yield Caller(self._cluster, token)
        finally:
            self._changes_under_way -= 1

    @property
    def _catalog(self) -> Catalog:
        return Catalog(self.keeper.table, self.keeper.versions)

    async def _list_models(self, _request: web.Request) -> web.Response:
        return web.json_response(self._catalog.models())

    async def _active_models(self, _request: web.Request) -> web.Response:
        return web.json_response(self._catalog.active())

    async def _one_model(self, request: web.Request) -> web.Response:
        return web.json_response(self._catalog.model(request.match_info["name"]))

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        """Ready once all routes are known, also while the API server is away, until told to stop."""
        if self.draining:
            return web.Response(status=503, text="draining\n")
        if missing := self.keeper.missing:
            return web.Response(status=503, text=f"not yet listed: {', '.join(missing)}\n")
        return web.Response(text="ok\n")

    async def _metrics_text(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _who_changes(request: web.Request) -> str:
    """The address: tokens of Kubernetes are not known here, so that anybody could invent new ones. Who shows none at
    all is refused before that.
    """
    kubernetes_token(request.headers)
    return request.remote or ""


def _changed(request: web.Request, answer: dict[str, Any]) -> web.Response:
    details = answer["finetune"]
    logger.info(
        "model version changed",
        namespace=details["namespace"],
        version=details["version"],
        request_id=request[REQUEST_ID],
    )
    return web.json_response(answer, status=200 if details["loaded"] else 202)


async def serve(settings: GatewaySettings, cluster: Cluster, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain; raises what ended the following of routes, should that ever happen."""
    gateway = Gateway(settings, cluster)
    # A handler is cancelled when its client goes away, which closes the connection to the engine.
    runner = web.AppRunner(
        gateway.application(),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=settings.drain_timeout_seconds,
    )
    await runner.setup()
    rest = runner.server
    if rest is None:
        raise RuntimeError("aiohttp has made no server")
    paths = (*SPLIT_PATHS, *UNSPLIT_PATHS)
    clients = ClientServer(gateway.complete, rest, paths, settings.max_body_bytes, lambda: gateway.draining)
    listening: asyncio.Server | None = None
    following = asyncio.create_task(gateway.keeper.run(), name="routes")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(clients, settings.host, settings.port, backlog=BACKLOG)
        logger.info("gateway listens", port=settings.port, namespaces=settings.namespaces)
        await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        gateway.draining = True
        logger.info("gateway drains")
        await asyncio.sleep(settings.drain_delay_seconds)
    finally:
        if listening is not None:
            listening.close()
        rest.pre_shutdown()
        await asyncio.gather(
            clients.close(settings.drain_timeout_seconds), rest.shutdown(settings.drain_timeout_seconds)
        )
        await runner.cleanup()
        stopping.cancel()
        following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    logger.info("gateway stopped")


async def _serve_cluster(settings: GatewaySettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with KubeClient.from_environment() as kube:
        await serve(settings, kube, stop)


def main() -> int:
    """Entry point of `finetune-operator gateway`."""
    try:
        settings = GatewaySettings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level)
    if not settings.tokens:
        logger.warning("the gateway is open: whoever reaches it can use the models; set FINETUNE_GATEWAY_TOKENS")
    try:
        asyncio.run(_serve_cluster(settings))
    except KubeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
