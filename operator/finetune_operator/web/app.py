"""The api process: settings in, a server on a port, and everything closed again at the end."""

import asyncio
import gc
import os
import signal
import socket
import sys

import aiohttp
import uvicorn
from fastapi import Depends, FastAPI
from sqlalchemy import text
from starlette.responses import PlainTextResponse

from finetune_operator import __version__
from finetune_operator.kube.client import KubeClient
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.store.database import UnusableUrl, async_engine, parse_url, shown
from finetune_operator.store.migrations import SchemaTooNew, migrate
from finetune_operator.web import (
    abtest_routes,
    abtests,
    api_key_routes,
    base_models,
    batch_routes,
    cost_routes,
    datasets,
    document,
    evaluations,
    feedback,
    internal,
    job_routes,
    jobs,
    problems,
    training,
    training_jobs,
    versions,
)
from finetune_operator.web.arms import GatewayArms
from finetune_operator.web.dashboard import site
from finetune_operator.web.gateway_client import gateway_client
from finetune_operator.web.middleware import BodyLimit, HeadLimit, HeadRequests, RequestLog
from finetune_operator.web.mirroring import Mirroring
from finetune_operator.web.oidc import OpenIdProvider
from finetune_operator.web.openai_api import completions as openai_completions
from finetune_operator.web.openai_api import files as openai_files
from finetune_operator.web.openai_api import routes as openai_routes
from finetune_operator.web.query_names import refuse_unknown
from finetune_operator.web.services import Services, ServicesOf
from finetune_operator.web.settings import InvalidSettings, Settings
from finetune_operator.web.streams import Streams

READY_TIMEOUT_SECONDS = 3
CONFIGURATION_ERROR = 2

INTERNAL_ROUTERS = (internal.router, evaluations.internal_router)
ROUTERS = (
    # Ids before the pairs of names that they would be taken for.
    abtest_routes.router,
    abtests.router,
    versions.router,
    base_models.router,
    job_routes.router,
    jobs.router,
    batch_routes.router,
    datasets.router,
    training.router,
    training_jobs.router,
    cost_routes.router,
    evaluations.router,
    feedback.router,
    api_key_routes.router,
    openai_routes.router,
    openai_files.router,
    openai_completions.router,
)

logger = get_logger(__name__)


def create_app(services: Services) -> FastAPI:
    """The application without its process: no port, no signals, no environment."""
    app = FastAPI(title="finetune-operator", version=__version__, docs_url=None, redoc_url=None)
    app.state.services = services
    problems.install(app)
    for router in INTERNAL_ROUTERS:
        app.include_router(router)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(refuse_unknown)])
    document.install(app)
    site.install(app)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.add_api_route("/readyz", _readyz, include_in_schema=False)
    settings = services.settings
    app.add_middleware(BodyLimit, max_bytes=settings.body_max_bytes, timeout_seconds=settings.body_timeout_seconds)
    app.add_middleware(HeadLimit)
    app.add_middleware(HeadRequests)
    app.add_middleware(RequestLog)
    return app


def settle() -> None:
    """What is there for the life of the process is looked through no more.

    The models, routes and templates are some hundred thousand objects, so that each full collection of garbage would
    hold all requests for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


async def _healthz() -> PlainTextResponse:
    """The process turns its event loop."""
    return PlainTextResponse("ok\n")


async def _readyz(services: ServicesOf) -> PlainTextResponse:
    """The database answers; a failure is a 503 problem."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_SECONDS), services.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except TimeoutError:
        raise problems.Problem(503, "database-unavailable", "the database does not answer") from None
    return PlainTextResponse("ok\n")


async def serve(settings: Settings) -> None:
    """Migrate the database, then answer until SIGTERM or SIGINT; running requests are finished first."""
    url = parse_url(settings.database_url.get_secret_value())
    if settings.api_token is None:
        logger.warning("RUNNING OPEN: anyone who reaches this port may vote, rate and read (FINETUNE_API_OPEN=true)")
    engine = async_engine(url)
    try:
        schema = await migrate(engine)
        logger.info("database ready", url=shown(url), schema=schema)
        async with (
            KubeClient.from_environment() as cluster,
            aiohttp.ClientSession() as session,
            gateway_client(settings) as gateway,
        ):
            mirroring = Mirroring(engine, cluster, settings.namespaces)
            oidc = OpenIdProvider(session, settings.oidc) if settings.oidc else None
            arms = GatewayArms(session, settings)
            services = Services(settings, engine, cluster, arms, gateway=gateway, oidc=oidc, mirroring=mirroring)
            following = asyncio.create_task(mirroring.run())
            following.add_done_callback(_mirror_ended)
            try:
                app = create_app(services)
                settle()
                await _run(app, services)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    finally:
        await engine.dispose()


def _mirror_ended(task: "asyncio.Task[None]") -> None:
    """Unless at the end of the process: lists go on, slower, with the API server's own."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the mirror of the cluster has ended", exc_info=error)


class _Server(uvicorn.Server):
    """One that does not wait for streams, which would go on until the drain's time is over."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.stop()
        await super().shutdown(sockets)


async def _run(app: FastAPI, services: Services) -> None:
    settings = services.settings
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=settings.drain_timeout_seconds,
        ),
        services.streams,
    )
    # uvicorn raises the signal again once it has drained, which would kill the process before the database is closed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    await server.serve()


def main() -> int:
    """Exit code 2 means that the environment has to change."""
    configure_logging(os.environ.get("FINETUNE_LOG_LEVEL") or "INFO")
    try:
        asyncio.run(serve(Settings.from_environment(os.environ)))
    except (InvalidSettings, UnusableUrl, SchemaTooNew) as error:
        logger.error("can't start", error=str(error))
        return CONFIGURATION_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
