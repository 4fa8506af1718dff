"""Where the dashboard takes a text: its routes are in no OpenAPI document of the api's, so one is made of them here."""

import copy
from typing import Any
from urllib.parse import quote

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from finetune_operator.web.dashboard import visits, voting
from finetune_operator.web.dashboard.batch_forms import BatchForm
from finetune_operator.web.dashboard.model_pages import MeasureForm
from finetune_operator.web.dashboard.site import PAGES
from finetune_operator.web.dashboard.wizard_choices import NAMES
from finetune_operator.web.dataset_schemas import ExportRequest, GoldSelection
from finetune_operator.web.job_requests import JobRequest
from finetune_operator.web.version_views import DeployRequest, RollbackRequest
from tests.unit.web.contract import corpus
from tests.unit.web.contract.corpus import Json, Place
from tests.unit.web.test_access import PATH_EXAMPLES

MODEL = "/fine-tuning/models/{namespace}/{name}"
VOTE = "/model-comparison/tests/{test_id}/vote"
TRAINING = (*JobRequest.model_fields, "key", "switches")
FORMS: dict[str, tuple[str, ...]] = {
    "/fine-tuning/new": TRAINING,
    "/fine-tuning/new/outlook": TRAINING,
    "/fine-tuning/datasets": (*ExportRequest.model_fields, "switches"),
    "/fine-tuning/datasets/count": (*GoldSelection.model_fields, "switches"),
    "/fine-tuning/datasets/commands": (*ExportRequest.model_fields, "switches"),
    f"{MODEL}/deploy": tuple(DeployRequest.model_fields),
    f"{MODEL}/rollback": tuple(RollbackRequest.model_fields),
    f"{MODEL}/serve": tuple(DeployRequest.model_fields),
    f"{MODEL}/evaluate": (*MeasureForm.model_fields, "switches", "next"),
    "/wizard/data/count": tuple(GoldSelection.model_fields),
    "/wizard/data/commands": tuple(GoldSelection.model_fields),
    "/wizard/train": NAMES,
    "/wizard/train/outlook": NAMES,
    "/cost/trainings/{namespace}/{name}/budget": ("max_cost", "currency"),
    "/batches": tuple(BatchForm.model_fields),
    "/batches/preview": tuple(BatchForm.model_fields),
}
"""What is read of forms whose fields no signature names."""
BUTTONS = {
    "/logout",
    "/api-keys/{key_id}/revoke",
    "/fine-tuning/jobs/{namespace}/{name}/cancel",
    "/fine-tuning/jobs/{namespace}/{name}/suspend",
    "/fine-tuning/jobs/{namespace}/{name}/resume",
    "/fine-tuning/datasets/{dataset_id}/delete",
    "/model-comparison/tests/{test_id}/cancel",
    "/batches/{batch_id}/cancel",
    "/batches/{batch_id}/suspend",
    "/batches/{batch_id}/resume",
    "/batches/{batch_id}/delete",
    f"{VOTE}/pair",
}
"""Forms without a field."""
QUERIES = dict.fromkeys(("/wizard", "/wizard/data", "/wizard/train"), NAMES)
"""What is read of addresses whose query no signature names."""
COOKIES = (
    Place("GET", "/fine-tuning", "cookie", visits.COOKIE),
    Place("GET", VOTE, "cookie", voting.COOKIE),
    Place("POST", f"{VOTE}/pair", "cookie", voting.COOKIE),
)

TRAINED = {"base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "model": "plato", "key": "0badcafe"}
BATCH = {"name": "answers", "model_version": "finetune.plato-v2", "judged": "true"}
TESTED = {"candidate": "finetune.plato-v2", "prompts": "What is courage?", "name": "v2-base"}
GOOD_FORMS: dict[str, dict[str, str]] = {
    "/api-keys": {"name": "nightly", "account": "finetune/robot"},
    "/login": {"token": "narrow", "next": "/fine-tuning"},
    "/fine-tuning/new": TRAINED,
    "/fine-tuning/new/outlook": TRAINED,
    "/fine-tuning/jobs/{namespace}/{name}/retry": {"key": "0badcafe"},
    "/wizard/train": TRAINED,
    "/wizard/train/outlook": TRAINED,
    "/wizard/compare/{version_id}": TESTED,
    "/cost/trainings/{namespace}/{name}/budget": {"max_cost": "40", "currency": "USD"},
    "/batches": BATCH,
    "/batches/preview": BATCH,
    "/model-comparison/deploy": {"version": "finetune.plato-v1"},
    "/model-comparison/rollback": {"version": "finetune.plato-v2"},
    "/model-comparison/tests": TESTED,
    "/model-comparison/tests/preview": TESTED,
    f"{VOTE}/name": {"name": "Ada"},
    f"{VOTE}/cast": {"comparison_id": "0" * 36, "vote": "a"},
}
GOOD_QUERIES: dict[str, dict[str, str]] = {
    "/live": {"kinds": "finetunejobs"},
    "/login/oidc/callback": {"code": "code", "state": "state"},
    "/wizard/data": TRAINED,
    "/wizard/train": TRAINED,
    "/cost/roi": {"version": "finetune.plato-v2"},
    "/cost/roi/result": {"version": "finetune.plato-v2"},
    "/cost/roi/curve": {"version": "finetune.plato-v2"},
}
NAMED = {"/fine-tuning/jobs": "plato-1", "/fine-tuning/models": "plato-v2", "/cost/trainings": "plato-1"}
"""What `{name}` is there below a path."""
OWN = {"version_id": "finetune.plato-v2", "batch_id": "finetune.sums"}


def page_routes() -> list[APIRoute]:
    return [route for page in PAGES for route in page.router.routes if isinstance(route, APIRoute)]


def page_document() -> Json:
    """As if the pages were in the api's."""
    routes = [copy.copy(route) for route in page_routes()]
    for route in routes:
        route.include_in_schema = True
    return get_openapi(title="pages", version="1", routes=routes)


def page_places() -> list[Place]:
    """All of them that take a text."""
    found = corpus.places(page_document())
    found += [Place("POST", path, "form", name) for path, names in FORMS.items() for name in names]
    found += [Place("GET", path, "query", name) for path, names in QUERIES.items() for name in names]
    return [*found, *COOKIES]


def page_request(place: Place, hostile: str, session: str) -> tuple[str, dict[str, Any]]:
    """The path, and the rest of what a browser sends: good but for one text."""
    name = next((name for below, name in NAMED.items() if place.path.startswith(below)), "")
    examples = PATH_EXAMPLES | OWN | {"name": name}
    examples |= {place.name: quote(hostile, safe="")} if place.kind == "path" else {}
    cookies = {visits.COOKIE: session.encode()}
    if place.kind == "cookie":
        # Whose votes have no name by themselves is asked for one.
        cookies[visits.COOKIE] = b"public-token"
        cookies[place.name] = hostile.encode().translate(None, b"\r\n\x00")[:4000]
    sent: dict[str, Any] = {
        "headers": {
            "Cookie": b"; ".join(name.encode() + b"=" + value for name, value in cookies.items()),
            "Sec-Fetch-Site": "same-origin",
        }
    }
    sent["params"] = GOOD_QUERIES.get(place.path, {}) | ({place.name: hostile} if place.kind == "query" else {})
    if place.method == "POST":
        sent["data"] = GOOD_FORMS.get(place.path, {}) | ({place.name: hostile} if place.kind == "form" else {})
    return place.path.format(**examples), sent
