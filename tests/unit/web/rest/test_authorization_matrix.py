"""Every operation of the OpenAPI document, by every role, on every namespace: RBAC alone says who is refused.

Who may is derived from the document: whose rules grant all that `x-required-rights` says. What is not refused is done.
Written by hand are the roles, what is sent, and NOT_DONE: no document says what is there in a test.
"""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import Account, KeyRecord
from finetune_operator.web.identity import Right
from finetune_operator.web.openai_api.errors import COMPLETION_PATHS, is_spoken
from finetune_operator.web.required_rights import (
    EXTENSION,
    Declared,
    RequiredRights,
    Rule,
    UndeclaredRight,
    require_declared,
    rule,
)
from tests.builders import abtest_object, batch_object, job_object, version_object
from tests.unit.web.conftest import ENVIRONMENT, NOON
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.example_requests import ACTIVE, BODIES, FLAT_JOB
from tests.unit.web.rest.played_api_server import EDIT, OWN_TOKEN, VIEW, User
from tests.unit.web.test_access import PATH_EXAMPLES, documented_operations

NAMESPACES = ("finetune", "other")
DOCUMENT = documented_operations()
REQUIRED = {operation: RequiredRights.model_validate(said[EXTENSION]) for operation, said in DOCUMENT.items()}
TESTS, MODELS, JOBS = "/v1/fine-tuning/ab-test", "/v1/fine-tuning/models", "/v1/fine-tuning/jobs"
PAIR, ONE = f"{TESTS}/{{namespace}}/{{name}}", f"{TESTS}/{{test_id}}"
TRAINING, DATASETS, OPENAI = "/api/training/jobs", "/v1/fine-tuning/datasets", "/v1/fine_tuning/jobs"
COSTS, FILES, KEYS = "/v1/fine-tuning/costs", "/v1/files", "/v1/api-keys"
BATCHES = "/v1/fine-tuning/batches"
NOT_DONE: dict[str, int] = {
    f"POST {PAIR}/vote": 404,
    f"POST {ONE}/vote": 404,
    # No place for datasets and files, and no database of ratings to read.
    **{operation: 400 for operation in DOCUMENT if FILES in operation},
    **{
        operation: 409
        for operation in DOCUMENT
        if DATASETS in operation or operation.startswith("POST /api/training/export/")
    },
}
"""What is answered to who may, where there is nothing of it here; all else is done."""
ROLES: dict[str, User | None] = {
    "anonymous": None,
    "api token": None,
    "nobody": User("nobody"),
    "viewer": User("viewer", VIEW),
    "voter": User("voter", {("create", "abtests/votes")}),
    "voter of finetune": User("local-voter", {("create", "abtests/votes")}, {"finetune"}),
    "trainer": User("trainer", {("create", "finetunejobs")}),
    "editor": User("editor", EDIT),
    "editor of finetune": User("local-editor", EDIT, {"finetune"}),
    "admin of other": User("other-admin", EDIT, {"other"}),
    "maker of tokens": User("maker", accounts={f"{namespace}/robot" for namespace in NAMESPACES}),
    "maker of tokens of finetune": User("local-maker", accounts={"finetune/robot"}),
}
"""None of the first two has a user; the others' rights hold in all namespaces, or in those that are said."""


def may(role: str, required: RequiredRights, namespace: str) -> bool:
    """What the request must come to, by the role's rules and those of the document alone."""
    user = ROLES[role]
    if user is None:
        return role == "api token" and required.by_api_token
    places = (namespace,) if required.where == "Namespace" else NAMESPACES
    granted = [all(_grants(user, rule, place) for rule in required.rules) for place in places]
    return any(granted) if required.where == "AnyNamespace" else all(granted)


def _grants(user: User, rule: Rule, place: str) -> bool:
    if rule.resources == ("serviceaccounts/token",):
        # Of one account, as `resourceNames` would say: each namespace has one.
        return f"{place}/robot" in user.accounts
    return all(user.may(verb, resource, place) for verb in rule.verbs for resource in rule.resources)


def headers_of(role: str) -> dict[str, str]:
    if (user := ROLES[role]) is not None:
        return {"Authorization": f"Bearer {user.name}"}
    return {"Authorization": "Bearer public-token"} if role == "api token" else {}


def furnish(rest: Rest, operation: str) -> None:
    """The same in both namespaces, anew for each request."""
    rest.cluster.objects.clear()
    batch = batch_object({"suspend": operation.endswith("/resume")}, name="answers")
    job = job_object({"suspend": operation.endswith(("/resume", "/start"))}, name="plato-1")
    for namespace in NAMESPACES:
        for plural, body in (
            ("finetunejobs", job),
            ("modelversions", version_object(1)),
            ("modelversions", version_object(2, status=ACTIVE)),
            ("batchinferences", batch),
            ("abtests", abtest_object({"prompts": ["What is time?"]}, name="v1-v2")),
        ):
            metadata = body["metadata"] | {"namespace": namespace, "uid": f"{namespace}-{body['metadata']['name']}"}
            rest.cluster.put(plural, body | {"metadata": metadata})


