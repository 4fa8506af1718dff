"""Each operation that reads tells of what is there, and as the document says: ids that are made up never get so far."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.web.contract.furnishing import ROLES
from tests.unit.web.contract.running_api import RunningApi, running_api
from tests.unit.web.contract.test_contract import REQUEST_SECONDS, document, schema

QUERIES: dict[str, dict[str, str]] = {
    "/v1/fine-tuning/costs/roi": {"version": "plato-v2"},
    "/v1/fine-tuning/model-versions/{namespace}/{name}/evaluations": {},
}
NAMES: dict[str, str] = {
    "/v1/fine-tuning/model-versions/{namespace}/{name}/evaluations": "plato-v2",
}
"""Where `name` is not that of the ABTest."""
UNASKED = {
    "/v1/fine-tuning/jobs/{job_id}/events": "a stream that ends with its job; tests/unit/web/rest/test_job_events.py",
    "/v1/fine-tuning/jobs/{job_id}/logs": "of a pod; tests/unit/web/rest/test_job_logs.py",
    "/api/training/jobs/{job_id}/artifacts": "of an ended training; tests/unit/web/rest/test_training_jobs.py",
}
READING = sorted(path for path, methods in document()["paths"].items() if "get" in methods and path not in UNASKED)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    """Of which nothing is deleted."""
    with running_api(tmp_path_factory.mktemp("there")) as running:
        yield running


@pytest.mark.parametrize("path", READING)
def test_what_is_there_is_told_as_documented(api: RunningApi, path: str) -> None:
    operation = schema[path]["GET"]
    names = {parameter.name for parameter in operation.path_parameters}
    chosen: dict[str, Any] = {name: api.known[name][0] for name in names}
    if path in NAMES:
        chosen["name"] = NAMES[path]
    case = operation.Case(path_parameters=chosen, query=QUERIES.get(path, {}))
    answer = case.call_and_validate(base_url=api.url, headers=ROLES["admin"], timeout=REQUEST_SECONDS)
    assert answer.status_code == 200


def test_what_is_not_asked_is_an_operation() -> None:
    assert UNASKED.keys() | QUERIES.keys() | NAMES.keys() <= document()["paths"].keys()
