"""What is compared between two runs: everything that lasts, without times and identities."""

from typing import Any

from tests.cluster.samples import Manifest
from tests.cluster.world import World

OWN_KINDS = ("finetunejobs", "modelversions", "abtests", "batchinferences")
ENGINE_KINDS = ("deployments", "services", "configmaps")
VOLATILE_FIELDS = frozenset(
    {
        "completionTime",
        "concludedAt",
        "end",
        "jobName",
        "lastTransitionTime",
        "lastUpdateTime",
        "pod",
        "promotedAt",
        "recordedEvaluations",
        "start",
        "startTime",
        "time",
    }
)
KUBERNETES_CONFIG_MAP = "kube-root-ca.crt"


async def end_state(world: World) -> Manifest:
    """Statuses of our kinds, names of the engine's parts, and how many Jobs and pods there are."""
    state: Manifest = {}
    for plural in OWN_KINDS:
        items, _ = await world.client.list(plural, world.namespace)
        state[plural] = {item["metadata"]["name"]: _lasting(item["status"]) for item in items}
    for plural in ENGINE_KINDS:
        state[plural] = [name for name in await world.names(plural) if name != KUBERNETES_CONFIG_MAP]
    for plural in ("jobs", "pods"):
        state[plural] = len(await world.names(plural))
    return state


def _lasting(value: Any) -> Any:
    """That a volatile field is set lasts, its value does not."""
    if isinstance(value, dict):
        return {key: "set" if key in VOLATILE_FIELDS else _lasting(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lasting(item) for item in value]
    return value