KEY_IDS = {"finetune": PATH_EXAMPLES["key_id"], "other": "1" * 16}


async def furnish_keys(rest: Rest) -> None:
    """A ServiceAccount in each namespace that keys may stand for, and a key of each."""
    for namespace, identity in KEY_IDS.items():
        rest.cluster.accounts[f"{namespace}/robot"] = User(f"system:serviceaccount:{namespace}:robot")
        rest.cluster.users[OWN_TOKEN].accounts.add(f"{namespace}/robot")
        account = Account(namespace, "robot")
        key = KeyRecord(identity, "", "", account, "ada", NOON, NOON + timedelta(days=1))
        await api_keys.add(rest.services.engine, key)


def body_of(operation: str, role: str, namespace: str) -> Any:
    body = BODIES.get(operation)
    if operation in {f"POST {path}" for path in (JOBS, TRAINING, OPENAI, TESTS, KEYS, BATCHES)}:
        body = (body or FLAT_JOB) | {"namespace": namespace}
    if operation in {f"POST {path}" for path in COMPLETION_PATHS}:
        return {"model": f"{namespace}/plato-v2"}
    if body is not None and role != "api token":
        return {name: value for name, value in body.items() if name != "evaluator"}
    return body


def path_of(operation: str, namespace: str) -> str:
    path = operation.split()[1].format(
        **{name: value.replace("finetune.", f"{namespace}.") for name, value in PATH_EXAMPLES.items()}
        | {"namespace": namespace, "key_id": KEY_IDS[namespace]}
    )
    if operation == f"GET {COSTS}/roi":
        return f"{path}?version={namespace}.plato-v2"
    lists = (
        f"GET {COSTS}",
        f"GET {COSTS}/jobs",
        f"GET {COSTS}/models",
        f"GET {JOBS}",
        f"GET {TRAINING}",
        f"GET {MODELS}",
        f"GET {TESTS}",
        f"GET {BATCHES}",
        "GET /v1/fine-tuning/comparisons",
        f"POST {FILES}",
    )
    return f"{path}?namespace={namespace}" if operation in lists else path


class TestEveryOperation:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        robots = ",".join(f"{namespace}/robot" for namespace in NAMESPACES)
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": ",".join(NAMESPACES), "FINETUNE_API_KEY_ACCOUNTS": robots}

    @pytest.mark.parametrize("operation", DOCUMENT)
    async def test_by_every_role_on_every_namespace(self, rest: Rest, operation: str) -> None:
        rest.cluster.users |= {user.name: user for user in ROLES.values() if user is not None}
        rest.cluster.now = rest.services.now
        await furnish_keys(rest)
        wrong = []
        for role in ROLES:
            for namespace in NAMESPACES:
                furnish(rest, operation)
                before = dict(rest.cluster.objects)
                path = path_of(operation, namespace)
                body = body_of(operation, role, namespace)
                response = await rest.ask(operation.split()[0], path, body, headers_of(role))
                refused = response.status_code in (401, 403)
                if refused == may(role, REQUIRED[operation], namespace):
                    wrong.append(f"{role} on {namespace}: {response.status_code} {response.text[:200]}")
                assert response.status_code < 500, response.text
                assert response.status_code == 401 or role != "anonymous"
                if refused:
                    assert rest.cluster.objects == before, "refused, and changed all the same"
                elif response.status_code >= 400 and response.status_code != NOT_DONE.get(operation):
                    wrong.append(f"{role} on {namespace} may, and: {response.status_code} {response.text[:200]}")
        assert not wrong, "\n".join(wrong)


async def test_what_is_refused_is_documented(rest: Rest) -> None:
    for path, methods in rest.app.openapi()["paths"].items():
        for method, operation in methods.items():
            invalid = "400" if is_spoken(path) else "422"
            assert {"401", invalid, "503"} <= operation["responses"].keys(), f"{method} {path}"
            assert operation["summary"]
            required = REQUIRED[f"{method.upper()} {path}"]
            assert required.rules == () or "403" in operation["responses"], f"{method} {path}"


@pytest.mark.parametrize("operation", DOCUMENT)
def test_every_operation_says_what_it_asks_for(operation: str) -> None:
    """In words, too: a person reads no extension."""
    required = REQUIRED[operation]
    for each in required.rules:
        assert f"`{each.resources[0]}`" in DOCUMENT[operation]["description"]


async def test_nothing_is_asked_for_that_the_document_does_not_say() -> None:
    required = RequiredRights(rules=(rule("finetunejobs", "get"),), optional=(rule("abtests", "list"),))
    for right in (Right("get", "finetunejobs"), Right("list", "abtests")):
        require_declared(required, right)
    for right in (Right("patch", "finetunejobs"), Right("get", "abtests"), Right("get", "finetunejobs", group="")):
        with pytest.raises(UndeclaredRight, match="x-required-rights"):
            require_declared(required, right)
    nothing: Any = None
    with pytest.raises(UndeclaredRight):
        await Declared(nothing, required).merge_patch("finetunejobs", "finetune", "plato", {})
    require_declared(None, Right("delete", "finetunejobs"))
