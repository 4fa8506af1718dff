"""No list and no page is forgotten: each is measured, or there is a reason why not."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from bench.many_resources import batch, training, version
from bench.measured_paths import ASKED_BY_US, PATHS, UNMEASURED, route_of
from finetune_operator.resources.batch_inference import BatchInference
from finetune_operator.resources.common import API_VERSION, Resource
from finetune_operator.resources.finetunejob import FineTuneJob
from finetune_operator.resources.modelversion import ModelVersion
from finetune_operator.web.app import INTERNAL_ROUTERS, ROUTERS
from finetune_operator.web.dashboard.site import PAGES

ALL_ROUTERS = (*INTERNAL_ROUTERS, *ROUTERS, *(page.router for page in PAGES))
ROUTES: list[BaseRoute] = [route for router in ALL_ROUTERS for route in router.routes]
READ = {route.path for route in ROUTES if isinstance(route, APIRoute) and "GET" in route.methods}

MADE = ((FineTuneJob, training), (ModelVersion, version), (BatchInference, batch))


def test_all_that_is_read_is_measured_or_has_a_reason_not_to_be() -> None:
    answered = {path: route_of(path, ROUTES) for path in (*PATHS, *ASKED_BY_US)}
    assert [path for path, route in answered.items() if route is None] == [], "no such route"
    measured = {route for route in answered.values() if route}
    assert READ - measured - set(UNMEASURED) == set(), "add it to PATHS, or to UNMEASURED with a reason"
    assert set(UNMEASURED) & measured == set(), "measured after all"
    assert set(UNMEASURED) - READ == set(), "gone"
    assert all(UNMEASURED.values())


@pytest.mark.parametrize(("kind", "make"), MADE, ids=[kind.__name__ for kind, _ in MADE])
def test_what_is_made_up_is_what_the_api_server_would_have(
    kind: type[Resource], make: Callable[[int], dict[str, Any]]
) -> None:
    assert kind.parse({"apiVersion": API_VERSION, "kind": kind.__name__} | make(500)).metadata.uid
