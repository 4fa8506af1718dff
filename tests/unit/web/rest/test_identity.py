"""Whose token it is, and what RBAC lets them do with what is in the database."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from finetune_operator.core.request_ids import signed_request_id
from finetune_operator.kube.errors import KubeError, Unavailable
from finetune_operator.kube.reviews import ANONYMOUS
from finetune_operator.web.identity import (
    CACHE_MAX_ENTRIES,
    CACHE_SECONDS,
    MAX_REVIEWS,
    VOTE,
    Decision,
    Identity,
)
from finetune_operator.web.ids import ObjectId, WrongId, parse_id
from tests.unit.web.conftest import ENVIRONMENT, INTERNAL
from tests.unit.web.rest.conftest import API_TOKEN, EDITOR, NOBODY, READER, STRANGER, Rest
from tests.unit.web.rest.played_api_server import User
from tests.unit.web.test_access import is_problem

TEST = "/v1/fine-tuning/ab-test/finetune/v1-v2"
ADA = {"evaluator": "ada"}


class Reviews:
    """An API server that only reviews; each question is counted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.name = "ada"
        self.failing: KubeError | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    def on_behalf_of(self, token: str, field_manager: str) -> Any:
        outer = self

        class Creator:
            async def create(self, plural: str, namespace: str | None, body: Any) -> dict[str, Any]:
                outer.asked.append((token, plural))
                await outer.answering.wait()
                if outer.failing:
                    raise outer.failing
                return {"status": {"userInfo": {"username": outer.name}, "allowed": True, "reason": "by a Role"}}

        return Creator()


@pytest.fixture
def time() -> list[float]:
    return [100.0]


@pytest.fixture
def reviews() -> Reviews:
    return Reviews()


@pytest.fixture
def identity(reviews: Reviews, time: list[float]) -> Identity:
    return Identity(reviews, lambda: time[0])


async def test_an_answer_is_kept_for_ten_seconds(identity: Identity, reviews: Reviews, time: list[float]) -> None:
    token = SecretStr("t")
    for _ in range(3):
        assert await identity.name_of(token) == "ada"
        assert await identity.decision(token, VOTE, "finetune") == Decision(True, "by a Role")
    assert len(reviews.asked) == 2
    time[0] += CACHE_SECONDS
    await identity.name_of(token)
    assert len(reviews.asked) == 3


async def test_each_token_right_and_namespace_is_asked_for(identity: Identity, reviews: Reviews) -> None:
    for token, namespace in (("t", "a"), ("t", "b"), ("u", "a"), ("t", None)):
        await identity.decision(SecretStr(token), VOTE, namespace)
    assert len(reviews.asked) == 4


async def test_a_failure_is_asked_for_anew(identity: Identity, reviews: Reviews) -> None:
    reviews.failing = Unavailable("away")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await identity.name_of(SecretStr("t"))
    reviews.failing = None
    assert await identity.name_of(SecretStr("t")) == "ada"


async def test_an_unknown_token_is_remembered(identity: Identity, reviews: Reviews, time: list[float]) -> None:
    reviews.failing = Unavailable("Unauthorized", 401)
    for _ in range(3):
        with pytest.raises(KubeError) as caught:
            await identity.name_of(SecretStr("t"))
        assert caught.value.status == 401
    assert len(reviews.asked) == 1
    reviews.failing = None
    time[0] += CACHE_SECONDS
    assert await identity.name_of(SecretStr("t")) == "ada"


async def test_equal_questions_at_the_same_time_are_one(identity: Identity, reviews: Reviews) -> None:
    reviews.answering.clear()
    asking = [asyncio.create_task(identity.name_of(SecretStr("t"))) for _ in range(5)]
    await asyncio.sleep(0)
    asking.pop(0).cancel()
    await asyncio.sleep(0)
    reviews.answering.set()
    assert await asyncio.gather(*asking) == ["ada"] * 4
    assert len(reviews.asked) == 1


async def test_only_so_many_questions_are_asked_at_once(identity: Identity, reviews: Reviews) -> None:
    reviews.answering.clear()
    asking = [asyncio.create_task(identity.name_of(SecretStr(f"t-{number}"))) for number in range(MAX_REVIEWS)]
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable) as caught:
        await identity.name_of(SecretStr("one more"))
    assert caught.value.retry_after_seconds
    reviews.answering.set()
    await asyncio.gather(*asking)
    assert await identity.name_of(SecretStr("one more")) == "ada"


async def test_the_internal_token_goes_nowhere(rest: Rest) -> None:
    assert is_problem(await rest.get(TEST, INTERNAL), 401, "unauthorized")
    assert rest.cluster.strangers == 0
    await rest.get(TEST, STRANGER)
    assert rest.cluster.strangers == 1


async def test_who_is_anonymous_to_kubernetes_is_nobody(identity: Identity, reviews: Reviews) -> None:
    reviews.name = ANONYMOUS
    with pytest.raises(KubeError) as caught:
        await identity.name_of(SecretStr("t"))
    assert caught.value.status == 401


