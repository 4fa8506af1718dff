"""Every documented operation by every sort of caller: who is refused, and that nobody else is."""

import copy
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import Account, KeyRecord
from finetune_operator.web.openai_api.errors import is_spoken
from tests.builders import job_object, version_object
from tests.unit.web.conftest import NOON
from tests.unit.web.rest.conftest import ANONYMOUS, API_TOKEN, EDITOR, NOBODY, READER, Rest
from tests.unit.web.test_access import PATH_EXAMPLES, public_routes

CALLERS = {"anonymous": ANONYMOUS, "api token": API_TOKEN, "nobody": NOBODY, "reader": READER, "editor": EDITOR}
REFUSED_TO: dict[str, set[str]] = {
    "anybody known": {"anonymous"},
    "jobs: read": {"anonymous", "api token", "nobody"},
    "change": {"anonymous", "api token", "nobody", "reader"},
    "what the api may read": {"anonymous", "nobody"},
    "vote": {"anonymous", "nobody", "reader"},
    "ratings": {"anonymous", "nobody", "reader"},
    "tokens": {"anonymous", "api token", "nobody", "reader"},
}
"""The api's own token reads what the api may read, which FineTuneJobs are not, and changes nothing in the cluster."""

TESTS = "/v1/fine-tuning/ab-test"
TEST, ONE = f"{TESTS}/{{namespace}}/{{name}}", f"{TESTS}/{{test_id}}"
MODELS = "/v1/fine-tuning/models"
JOBS = "/v1/fine-tuning/jobs"
COSTS = "/v1/fine-tuning/costs"
TRAINING = "/api/training/jobs"
OPENAI = "/v1/fine_tuning/jobs"
DATASETS = "/v1/fine-tuning/datasets"
KEYS = "/v1/api-keys"
FILES = "/v1/files"
OPERATIONS: dict[str, tuple[str, ...]] = {
    "anybody known": (
        # A series that nobody has is told to anybody: it is empty.
        f"GET {JOBS}/{{uid}}/progress",
        "GET /api/training/formats",
    ),
    "jobs: read": (
        f"GET {JOBS}",
        f"GET {JOBS}/{{job_id}}",
        f"GET {JOBS}/{{job_id}}/events",
        f"GET {JOBS}/{{job_id}}/logs",
        f"GET {OPENAI}",
        f"GET {OPENAI}/{{fine_tuning_job_id}}",
        f"GET {OPENAI}/{{fine_tuning_job_id}}/events",
        f"GET {OPENAI}/{{fine_tuning_job_id}}/checkpoints",
        f"GET {TRAINING}",
        f"GET {TRAINING}/{{job_id}}",
        f"GET {TRAINING}/{{job_id}}/metrics",
        f"GET {TRAINING}/{{job_id}}/artifacts",
        f"GET {COSTS}",
        f"GET {COSTS}/jobs",
    ),
    "change": (
        f"POST {JOBS}",
        f"POST {JOBS}/{{job_id}}/cancel",
        f"PUT {JOBS}/{{job_id}}/budget",
        f"POST {JOBS}/{{job_id}}/suspend",
        f"POST {JOBS}/{{job_id}}/resume",
        f"DELETE {JOBS}/{{job_id}}",
        f"POST {OPENAI}",
        f"POST {OPENAI}/{{fine_tuning_job_id}}/cancel",
        f"POST {OPENAI}/{{fine_tuning_job_id}}/pause",
        f"POST {OPENAI}/{{fine_tuning_job_id}}/resume",
        f"POST {TRAINING}",
        f"POST {TRAINING}/{{job_id}}/start",
        f"POST {TRAINING}/{{job_id}}/cancel",
        f"DELETE {TRAINING}/{{job_id}}",
        f"POST {MODELS}/{{model_id}}/deploy",
        f"POST {MODELS}/{{model_id}}/rollback",
        f"POST {TESTS}",
        f"POST {ONE}/cancel",
    ),
    "what the api may read": (
        f"GET {TESTS}",
        f"GET {ONE}",
        f"GET {ONE}/comparisons",
        f"GET {ONE}/voters",
        f"GET {ONE}/win-rates",
        f"GET {MODELS}",
        "GET /v1/models",
        f"GET {COSTS}/models",
        f"GET {COSTS}/roi",
        f"GET {MODELS}/{{model_id}}",
        f"GET {TEST}",
        f"GET {TEST}/voters",
        f"GET {TEST}/win-rates",
        "GET /v1/fine-tuning/comparisons",
        "GET /v1/fine-tuning/model-versions/{namespace}/{name}/evaluations",
    ),
    "vote": (
        f"POST {TEST}/comparisons",
        f"POST {TEST}/vote",
        f"POST {ONE}/comparisons",
        f"POST {ONE}/vote",
        "POST /v1/fine-tuning/feedback",
    ),
    "ratings": (
        f"POST {DATASETS}/export",
        f"POST {DATASETS}/statistics",
        f"GET {DATASETS}",
        f"GET {DATASETS}/{{dataset_id}}",
        f"DELETE {DATASETS}/{{dataset_id}}",
        f"GET {DATASETS}/{{dataset_id}}/rows",
        f"GET {DATASETS}/{{dataset_id}}/files/{{file}}",
        "POST /api/training/export/sft",
        "POST /api/training/export/dpo",
        "POST /api/training/export/gauntlet",
        "GET /api/training/stats",
        f"POST {FILES}",
        f"GET {FILES}",
        f"GET {FILES}/{{file_id}}",
        f"GET {FILES}/{{file_id}}/content",
        f"DELETE {FILES}/{{file_id}}",
    ),
    "tokens": (
        f"POST {KEYS}",
        f"GET {KEYS}",
        f"DELETE {KEYS}/{{key_id}}",
    ),
}
SORTS = {operation: sort for sort, operations in OPERATIONS.items() for operation in operations}
HISTORY = [{"time": "2026-11-22T12:00:00Z", "state": "Deployed", "why": "test", "previous": "plato-v1"}]
LOADED = {"type": "Loaded", "status": "True", "reason": "Test", "lastTransitionTime": "2026-11-22T12:00:00Z"}
ACTIVE = {"engine": "e", "promotedAt": "2026-11-22T12:00:00Z", "history": HISTORY, "conditions": [LOADED]}
FLAT_JOB = {"model": "plato", "base_model": "volume://models/tiny"}
ADA = {"evaluator": "ada"}
API_KEY = KeyRecord(
    PATH_EXAMPLES["key_id"], "", "", Account("finetune", "robot"), "ada", NOON, NOON + timedelta(days=1)
)
BODIES: dict[str, Any] = {
    f"POST {JOBS}": FLAT_JOB,
    f"POST {TRAINING}": FLAT_JOB,
    f"POST {OPENAI}": {"model": "volume://models/tiny", "training_file": "ratings"},
    f"POST {TESTS}": {"candidate": "plato-v2"},
    f"PUT {JOBS}/{{job_id}}/budget": {"max_cost": "25.00"},
    f"POST {TEST}/comparisons": ADA,
    f"POST {ONE}/comparisons": ADA,
    f"POST {TEST}/vote": ADA | {"comparison_id": "0", "vote": "tie"},
    f"POST {ONE}/vote": ADA | {"comparison_id": "0", "vote": "tie"},
    "POST /v1/fine-tuning/feedback": {"request_id": "r", "thumbs": "up"},
    f"POST {KEYS}": {"name": "nightly", "service_account": "robot"},
    f"POST {DATASETS}/export": {},
    f"POST {DATASETS}/statistics": {},
}


