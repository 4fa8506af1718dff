"""What can be told of a base model's size before a training of it has looked into its files.

The catalogue knows a few, and each training's preflight has told of its own. The api itself reads neither the volumes
of base models nor the hub.
"""

from typing import Any, NamedTuple

from finetune_operator.core.base_model_catalogue import catalogued
from finetune_operator.core.model_shape import ModelShape, told_shape
from finetune_operator.core.training_estimates import UNKNOWN_SIZE
from finetune_operator.resources.common import BaseModelSource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.store.mirrored import Wanted
from finetune_operator.web.acting import JOBS
from finetune_operator.web.dashboard.permitted import told
from finetune_operator.web.dashboard.visits import Visit

LOOKED_AT = 100
"""Of the newest trainings."""


class KnownSize(NamedTuple):
    """Either is there."""

    shape: ModelShape | None
    unknown: str | None = None


async def size_of(visit: Visit, job: FineTuneJob) -> KnownSize:
    """Of a base model that is trained in the cluster."""
    source = job.spec.base_model.source
    if source.hub and (model := catalogued(source.hub.id)):
        return KnownSize(model.shape)
    namespace = job.metadata.namespace if source.volume else None
    page = await told(visit.acting.page(JOBS, namespace, LOOKED_AT, None, Wanted(JOBS.plural)))
    for body in page.value.items if page.value else ():
        preflight = (body.get("status") or {}).get("preflight")
        if not preflight or not _same(body["spec"], source):
            continue
        if (said := preflight.get("shape")) and (shape := told_shape(said)):
            return KnownSize(shape)
        if preflight.get("parametersBillion") is None:
            return KnownSize(None, UNKNOWN_SIZE)
    return KnownSize(None, _unread(source))


def _same(spec: dict[str, Any], wanted: BaseModelSource) -> bool:
    """A model of the hub whatever its revision, as in the catalogue; one on a volume by its place."""
    source = spec["baseModel"].get("source") or {}
    if wanted.hub:
        return (source.get("hub") or {}).get("id") == wanted.hub.id
    volume = source.get("volume") or {}
    place = (wanted.volume.claim_name, wanted.volume.path) if wanted.volume else None
    return place == (volume.get("claimName"), volume.get("path"))


def _unread(source: BaseModelSource) -> str:
    later = "the job's preparation reads it before it takes a GPU, and later trainings are estimated by that"
    if source.hub:
        where = f"config.json of {source.hub.id} was not read yet"
        return f"{where}: finetune-operator estimate job.yaml reads it at the hub; {later}"
    claim = source.volume.claim_name if source.volume else ""
    where = f"config.json is on the volume {claim} and was not read yet"
    return f"{where}: finetune-operator estimate job.yaml --base-model with a directory that has it tells; {later}"
