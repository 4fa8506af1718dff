"""`/v1/models`: the names that answer, in OpenAI's form with what only this gateway knows beside it."""

from collections.abc import Iterable
from typing import Any

from finetune_operator.core.routing import Meaning, Route, RouteTable, Split, Target, Unavailable
from finetune_operator.gateway.errors import ambiguous_model, unavailable_model, unknown_model
from finetune_operator.resources.modelversion import ModelVersion

OWNER = "finetune-operator"
CREATED_UNKNOWN = 0


class Catalog:
    """The routes of one moment, and the versions that they were made of."""

    def __init__(self, table: RouteTable, versions: Iterable[ModelVersion]) -> None:
        self._table = table
        self._versions = {(version.metadata.namespace, version.metadata.name): version for version in versions}

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(route) for route in self._table.routes if route.answers]}

    def active(self) -> dict[str, Any]:
        """What each alias stands for now: one version, or the two arms of a test."""
        aliases = (route for route in self._table.routes if route.meaning is Meaning.ALIAS and route.answers)
        return {"object": "list", "data": [self._model(route) for route in aliases]}

    def model(self, name: str) -> dict[str, Any]:
        """Raises `GatewayError` for a name that can't answer or has several meanings."""
        routes = self._table.routes_of(name)
        if len(routes) > 1:
            raise ambiguous_model(name, routes)
        if not routes:
            raise unknown_model(name, (self._table.public_name(route) for route in self._table.routes))
        if isinstance(routes[0].destination, Unavailable):
            raise unavailable_model(routes[0].destination)
        return self._model(routes[0])

    def _model(self, route: Route) -> dict[str, Any]:
        target = route.destination if isinstance(route.destination, Target) else None
        details: dict[str, Any] = {"namespace": route.namespace, "meaning": route.meaning.value}
        created = CREATED_UNKNOWN
        if target and route.meaning is not Meaning.BASE_MODEL:
            details["version"] = target.served_name
            if version := self._versions.get((route.namespace, target.served_name)):
                details["lineage"] = _lineage(version)
                created = _created(version)
        if isinstance(route.destination, Split):
            details["abTest"] = _split(route.destination)
        return {
            "id": self._table.public_name(route),
            "object": "model",
            "created": created,
            "owned_by": OWNER,
            "root": target.served_name if target else None,
            "parent": target.parent if target else None,
            "finetune": details,
        }


def _lineage(version: ModelVersion) -> dict[str, str]:
    """Which files answer, and what they were made of; what is unknown is left out."""
    lineage = version.spec.lineage
    known = {
        "digest": version.spec.artifact.digest,
        "fineTuneJob": lineage.fine_tune_job,
        "datasetDigest": lineage.dataset_digest,
        "initFrom": lineage.init_from.model_version if lineage.init_from else None,
    }
    return {name: value for name, value in known.items() if value}


def _created(version: ModelVersion) -> int:
    created = version.metadata.creation_timestamp
    return int(created.timestamp()) if created else CREATED_UNKNOWN


def _split(split: Split) -> dict[str, Any]:
    return {
        "name": split.test_name,
        "candidatePercent": split.candidate_percent,
        "shadowPercent": split.shadow_percent,
        "pairPercent": split.pairing.percent if split.pairing else 0,
        "baseline": split.baseline.served_name,
        "candidate": split.candidate.served_name,
    }
