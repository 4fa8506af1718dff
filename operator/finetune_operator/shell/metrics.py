"""What Prometheus reads from the operator: costs, computed when it asks from what the watches brought."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from finetune_operator.core.cost_series import CostSeries, Labels, cost_series
from finetune_operator.shell.state import ClusterState

GAUGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "training",
        "finetune_training_cost",
        "Spent on FineTuneJobs, all attempts included, in units of the currency: on those that are there, and on those "
        "that were deleted since this process first told of them",
        ("namespace", "model", "currency"),
    ),
    ("trainings", "finetune_trainings", "FineTuneJobs by phase", ("namespace", "phase")),
    (
        "unpriced",
        "finetune_trainings_without_price",
        "FineTuneJobs that took resources for which the installation has no price: the cost lacks them",
        ("namespace",),
    ),
    (
        "held_by_budget",
        "finetune_trainings_held_by_budget",
        "FineTuneJobs that spec.budget has stopped, or does not let begin",
        ("namespace", "reason"),
    ),
    (
        "per_million_tokens",
        "finetune_model_version_cost_per_million_tokens",
        "Price of the engine's pods for the time in which they generate a million tokens of the version, in units of "
        "the currency; as of its last evaluation",
        ("namespace", "served_name", "currency"),
    ),
    (
        "per_answer",
        "finetune_model_version_cost_per_answer",
        "Price of the engine's pods for the time that one answer took, in units of the currency; as of the version's "
        "last evaluation",
        ("namespace", "served_name", "currency"),
    ),
)
"""Member of `CostSeries`, name, help and labels."""


class CostCollector(Collector):
    """Tells the series of what it last looked at, and remembers what trainings had spent that are gone by then.

    Series of many trainings take seconds, so that they are counted beside the event loop, which goes on watching.
    """

    def __init__(self, state: ClusterState, namespaces: tuple[str, ...]) -> None:
        self._state = state
        self._namespaces = namespaces
        self._jobs: Sequence[Mapping[str, Any]] = ()
        self._versions: Sequence[Mapping[str, Any]] = ()
        self._trainings: dict[str, Mapping[str, object]] = {}

    def look(self) -> None:
        """Take what the watches have brought by now, until it is collected; they replace objects, and change none."""
        self._jobs, self._versions = self._objects("finetunejobs"), self._objects("modelversions")

    def collect(self) -> Iterable[GaugeMetricFamily]:
        jobs, self._jobs = self._jobs, ()
        versions, self._versions = self._versions, ()
        self._trainings |= {body["metadata"]["uid"]: _charged(body) for body in jobs}
        found = replace(
            cost_series(jobs, versions),
            training=cost_series(self._trainings.values(), ()).training,
        )
        for member, name, help_, labels in GAUGES:
            gauge = GaugeMetricFamily(name, help_, labels=labels)
            for values, value in _values(found, member).items():
                gauge.add_metric(values, float(value))
            yield gauge

    def _objects(self, plural: str) -> list[Mapping[str, Any]]:
        return [body for namespace in self._namespaces for body in self._state.all(plural, namespace)]


def _charged(job: Mapping[str, Any]) -> Mapping[str, object]:
    """As much of it as its cost needs."""
    return {
        "metadata": {"namespace": job["metadata"]["namespace"]},
        "spec": {"model": job["spec"]["model"]},
        "status": {"cost": (job.get("status") or {}).get("cost")},
    }


def _values(found: CostSeries, member: str) -> Mapping[Labels, Decimal | int]:
    values: Mapping[Labels, Decimal | int] = getattr(found, member)
    return values


@asynccontextmanager
async def metrics_server(state: ClusterState, namespaces: tuple[str, ...], host: str, port: int) -> AsyncIterator[int]:
    """`/metrics` on this port as long as it is entered; 0 is any free one. Gives the port."""
    registry, costs, one_at_a_time = CollectorRegistry(), CostCollector(state, namespaces), asyncio.Lock()
    registry.register(costs)

    async def answer(_: web.Request) -> web.Response:
        async with one_at_a_time:
            costs.look()
            body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