QUERIES = {f"GET {COSTS}/roi": "?version=finetune.plato-v2"}
"""What has to be asked with."""
NOT_DONE: dict[str, int] = {
    f"POST {TEST}/vote": 404,
    f"POST {ONE}/vote": 404,
    # No place for datasets, and no database of ratings to read.
    **{
        operation: 400 if FILES in operation else 409
        for operation in OPERATIONS["ratings"]
        if operation != "GET /api/training/stats"
    },
}
"""What is answered to who may, where there is nothing of it here; all else is done."""


def _body(operation: str, caller: str) -> Any:
    """Who has a Kubernetes token judges by it."""
    body = BODIES.get(operation)
    if body is not None and caller != "api token":
        return {name: value for name, value in body.items() if name != "evaluator"}
    return body


def test_every_operation_has_its_sort() -> None:
    known = {(operation.split()[0], operation.split()[1].format(**PATH_EXAMPLES)) for operation in SORTS}
    assert known == set(public_routes())


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", SORTS)
async def test_who_is_refused(rest: Rest, operation: str, caller: str) -> None:
    rest.cluster.put("finetunejobs", job_object({"suspend": operation.endswith(("/resume", "/start"))}, name="plato-1"))
    rest.cluster.put("modelversions", version_object(2, status=ACTIVE))
    rest.cluster.put("modelversions", version_object(1))
    await api_keys.add(rest.services.engine, API_KEY)
    before = copy.deepcopy(rest.cluster.objects)
    method, path = operation.split()
    asked = path.format(**PATH_EXAMPLES) + QUERIES.get(operation, "")
    response = await rest.ask(method, asked, _body(operation, caller), CALLERS[caller])
    refused = response.status_code in (401, 403)
    assert refused == (caller in REFUSED_TO[SORTS[operation]]), (response.status_code, response.text)
    if caller == "anonymous":
        assert response.status_code == 401
    if refused:
        assert rest.cluster.objects == before
        assert rest.cluster.writes() == [] or SORTS[operation] == "change"
    else:
        assert response.status_code < 400 or response.status_code == NOT_DONE.get(operation), response.text


async def test_what_is_refused_is_documented(rest: Rest) -> None:
    for path, methods in rest.app.openapi()["paths"].items():
        for method, operation in methods.items():
            invalid = "400" if is_spoken(path) else "422"
            assert {"401", invalid, "503"} <= operation["responses"].keys(), f"{method} {path}"
            assert operation["summary"]
            sort = SORTS[f"{method.upper()} {path}"]
            assert sort == "anybody known" or "403" in operation["responses"], f"{method} {path}"
