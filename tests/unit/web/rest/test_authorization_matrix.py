"""Every operation of the OpenAPI document, by every role, on every namespace: RBAC alone says who is refused.

What is not refused is done. An operation that has no row here fails, so that none is added without saying which rights
it wants.
"""

from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import Account, KeyRecord
from finetune_operator.web.openai_api.errors import is_spoken
from tests.builders import abtest_object, batch_object, job_object, version_object
from tests.unit.web.conftest import ENVIRONMENT, NOON
from tests.unit.web.rest.conftest import Rest
from tests.unit.web.rest.example_requests import ACTIVE, BODIES, FLAT_JOB
from tests.unit.web.rest.played_api_server import EDIT, OWN_TOKEN, VIEW, User
from tests.unit.web.test_access import PATH_EXAMPLES, public_routes

NAMESPACES = ("finetune", "other")
Rights = frozenset[tuple[str, str]]


def rights(resource: str, *verbs: str) -> Rights:
    return frozenset((verb, resource) for verb in verbs)


class Needs(NamedTuple):
    """What an operation asks of RBAC."""

    rights: Rights = frozenset()
    where: str = "there"
    """In the namespace that the request names (`there`), in `any` that is served, or in `all` of them."""
    api_token: bool = True
    """Whether the api's one token is enough, which has no user and no rights of its own to lend."""
    tokens: bool = False
    """Whether it asks for the right to make tokens for the ServiceAccount `robot` of the namespace."""


READ_JOB = Needs(rights("finetunejobs", "get"), api_token=False)
LIST_JOBS = Needs(rights("finetunejobs", "list"), api_token=False)
MAKE_JOB = Needs(rights("finetunejobs", "create"), api_token=False)
CHANGE_JOB = Needs(rights("finetunejobs", "get", "patch"), api_token=False)
DELETE_JOB = Needs(rights("finetunejobs", "get", "delete"), api_token=False)
READ_VERSION = Needs(rights("modelversions", "get"))
READ_FAMILY = Needs(rights("modelversions", "get", "list"))
LIST_VERSIONS = Needs(rights("modelversions", "list"))
CHANGE_VERSION = Needs(rights("modelversions", "get", "list", "patch"), api_token=False)
READ_TEST = Needs(rights("abtests", "get"))
LIST_TESTS = Needs(rights("abtests", "list"))
MAKE_TEST = Needs(rights("abtests", "create"), api_token=False)
VOTE = Needs(rights("abtests/votes", "create"))
VOTE_EVERYWHERE = VOTE._replace(where="all")
RATINGS = Needs(rights("finetunejobs", "create"), "all")
TRAIN_THERE = Needs(rights("finetunejobs", "create"))
MAKE_TOKENS = Needs(api_token=False, tokens=True)
ANYBODY_KNOWN = Needs()

READ_BATCH = Needs(rights("batchinferences", "get"), api_token=False)
CHANGE_BATCH = Needs(rights("batchinferences", "get", "patch"), api_token=False)

