"""The OpenAPI document is a promise: schemathesis holds every operation to it, by every sort of caller.

FINETUNE_CONTRACT_EXAMPLES is how many requests of each kind are made up; `make contract` makes up many.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from finetune_operator.web.app import create_app
from finetune_operator.web.services import Services
from finetune_operator.web.settings import Settings
from tests.postgres_server import PostgresServer
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.contract.furnishing import ROLES
from tests.unit.web.contract.running_api import RunningApi, running_api

CI_EXAMPLES = 6
EXAMPLES = int(os.environ.get("FINETUNE_CONTRACT_EXAMPLES") or CI_EXAMPLES)
REQUEST_SECONDS = 20.0
Case = schemathesis.Case[Any]
PICK = st.integers(0, 3)
SHADOWED = ("/v1/fine-tuning/datasets/export", "/v1/fine-tuning/datasets/statistics")
"""To other methods, their last word is the id of a dataset, and no good one."""


ONE_FORM = "either flat members or `spec`, each with members of its own that must be there"
PLACES = frozenset({"after", "before", "cursor"})
"""Query parameters that only a page can tell: of well-formed ones, those that are no place are refused."""
FILTERS = "filters that leave no rating are told as a mistake"
DIGITS = "JSON Schema takes 1.0 for a whole number, and bounds no digits"
INDESCRIBABLE: dict[str, str] = {
    "POST /v1/fine-tuning/jobs": ONE_FORM,
    "POST /api/training/jobs": ONE_FORM,
    "POST /v1/fine-tuning/ab-test": ONE_FORM,
    "POST /v1/fine-tuning/batches": ONE_FORM,
    "POST /v1/fine_tuning/jobs": "the form of a model's place, and files that are there",
    "POST /v1/fine-tuning/feedback": "exactly one of thumbs and rating",
    "POST /v1/files": "a file's rows are those of a format",
    "POST /v1/fine-tuning/datasets/export": FILTERS,
    "POST /v1/fine-tuning/datasets/statistics": FILTERS,
    "POST /api/training/export/sft": FILTERS,
    "POST /api/training/export/dpo": FILTERS,
    "POST /api/training/export/gauntlet": FILTERS,
    "PUT /v1/fine-tuning/jobs/{job_id}/budget": DIGITS,
    "POST /v1/api-keys": DIGITS,
    **{
        f"POST /v1/fine-tuning/models/{{model_id}}/{verb}": "the API server judges the spec that comes of it"
        for verb in ("deploy", "serve", "evaluate")
    },
    "POST /v1/fine-tuning/models/{model_id}/rollback": "`to` is a version that is there",
    "GET /v1/fine-tuning/costs/roi": "currencies of what is there, and digits",
    **{
        f"POST /v1/fine_tuning/jobs/{{fine_tuning_job_id}}/{verb}": "OpenAI says 400 to a job in another state"
        for verb in ("cancel", "pause", "resume")
    },
}
"""Operations that may refuse what their schema takes, and what of it JSON Schema can't say."""


def document() -> dict[str, Any]:
    nothing: Any = None
    found: dict[str, Any] = create_app(
        Services(Settings.from_environment(ENVIRONMENT), nothing, nothing, nothing)
    ).openapi()
    return found


schema = schemathesis.openapi.from_dict(document())
# Tokens are the tests': a made-up one would be replaced by the role's.
schema.config.generation.update(with_security_parameters=False)


def told(case: Case, api: RunningApi, role: str, pick: int) -> None:
    """Ask, half of the times about what is there, and hold the answer to the document."""
    is_valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    for name in case.path_parameters if is_valid and pick else ():
        if known := api.known.get(name):
            case.path_parameters[name] = known[pick % len(known)]
    # The others are refused for who they are, in whichever order.
    may_refuse = role != "admin" or case.operation.label in INDESCRIBABLE or not PLACES.isdisjoint(case.query or ())
    excluded = [unsupported_method] if case.path in SHADOWED else []
    excluded += [positive_data_acceptance] if may_refuse else []
    case.call_and_validate(base_url=api.url, headers=ROLES[role], timeout=REQUEST_SECONDS, excluded_checks=excluded)


def test_what_is_indescribable_is_an_operation() -> None:
    known = {f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods}
    assert INDESCRIBABLE.keys() <= known


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApi]:
    with running_api(tmp_path_factory.mktemp("contract")) as running:
        yield running


@pytest.fixture(scope="module")
def api_on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[RunningApi]:
    with running_api(tmp_path_factory.mktemp("contract"), postgres.database()) as running:
        yield running


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        # In search of more, each run makes up others.
        derandomize=EXAMPLES == CI_EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("role", ROLES)
@schema.given(pick=PICK)
@schema.parametrize()
@bounded(EXAMPLES)
def test_every_answer_is_as_documented(case: Case, api: RunningApi, role: str, pick: int) -> None:
    told(case, api, role, pick)


@schema.given(pick=PICK)
@schema.parametrize()
@bounded(max(1, EXAMPLES // 3))
def test_it_is_the_same_on_postgresql(case: Case, api_on_postgresql: RunningApi, pick: int) -> None:
    told(case, api_on_postgresql, "admin", pick)
