"""The operator process: kopf watches, the controller works. This is the only file that knows kopf's decorators.

kopf keeps the watches alive and tells when all first listings are in: its indexing gates every event handler, so that
no reconcile decides before the state is complete. Its create/update handlers are not used: they are edge-triggered and
write annotations.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from itertools import product
from typing import Any

import aiohttp
import kopf

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import KubeError
from finetune_operator.logs import configure_logging, get_logger
from finetune_operator.manifests.common import CHILD_SELECTOR
from finetune_operator.resources.common import API_VERSION, GROUP, VERSION
from finetune_operator.shell.api import Api
from finetune_operator.shell.controller import CHILD_PLURALS, CUSTOM_PLURALS, Controller
from finetune_operator.shell.engines import Engines
from finetune_operator.shell.execute import Executor
from finetune_operator.shell.metrics import metrics_server
from finetune_operator.shell.observe import Observer
from finetune_operator.shell.settings import Settings, SettingsError
from finetune_operator.shell.state import ClusterState

WATCHED: tuple[tuple[str, str, str], ...] = (
    *((GROUP, VERSION, plural) for plural in CUSTOM_PLURALS),
    ("batch", "v1", "jobs"),
    ("", "v1", "pods"),
    ("apps", "v1", "deployments"),
)
DEFINITIONS_RETRY_SECONDS = 2.0
METRICS_HOST = "0.0.0.0"  # noqa: S104 - Prometheus asks from another pod

logger = get_logger(__name__)


class CappedBackoffs:
    """Delays between attempts of one API request, without an end: giving up would end the operator."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 4, 8)
        while True:
            yield 15


def main() -> int:
    """Run until SIGTERM; a broken setting is said in one line."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"finetune-operator: {error}\n")
        return 2
    configure_logging(settings.log_level)
    # Every handled event and every probe would be a line.
    for chatty in ("kopf", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    asyncio.run(serve(settings))
    return 0


async def serve(settings: Settings) -> None:
    """Everything in one event loop; the controller's end is the process's end."""
    async with KubeClient.from_environment() as client, aiohttp.ClientSession() as session:
        await _wait_for_definitions(client, settings.namespaces)
        state = ClusterState()
        engines = Engines(session, settings.engine_api_key, settings.engine_url_template)
        api = Api(session, settings.config.api_url, settings.internal_token)
        observer = Observer(state, engines, api)
        controller = Controller(client, state, observer, Executor(client, state, engines, api), settings.config)
        stop = asyncio.Event()
        work = asyncio.create_task(controller.run(settings.namespaces))
        work.add_done_callback(lambda _: stop.set())
        registry = _registry(state, controller)

        @kopf.on.cleanup(registry=registry)
        async def end_work(**_: Any) -> None:
            """kopf waits five seconds for tasks that began after it, which the workers did."""
            work.cancel()

        logger.info("the operator starts", namespaces=settings.namespaces)
        port = settings.metrics_port
        metrics = metrics_server(state, settings.namespaces, METRICS_HOST, port) if port else nullcontext()
        try:
            async with metrics:
                await kopf.operator(
                    registry=registry,
                    settings=_kopf_settings(),
                    namespaces=settings.namespaces,
                    standalone=True,
                    liveness_endpoint=settings.liveness_endpoint,
                    stop_flag=stop,
                )
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


async def _wait_for_definitions(client: KubeClient, namespaces: tuple[str, ...]) -> None:
    """kopf asks discovery for the kinds once, and never watches one that it does not find."""
    while True:
        try:
            missing = set(CUSTOM_PLURALS) - await client.discovered(API_VERSION)
            if not missing:
                for namespace, plural in product(namespaces, CUSTOM_PLURALS):
                    await client.list(plural, namespace)
                return
            logger.warning("waiting for kinds to be served", kinds=sorted(missing))
        except KubeError as error:
            logger.warning("waiting for the kinds to be served", error=str(error))
        await asyncio.sleep(DEFINITIONS_RETRY_SECONDS)


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = CappedBackoffs()
    for group, version, plural in WATCHED:
        if plural in CHILD_PLURALS:
            settings.watching.label_selectors[group, version, plural] = CHILD_SELECTOR
    return settings


def _registry(state: ClusterState, controller: Controller) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.probe(registry=registry, id="work", errors=kopf.ErrorsMode.PERMANENT)
    async def does_work(**_: Any) -> str:
        """An error is the probe's answer 500, tried again with the next probe."""
        if complaint := controller.complaint():
            logger.error("this process should be replaced", cause=complaint)
            raise kopf.PermanentError(complaint)
        return "ok"

    for group, version, plural in WATCHED:
        _watch(registry, state, controller, group, version, plural)
    return registry


def _watch(
    registry: kopf.OperatorRegistry, state: ClusterState, controller: Controller, group: str, version: str, plural: str
) -> None:
    @kopf.index(group, version, plural, id=f"see-{plural}", registry=registry)
    async def see(body: kopf.Body, **_: Any) -> None:
        state.see(plural, dict(body))
        controller.brought(plural, dict(body))

    @kopf.on.event(group, version, plural, id=f"changed-{plural}", registry=registry)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        controller.changed(plural, body, deleted=event["type"] == "DELETED")
