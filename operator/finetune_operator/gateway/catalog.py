"""`/v1/models`: the names that answer, in OpenAI's form with what only this gateway knows beside it."""

from typing import Any

from finetune_operator.core.routing import Meaning, Route, RouteTable, Split, Target, Unavailable
from finetune_operator.gateway.errors import ambiguous_model, unavailable_model, unknown_model

OWNER = "finetune-operator"
CREATED_UNKNOWN = 0


def list_models(table: RouteTable) -> dict[str, Any]:
    return {"object": "list", "data": [_model(table, route) for route in table.routes if route.answers]}


def active_models(table: RouteTable) -> dict[str, Any]:
    """What each alias stands for now: one version, or the two arms of a test."""
    aliases = (route for route in table.routes if route.meaning is Meaning.ALIAS and route.answers)
    return {"object": "list", "data": [_model(table, route) for route in aliases]}


def one_model(table: RouteTable, name: str) -> dict[str, Any]:
    """Raises `GatewayError` for a name that can't answer or has several meanings."""
    routes = table.routes_of(name)
    if len(routes) > 1:
        raise ambiguous_model(name, routes)
    if not routes:
        raise unknown_model(name, (table.public_name(route) for route in table.routes))
    if isinstance(routes[0].destination, Unavailable):
        raise unavailable_model(routes[0].destination)
    return _model(table, routes[0])


def _model(table: RouteTable, route: Route) -> dict[str, Any]:
    target = route.destination if isinstance(route.destination, Target) else None
    details: dict[str, Any] = {"namespace": route.namespace, "meaning": route.meaning.value}
    if target and route.meaning is not Meaning.BASE_MODEL:
        details["version"] = target.served_name
    if isinstance(route.destination, Split):
        details["abTest"] = _split(route.destination)
    return {
        "id": table.public_name(route),
        "object": "model",
        "created": CREATED_UNKNOWN,
        "owned_by": OWNER,
        "root": target.served_name if target else None,
        "parent": target.parent if target else None,
        "finetune": details,
    }


def _split(split: Split) -> dict[str, Any]:
    return {
        "name": split.test_name,
        "candidatePercent": split.candidate_percent,
        "baseline": split.baseline.served_name,
        "candidate": split.candidate.served_name,
    }