async def test_few_answers_are_kept_and_no_token(identity: Identity) -> None:
    for number in range(CACHE_MAX_ENTRIES + 10):
        await identity.name_of(SecretStr(f"secret-{number}"))
    assert len(identity._kept) == CACHE_MAX_ENTRIES
    assert "secret" not in repr(identity._kept)


IDS: dict[str, tuple[str, tuple[str, ...], ObjectId | str]] = {
    "qualified": ("team-a.plato-1", (), ObjectId("team-a", "plato-1")),
    "a dot in the name": ("team-a.plato.1", ("other",), ObjectId("team-a", "plato.1")),
    "bare where one namespace is served": ("plato-1", ("team-a",), ObjectId("team-a", "plato-1")),
    "bare where several are": ("plato-1", ("team-a", "team-b"), "write <namespace>.plato-1"),
    "bare where all are": ("plato-1", (), "write <namespace>.plato-1"),
    "upper case": ("team-a.Plato", (), "is no id"),
    "a slash": ("team-a.a/b", (), "is no id"),
    "no name": ("team-a.", (), "is no id"),
    "empty": ("", ("team-a",), "is no id"),
}


@pytest.mark.parametrize("case", IDS)
def test_ids(case: str) -> None:
    text, namespaces, expected = IDS[case]
    if isinstance(expected, str):
        with pytest.raises(WrongId, match=expected):
            parse_id(text, namespaces)
    else:
        assert parse_id(text, namespaces) == expected
        assert parse_id(str(expected), ()) == expected


async def test_a_reader_sees_tests_and_may_not_judge(rest: Rest) -> None:
    assert (await rest.get(TEST, READER)).status_code == 200
    response = await rest.post(f"{TEST}/comparisons", ADA, READER)
    assert is_problem(response, 403, "forbidden")
    assert "`create` on abtests/votes" in response.json()["detail"]


async def test_who_may_vote_needs_no_right_to_read(rest: Rest) -> None:
    rest.cluster.users["voter"] = User("voter", {("create", "abtests/votes")}, {"finetune"})
    voter = {"Authorization": "Bearer voter"}
    assert is_problem(await rest.get(TEST, voter), 403, "forbidden")
    compared = (await rest.post(f"{TEST}/comparisons", {}, voter)).json()
    vote = {"comparison_id": compared["comparison_id"], "vote": "tie"}
    assert (await rest.post(f"{TEST}/vote", vote, voter)).status_code == 200


async def test_one_token_is_one_evaluator(rest: Rest) -> None:
    name = rest.cluster.users["editor"].name
    compared = (await rest.post(f"{TEST}/comparisons", {})).json()
    assert (await rest.post(f"{TEST}/comparisons", {"evaluator": name})).json() == compared
    vote = {"comparison_id": compared["comparison_id"], "vote": "tie"}
    for path, body in (("comparisons", ADA), ("vote", vote | ADA)):
        response = await rest.post(f"{TEST}/{path}", body)
        assert is_problem(response, 403, "foreign-evaluator")
        assert name in response.json()["detail"]
    assert (await rest.post(f"{TEST}/vote", vote | {"evaluator": name})).status_code == 200
    voters = (await rest.get(f"{TEST}/voters", READER)).json()["voters"]
    assert [voter["evaluator"] for voter in voters] == [name]


async def test_who_has_the_apis_token_says_who_judges(rest: Rest) -> None:
    assert (await rest.post(f"{TEST}/comparisons", ADA, API_TOKEN)).status_code == 200
    for path, body in (("comparisons", {}), ("vote", {"comparison_id": "0", "vote": "tie"})):
        response = await rest.post(f"{TEST}/{path}", body, API_TOKEN)
        assert response.status_code in (404, 422), response.text
        assert path == "vote" or "say who judges" in response.json()["detail"]


async def test_a_user_that_no_evaluator_can_be_called_by_is_a_digest(rest: Rest) -> None:
    for number in range(2):
        rest.cluster.users[f"long-{number}"] = User("x" * 300 + str(number), {("create", "abtests/votes")})
        response = await rest.post(f"{TEST}/comparisons", {}, {"Authorization": f"Bearer long-{number}"})
        assert response.status_code == 200, response.text
    listed = (await rest.get("/v1/fine-tuning/comparisons", READER)).json()["comparisons"]
    assert len({entry["evaluator"] for entry in listed}) == 2
    assert all(entry["evaluator"].startswith("sha256:") for entry in listed)