TESTS, MODELS, JOBS = "/v1/fine-tuning/ab-test", "/v1/fine-tuning/models", "/v1/fine-tuning/jobs"
PAIR, ONE = f"{TESTS}/{{namespace}}/{{name}}", f"{TESTS}/{{test_id}}"
TRAINING, DATASETS, OPENAI = "/api/training/jobs", "/v1/fine-tuning/datasets", "/v1/fine_tuning/jobs"
COSTS, FILES, KEYS = "/v1/fine-tuning/costs", "/v1/files", "/v1/api-keys"
BATCHES = "/v1/fine-tuning/batches"
ONE_BATCH = f"{BATCHES}/{{batch_id}}"
THEIRS = f"{OPENAI}/{{fine_tuning_job_id}}"
MATRIX: dict[str, Needs] = {
    f"GET {JOBS}": LIST_JOBS,
    f"POST {JOBS}": MAKE_JOB,
    f"GET {JOBS}/{{job_id}}": READ_JOB,
    f"DELETE {JOBS}/{{job_id}}": DELETE_JOB,
    f"GET {JOBS}/{{job_id}}/events": READ_JOB,
    f"GET {JOBS}/{{job_id}}/logs": READ_JOB,
    f"POST {JOBS}/{{job_id}}/cancel": CHANGE_JOB,
    f"POST {JOBS}/{{job_id}}/suspend": CHANGE_JOB,
    f"POST {JOBS}/{{job_id}}/resume": CHANGE_JOB,
    # A series that nobody has is told to anybody: it is empty.
    f"GET {JOBS}/{{uid}}/progress": ANYBODY_KNOWN,
    f"GET {TRAINING}": LIST_JOBS,
    f"POST {TRAINING}": MAKE_JOB,
    f"GET {TRAINING}/{{job_id}}": READ_JOB,
    f"DELETE {TRAINING}/{{job_id}}": DELETE_JOB,
    f"GET {TRAINING}/{{job_id}}/metrics": READ_JOB,
    f"GET {TRAINING}/{{job_id}}/artifacts": READ_JOB,
    f"POST {TRAINING}/{{job_id}}/start": CHANGE_JOB,
    f"POST {TRAINING}/{{job_id}}/cancel": CHANGE_JOB,
    f"GET {OPENAI}": LIST_JOBS._replace(where="any"),
    f"POST {OPENAI}": MAKE_JOB,
    f"GET {THEIRS}": READ_JOB,
    f"GET {THEIRS}/events": READ_JOB,
    f"GET {THEIRS}/checkpoints": READ_JOB,
    f"POST {THEIRS}/cancel": CHANGE_JOB,
    f"POST {THEIRS}/pause": CHANGE_JOB,
    f"POST {THEIRS}/resume": CHANGE_JOB,
    "GET /v1/models": LIST_VERSIONS._replace(where="any"),
    f"GET {MODELS}": LIST_VERSIONS,
    f"GET {MODELS}/{{model_id}}": READ_FAMILY,
    f"POST {MODELS}/{{model_id}}/deploy": CHANGE_VERSION,
    f"POST {MODELS}/{{model_id}}/rollback": CHANGE_VERSION,
    "GET /v1/fine-tuning/model-versions/{namespace}/{name}/evaluations": READ_VERSION,
    f"GET {TESTS}": LIST_TESTS,
    f"POST {TESTS}": MAKE_TEST,
    f"GET {ONE}": READ_TEST,
    f"GET {PAIR}": READ_TEST,
    f"GET {ONE}/comparisons": READ_TEST,
    f"GET {ONE}/voters": READ_TEST,
    f"GET {PAIR}/voters": READ_TEST,
    f"GET {ONE}/win-rates": READ_TEST,
    f"GET {PAIR}/win-rates": READ_TEST,
    "GET /v1/fine-tuning/comparisons": READ_TEST,
    f"POST {ONE}/cancel": Needs(rights("abtests", "get", "patch"), api_token=False),
    f"POST {ONE}/comparisons": VOTE,
    f"POST {PAIR}/comparisons": VOTE,
    f"POST {ONE}/vote": VOTE,
    f"POST {PAIR}/vote": VOTE,
    "POST /v1/fine-tuning/feedback": VOTE_EVERYWHERE,
    f"GET {BATCHES}": Needs(rights("batchinferences", "list"), api_token=False),
    f"POST {BATCHES}": Needs(rights("batchinferences", "create"), api_token=False),
    f"GET {ONE_BATCH}": READ_BATCH,
    f"GET {ONE_BATCH}/answers": READ_BATCH,
    f"POST {ONE_BATCH}/cancel": CHANGE_BATCH,
    f"POST {ONE_BATCH}/suspend": CHANGE_BATCH,
    f"POST {ONE_BATCH}/resume": CHANGE_BATCH,
    f"DELETE {ONE_BATCH}": Needs(rights("batchinferences", "get", "delete"), api_token=False),
    f"GET {DATASETS}": RATINGS,
    f"POST {DATASETS}/export": RATINGS,
    f"POST {DATASETS}/statistics": RATINGS,
    f"GET {DATASETS}/{{dataset_id}}": RATINGS,
    f"DELETE {DATASETS}/{{dataset_id}}": RATINGS,
    f"GET {DATASETS}/{{dataset_id}}/rows": RATINGS,
    f"GET {DATASETS}/{{dataset_id}}/files/{{file}}": RATINGS,
    "POST /api/training/export/sft": RATINGS,
    "POST /api/training/export/dpo": RATINGS,
    "POST /api/training/export/gauntlet": RATINGS,
    "GET /api/training/stats": RATINGS,
    "GET /api/training/formats": ANYBODY_KNOWN,
    f"PUT {JOBS}/{{job_id}}/budget": CHANGE_JOB,
    f"GET {COSTS}": LIST_JOBS,
    f"GET {COSTS}/jobs": LIST_JOBS,
    f"GET {COSTS}/models": LIST_VERSIONS,
    f"GET {COSTS}/roi": READ_VERSION,
    f"POST {FILES}": TRAIN_THERE,
    f"GET {FILES}": TRAIN_THERE._replace(where="any"),
    f"GET {FILES}/{{file_id}}": TRAIN_THERE,
    f"GET {FILES}/{{file_id}}/content": TRAIN_THERE,
    f"DELETE {FILES}/{{file_id}}": TRAIN_THERE,
    f"POST {KEYS}": MAKE_TOKENS,
    f"GET {KEYS}": MAKE_TOKENS._replace(where="any"),
    f"DELETE {KEYS}/{{key_id}}": MAKE_TOKENS,
}
NOT_DONE: dict[str, int] = {
    f"POST {PAIR}/vote": 404,
    f"POST {ONE}/vote": 404,
    # No place for datasets and files, and no database of ratings to read.
    **{operation: 400 for operation in MATRIX if FILES in operation},
    **{
        operation: 409
        for operation in MATRIX
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


def may(role: str, needs: Needs, namespace: str) -> bool:
    """What the request must come to."""
    user = ROLES[role]
    if user is None:
        return role == "api token" and needs.api_token
    places = {"there": (namespace,), "any": NAMESPACES, "all": NAMESPACES}[needs.where]
    granted = [
        all(user.may(verb, resource, place) for verb, resource in needs.rights)
        and (not needs.tokens or f"{place}/robot" in user.accounts)
        for place in places
    ]
    return any(granted) if needs.where == "any" else all(granted)


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

    @pytest.mark.parametrize("operation", MATRIX)
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
                if refused == may(role, MATRIX[operation], namespace):
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
            needs = MATRIX[f"{method.upper()} {path}"]
            assert needs == ANYBODY_KNOWN or "403" in operation["responses"], f"{method} {path}"


def test_every_operation_is_in_the_matrix() -> None:
    known = {(operation.split()[0], operation.split()[1].format(**PATH_EXAMPLES)) for operation in MATRIX}
    assert known == set(public_routes())