REFUSED: dict[str, tuple[str, str, dict[str, str], int]] = {
    "a stranger": ("GET", TEST, STRANGER, 401),
    "a stranger to what is nobody's": ("GET", "/api/training/formats", STRANGER, 401),
    "a test": ("GET", TEST, NOBODY, 403),
    "comparisons": ("GET", "/v1/fine-tuning/comparisons", NOBODY, 403),
    "comparisons of a namespace": ("GET", "/v1/fine-tuning/comparisons?namespace=finetune", NOBODY, 403),
    "evaluations": ("GET", "/v1/fine-tuning/model-versions/finetune/plato-v2/evaluations", NOBODY, 403),
    "ratings, by who may not train": ("GET", "/v1/fine-tuning/datasets", READER, 403),
    "statistics of ratings": ("GET", "/api/training/stats", READER, 403),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_rbac_decides_on_what_is_in_the_database(rest: Rest, case: str) -> None:
    method, path, caller, status = REFUSED[case]
    assert is_problem(
        await rest.ask(method, path, None, caller), status, {401: "unauthorized", 403: "forbidden"}[status]
    )


ALLOWED = {
    "comparisons": ("/v1/fine-tuning/comparisons", READER),
    "comparisons of a namespace": ("/v1/fine-tuning/comparisons?namespace=finetune", READER),
    "evaluations": ("/v1/fine-tuning/model-versions/finetune/plato-v2/evaluations", READER),
    "a series that nobody has": ("/v1/fine-tuning/jobs/00000000-0000-4000-8000-000000000009/progress", READER),
    "statistics, by who may train": ("/api/training/stats", EDITOR),
    "formats": ("/api/training/formats", NOBODY),
    "the catalogue of base models": ("/v1/fine-tuning/base-models", NOBODY),
    "a test, by the api's token": (TEST, API_TOKEN),
}


@pytest.mark.parametrize("case", ALLOWED)
async def test_who_may_read(rest: Rest, case: str) -> None:
    path, caller = ALLOWED[case]
    response = await rest.get(path, caller)
    assert response.status_code == 200, response.text


class TestTwoNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune,other"}

    async def test_comparisons_are_of_what_the_caller_may_read(self, rest: Rest) -> None:
        await rest.post(f"{TEST}/comparisons", {})
        for namespace, count in (("finetune", 1), ("other", 0)):
            rest.cluster.users[namespace] = User(namespace, {("get", "abtests")}, {namespace})
            listed = await rest.get("/v1/fine-tuning/comparisons", {"Authorization": f"Bearer {namespace}"})
            assert len(listed.json()["comparisons"]) == count

    async def test_ratings_are_of_all_namespaces(self, rest: Rest) -> None:
        rest.cluster.users["half"] = User("half", {("create", "finetunejobs")}, {"finetune"})
        response = await rest.get("/api/training/stats", {"Authorization": "Bearer half"})
        assert is_problem(response, 403, "forbidden")
        assert "in namespace other" in response.json()["detail"]

    async def test_an_answer_is_judged_where_its_version_is(self, rest: Rest) -> None:
        rest.cluster.users["half"] = User("half", {("create", "abtests/votes")}, {"finetune"})
        rest.cluster.users["other"] = User("other", {("create", "abtests/votes")}, {"other"})
        key = rest.services.settings.internal_token.get_secret_value()
        of_version, of_none = signed_request_id("r", "plato-v2-uid", key), signed_request_id("r", "gone-uid", key)
        texts = {"prompt": "What is justice?", "response": "Each does his own work."}
        for user, request_id, more, status in (
            ("half", of_version, {}, 200),
            ("half", of_version, {"texts": texts}, 403),
            ("half", of_none, {}, 403),
            ("half", "of-nobody", {}, 403),
            ("other", of_version, {}, 403),
        ):
            body = {"request_id": request_id, "thumbs": "up"} | more
            response = await rest.post("/v1/fine-tuning/feedback", body, {"Authorization": f"Bearer {user}"})
            assert response.status_code == status, response.text


async def test_an_api_server_that_is_away_is_told_with_when_to_ask_again(rest: Rest) -> None:
    rest.cluster.away = True
    for caller in (READER, API_TOKEN):
        response = await rest.get(TEST, caller)
        assert is_problem(response, 503, "cluster-unavailable")
        assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("token", ["two words", 'quo"te', "x" * 20_000, "umlaut-\u00e4"])
async def test_what_is_no_token_is_shown_to_nobody(rest: Rest, token: str) -> None:
    headers = {b"authorization": b"Bearer " + token.encode("latin-1")}
    response = await rest.client.get(TEST, headers=headers)
    assert is_problem(response, 401, "unauthorized")
    assert rest.cluster.requests == []


async def test_no_token_reaches_the_log(rest: Rest, capsys: pytest.CaptureFixture[str]) -> None:
    secret = {"Authorization": "Bearer very-secret"}
    await rest.get(TEST, secret)
    rest.cluster.away = True
    await rest.get(TEST, secret)
    assert "very-secret" not in "".join(capsys.readouterr())


class TestOpen:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        open_to_all = {"FINETUNE_API_OPEN": "true", "FINETUNE_API_TOKEN": ""}
        return ENVIRONMENT | open_to_all | {"FINETUNE_NAMESPACES": "finetune"}

    async def test_a_token_that_is_shown_is_judged(self, rest: Rest) -> None:
        assert (await rest.get(TEST, {})).status_code == 200
        assert (await rest.get(TEST, READER)).status_code == 200
        assert is_problem(await rest.get(TEST, STRANGER), 401, "unauthorized")

    async def test_ratings_are_given_to_who_may_train(self, rest: Rest) -> None:
        assert is_problem(await rest.get("/api/training/stats", {}), 403, "open-api")
        assert (await rest.get("/api/training/stats", EDITOR)).status_code == 200
