"""Trainings over REST: each is a FineTuneJob, made and changed by who asks."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from finetune_operator.contract.training import Progress
from finetune_operator.kube import client
from finetune_operator.store import progress
from finetune_operator.web import lists
from finetune_operator.web.acting import JOBS as ACTING_JOBS
from finetune_operator.web.acting import Acting
from finetune_operator.web.auth import Caller
from finetune_operator.web.problems import Problem
from tests.builders import condition, job_object
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.rest.conftest import API_TOKEN, EDITOR, READER, Rest
from tests.unit.web.rest.played_api_server import EDIT, VIEW, User
from tests.unit.web.test_access import is_problem
from tests.unit.web.test_internal import point

JOBS = "/v1/fine-tuning/jobs"
CANDIDATE = {"candidate": "plato-v2"}
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
FLAT = {"model": "plato", "base_model": "volume://models/tiny"}


def put_job(rest: Rest, name: str = "plato-1", namespace: str = "finetune", **options: Any) -> None:
    body = job_object(name=name, **options)
    del body["metadata"]["creationTimestamp"]
    rest.cluster.put("finetunejobs", body | {"metadata": body["metadata"] | {"namespace": namespace}})


async def test_a_job_is_a_finetunejob(rest: Rest) -> None:
    response = await rest.post(JOBS, FLAT | {"num_epochs": 1})
    assert response.status_code == 201, response.text
    body = response.json()
    assert (body["id"], body["status"], body["phase"]) == ("finetune.plato-0badcafe", "queued", None)
    assert response.headers["location"] == f"{JOBS}/finetune.plato-0badcafe"
    stored = rest.cluster.objects["finetunejobs", "finetune", "plato-0badcafe"]
    assert body["manifest"] == {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "plato-0badcafe", "namespace": "finetune"},
        "spec": stored["spec"],
    }
    assert stored["spec"]["training"] == {"epochs": 1}
    assert rest.cluster.managers == {"system:serviceaccount:finetune:editor (finetune-api)"}
    assert rest.cluster.writes() == [
        (
            "system:serviceaccount:finetune:editor",
            "POST",
            "/apis/finetune.dev/v1alpha1/namespaces/finetune/finetunejobs",
        )
    ]
    assert (await rest.get(f"{JOBS}/{body['id']}", READER)).json() == body


async def test_the_same_spec_is_the_same_manifest(rest: Rest) -> None:
    flat = (await rest.post(JOBS, FLAT | {"name": "flat"})).json()["manifest"]
    spec = (await rest.post(JOBS, {"name": "whole", "spec": flat["spec"]})).json()["manifest"]
    assert spec["spec"] == flat["spec"]


class TestIdempotency:
    async def test_the_same_key_and_body_is_the_same_job(self, rest: Rest) -> None:
        first = await rest.post(JOBS, FLAT, idempotency_key="k1")
        again = await rest.post(JOBS, dict(reversed(FLAT.items())), idempotency_key="k1")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert len(rest.cluster.names("finetunejobs")) == 1
        assert "annotations" not in first.json()["manifest"]["metadata"]

    async def test_another_body_is_a_conflict(self, rest: Rest) -> None:
        await rest.post(JOBS, FLAT, idempotency_key="k1")
        response = await rest.post(JOBS, FLAT | {"model": "kant"}, idempotency_key="k1")
        assert is_problem(response, 409, "idempotency-key-reused")
        assert (await rest.post(JOBS, FLAT, idempotency_key="k2")).status_code == 201

    async def test_a_key_does_not_take_over_what_was_there(self, rest: Rest) -> None:
        name = (await rest.post(JOBS, FLAT, idempotency_key="k1")).json()["name"]
        await rest.cluster.remove("finetunejobs", "finetune", name)
        put_job(rest, name)
        response = await rest.post(JOBS, FLAT, idempotency_key="k1")
        assert is_problem(response, 409, "idempotency-key-reused")

    async def test_a_name_is_taken_once(self, rest: Rest) -> None:
        put_job(rest, "mine")
        assert is_problem(await rest.post(JOBS, FLAT | {"name": "mine"}), 409, "already-exists")

    async def test_a_key_makes_up_the_name(self, rest: Rest) -> None:
        for path, body in ((JOBS, FLAT), ("/api/training/jobs", FLAT), ("/v1/fine-tuning/ab-test", CANDIDATE)):
            response = await rest.post(path, body | {"name": "mine"}, idempotency_key="k1")
            assert is_problem(response, 422, "name-and-key")
        assert rest.cluster.writes() == []

    async def test_a_key_is_of_one_interface_and_one_caller(self, rest: Rest) -> None:
        rest.cluster.users["other"] = User("other", EDIT)
        openai = {"model": "volume://models/tiny", "training_file": "ratings"}
        for path, body, caller in (
            (JOBS, FLAT, EDITOR),
            (JOBS, FLAT, {"Authorization": "Bearer other"}),
            ("/api/training/jobs", FLAT, EDITOR),
            ("/v1/fine_tuning/jobs", openai, EDITOR),
        ):
            response = await rest.post(path, body, caller, idempotency_key="k1")
            assert response.status_code in (200, 201), response.text
        assert len(rest.cluster.names("finetunejobs")) == 4

    async def test_what_is_being_deleted_is_no_answer(self, rest: Rest) -> None:
        name = (await rest.post(JOBS, FLAT, idempotency_key="k1")).json()["name"]
        body = rest.cluster.objects["finetunejobs", "finetune", name]
        rest.cluster.put(
            "finetunejobs", body | {"metadata": body["metadata"] | {"deletionTimestamp": "2026-11-22T13:00:00Z"}}
        )
        assert is_problem(await rest.post(JOBS, FLAT, idempotency_key="k1"), 409, "being-deleted")

    @pytest.mark.parametrize("headers", [{}, {"idempotency_key": "k1"}])
    async def test_another_conflict_does_not_say_that_the_name_is_taken(
        self, rest: Rest, headers: dict[str, str]
    ) -> None:
        rest.cluster.refusing = (409, "Conflict", "Operation cannot be fulfilled on resourcequotas")
        response = await rest.post(JOBS, FLAT, **headers)
        assert is_problem(response, 503, "cluster-busy")
        assert response.headers["retry-after"]
        rest.cluster.refusing = None
        assert (await rest.post(JOBS, FLAT, **headers)).status_code == 201


async def test_what_was_made_anew_is_not_changed(rest: Rest) -> None:
    put_job(rest)
    old = rest.cluster.objects["finetunejobs", "finetune", "plato-1"]
    rest.cluster.put("finetunejobs", old | {"metadata": old["metadata"] | {"uid": "another"}})
    acting = Acting(rest.services, Caller("editor", SecretStr("editor")))
    with pytest.raises(Problem) as caught:
        await acting.change(ACTING_JOBS, old, {"cancel": True})
    assert (caught.value.status, caught.value.kind) == (409, "conflict")
    await rest.cluster.remove("finetunejobs", "finetune", "plato-1")
    with pytest.raises(Problem) as caught:
        await acting.change(ACTING_JOBS, old, {"cancel": True})
    assert caught.value.status == 404


async def test_what_refuses_beside_rbac_is_not_blamed_on_roles(rest: Rest) -> None:
    rest.cluster.refusing = (403, "Forbidden", 'admission webhook "policy" denied the request: no trainings on Sundays')
    response = await rest.post(JOBS, FLAT)
    assert is_problem(response, 403, "forbidden")
    assert "Sundays" in response.json()["detail"]
    assert "ClusterRole" not in response.json()["detail"]


async def test_who_has_no_token_of_kubernetes_is_refused_before_the_body_is_looked_at(rest: Rest) -> None:
    openai = {"model": "nowhere", "training_file": "ratings"}
    for path in (JOBS, "/api/training/jobs"):
        response = await rest.post(path, FLAT | {"base_model": "nowhere"}, API_TOKEN)
        assert is_problem(response, 403, "kubernetes-token-needed")
    assert (await rest.post("/v1/fine_tuning/jobs", openai, API_TOKEN)).status_code == 403


@pytest.mark.parametrize("path", [JOBS, "/api/training/jobs", "/v1/fine-tuning/models", "/v1/fine-tuning/ab-test"])
async def test_a_namespace_is_a_label(rest: Rest, path: str) -> None:
    for namespace in ("a/b", "..", "A", "x" * 64, "finetune?watch=true"):
        assert is_problem(await rest.get(path, namespace=namespace), 422, "invalid-request")
    assert rest.cluster.requests == [("system:serviceaccount:finetune:editor", "POST", REVIEWS)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown member": (FLAT | {"epochs": 1}, "body.epochs"),
    "an unknown field of the spec": ({"spec": {"model": "plato", "epochs": 1}}, 'unknown field "spec.epochs"'),
    "what the API server refuses": ({"spec": {"model": "plato"}}, "is invalid"),
    "what no job can be made of": (FLAT | {"base_model": "tiny"}, "base_model: write"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_says_what_to_change(rest: Rest, case: str) -> None:
    body, detail = REFUSED[case]
    response = await rest.post(JOBS, body)
    assert is_problem(response, 422, "invalid-request")
    assert detail in response.json()["detail"]
    assert rest.cluster.names("finetunejobs") == []


async def test_the_apis_token_changes_nothing(rest: Rest) -> None:
    put_job(rest)
    for method, path, body in (
        ("POST", JOBS, FLAT),
        ("POST", f"{JOBS}/plato-1/cancel", None),
        ("DELETE", f"{JOBS}/plato-1", None),
        ("GET", JOBS, None),
    ):
        response = await rest.ask(method, path, body, API_TOKEN)
        assert is_problem(response, 403, "kubernetes-token-needed")
        for word in ("kubectl create token", "`view`", "`edit`", "namespace finetune"):
            assert word in response.json()["detail"]
    assert rest.cluster.writes() == []


async def test_who_may_not_is_told_by_the_api_server(rest: Rest) -> None:
    put_job(rest)
    for method, path, body in (
        ("POST", JOBS, FLAT),
        ("POST", f"{JOBS}/plato-1/cancel", None),
        ("DELETE", f"{JOBS}/plato-1", None),
    ):
        response = await rest.ask(method, path, body, READER)
        assert is_problem(response, 403, "forbidden")
        assert 'User "system:serviceaccount:finetune:reader" cannot' in response.json()["detail"]


class TestChanges:
    async def test_cancel_is_for_good(self, rest: Rest) -> None:
        put_job(rest, status={"phase": "Training"})
        for _ in range(2):
            body = (await rest.post(f"{JOBS}/finetune.plato-1/cancel")).json()
            assert (body["cancelled"], body["manifest"]["spec"]["cancel"]) == (True, True)
        assert len(rest.cluster.writes()) == 1
        assert is_problem(await rest.post(f"{JOBS}/plato-1/resume"), 409, "cancelled")

    async def test_suspend_and_resume(self, rest: Rest) -> None:
        put_job(rest, status={"phase": "Training"})
        for path, suspended in (("suspend", True), ("suspend", True), ("resume", False), ("resume", False)):
            body = (await rest.post(f"{JOBS}/plato-1/{path}")).json()
            assert body["suspended"] is suspended
        assert len(rest.cluster.writes()) == 2

    @pytest.mark.parametrize("verb", ["cancel", "suspend", "resume"])
    async def test_what_has_ended_stays_as_it_is(self, rest: Rest, verb: str) -> None:
        put_job(rest, status={"phase": "Succeeded"})
        assert is_problem(await rest.post(f"{JOBS}/plato-1/{verb}"), 409, "finished")

    async def test_a_budget_is_shown_raised_and_taken_away(self, rest: Rest) -> None:
        stopped = condition("WithinBudget", "False", reason="BudgetExceeded", message="the budget of 1 USD is spent")
        status = {"phase": "Suspended", "conditions": [stopped]}
        put_job(rest, spec={"budget": {"maxCost": "1", "currency": "USD"}}, status=status)
        shown = (await rest.get(f"{JOBS}/plato-1")).json()
        message = "the budget of 1 USD is spent"
        assert shown["budget"] == {"max_cost": 1.0, "currency": "USD", "kept": False, "message": message}
        raised = (await rest.ask("PUT", f"{JOBS}/plato-1/budget", {"max_cost": "20.50"})).json()
        assert raised["manifest"]["spec"]["budget"] == {"maxCost": "20.5", "currency": "USD"}
        gone = (await rest.ask("PUT", f"{JOBS}/plato-1/budget", {"max_cost": None})).json()
        assert gone["budget"] is None

    async def test_a_budget_of_what_has_ended_can_not_be_changed(self, rest: Rest) -> None:
        put_job(rest, status={"phase": "Succeeded"})
        assert is_problem(await rest.ask("PUT", f"{JOBS}/plato-1/budget", {"max_cost": 2}), 409, "finished")

    async def test_delete(self, rest: Rest) -> None:
        put_job(rest)
        assert (await rest.ask("DELETE", f"{JOBS}/plato-1")).status_code == 204
        assert is_problem(await rest.ask("DELETE", f"{JOBS}/plato-1"), 404, "unknown-job")


STATUSES = {
    "Queued": "queued",
    "Pending": "queued",
    "Suspended": "queued",
    "Preparing": "preparing",
    "Training": "training",
    "Succeeded": "completed",
    "Failed": "failed",
    "Cancelled": "cancelled",
}


@pytest.mark.parametrize("phase", STATUSES)
async def test_the_life_of_a_job(rest: Rest, phase: str) -> None:
    put_job(rest, status={"phase": phase})
    body = (await rest.get(f"{JOBS}/plato-1")).json()
    assert (body["status"], body["phase"]) == (STATUSES[phase], phase)
    listed = (await rest.get(JOBS, status=STATUSES[phase])).json()
    assert [job["id"] for job in listed["jobs"]] == ["finetune.plato-1"]


async def test_numbers_are_numbers(rest: Rest) -> None:
    progress = {"percent": 67, "step": 402, "totalSteps": 600, "epoch": "2.0", "totalEpochs": "3.0", "loss": "0.234"}
    status = {
        "phase": "Training",
        "progress": progress | {"bestLoss": "nan", "etaSeconds": 1200},
        "cost": {"currency": "USD", "spent": "1.42"},
        "modelVersion": "plato-v3",
    }
    put_job(rest, status=status)
    body = (await rest.get(f"{JOBS}/plato-1")).json()
    shown = body["progress"]
    assert (shown["percent"], shown["epoch"], shown["loss"], shown["eta_seconds"]) == (67, 2.0, 0.234, 1200)
    assert shown["best_loss"] is None
    assert (body["cost"]["currency"], body["cost"]["spent"], body["cost"]["estimated"]) == ("USD", 1.42, None)
    assert body["model_version"] == "finetune.plato-v3"


NO_PRICE = condition("CostKnown", "False", reason="NoPrice", message="no price for cpu: set prices.perHour.cpu")
COSTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "known": (
        {"cost": {"currency": "USD", "spent": "1.42", "basis": "allocated time x 1 GPU"}},
        {"currency": "USD", "spent": 1.42, "basis": "allocated time x 1 GPU", "unknown": None},
    ),
    "without a price": (
        {"conditions": [NO_PRICE]},
        {"currency": None, "spent": None, "basis": None, "unknown": "no price for cpu: set prices.perHour.cpu"},
    ),
    "ended before it began": (
        {"phase": "Failed", "completionTime": "2026-11-22T12:00:00Z"},
        {"currency": None, "spent": None, "basis": None, "unknown": "it ended before any of its pods had a node"},
    ),
    "not seen yet": (
        {},
        {"currency": None, "spent": None, "basis": None, "unknown": "the operator has not counted it yet"},
    ),
}


@pytest.mark.parametrize(("status", "cost"), COSTS.values(), ids=COSTS.keys())
async def test_a_cost_has_its_basis_and_an_unknown_one_its_reason(
    rest: Rest, status: dict[str, Any], cost: dict[str, Any]
) -> None:
    put_job(rest, status=status)
    expected = cost | {"estimated": None}
    assert (await rest.get(f"{JOBS}/plato-1")).json()["cost"] == expected
    assert (await rest.get(JOBS)).json()["jobs"][0]["cost"] == expected


class TestList:
    async def test_pages(self, rest: Rest) -> None:
        for number in range(5):
            put_job(rest, f"plato-{number}", spec={"model": "plato" if number != 2 else "kant"})
        first = (await rest.get(JOBS, limit=2)).json()
        assert [job["name"] for job in first["jobs"]] == ["plato-4", "plato-3"]
        assert (first["total"], first["has_more"]) == (5, True)
        put_job(rest, "newer")
        last = (await rest.get(JOBS, limit=9, after=first["jobs"][-1]["id"])).json()
        assert [job["name"] for job in last["jobs"]] == ["plato-2", "plato-1", "plato-0"]
        assert last["has_more"] is False
        chosen = (await rest.get(JOBS, model="kant")).json()
        assert ([job["name"] for job in chosen["jobs"]], chosen["total"]) == (["plato-2"], 1)
        assert is_problem(await rest.get(JOBS, after="finetune.gone"), 422, "wrong-cursor")

    async def test_a_page_begins_where_the_last_one_ended_though_that_is_deleted(self, rest: Rest) -> None:
        for number in range(5):
            put_job(rest, f"plato-{number}")
        first = (await rest.get(JOBS, limit=2)).json()
        await rest.cluster.remove("finetunejobs", "finetune", "plato-3")
        second = (await rest.get(JOBS, limit=2, after=first["next"])).json()
        assert [job["name"] for job in second["jobs"]] == ["plato-2", "plato-1"]
        last = (await rest.get(JOBS, limit=2, after=second["next"])).json()
        assert ([job["name"] for job in last["jobs"]], last["next"]) == (["plato-0"], None)

    async def test_a_long_list_is_read_in_chunks(self, rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "CHUNK_OBJECTS", 2)
        for number in range(5):
            put_job(rest, f"plato-{number}")
        body = (await rest.get(JOBS, limit=3)).json()
        assert [job["name"] for job in body["jobs"]] == ["plato-4", "plato-3", "plato-2"]
        assert (body["total"], rest.cluster.lists) == (5, ["finetunejobs"] * 3)

    async def test_a_few_lists_at_a_time(self, rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lists, "WAIT_SECONDS", 0.05)
        async with AsyncExitStack() as held:
            for _ in range(lists.MAX_LISTS):
                await held.enter_async_context(rest.services.lists.one())
            response = await rest.get(JOBS)
            assert is_problem(response, 503, "too-many-lists")
            assert response.headers["Retry-After"]
        assert (await rest.get(JOBS)).status_code == 200

    async def test_what_is_long_and_shown_nowhere_is_not_kept(self) -> None:
        noted = {"finetune.dev/x": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
        metadata = lists.slim({"metadata": {"name": "a", "managedFields": [{}], "annotations": noted}})["metadata"]
        assert metadata == {"name": "a", "annotations": {"finetune.dev/x": "1"}}

    async def test_what_is_no_cursor(self, rest: Rest) -> None:
        for after in ("_A", "_____"):
            assert is_problem(await rest.get(JOBS, after=after), 422, "wrong-cursor")

    @pytest.mark.parametrize("query", ["limit=0", "limit=501", "status=done", "after=A", "after=_"])
    async def test_wrong_questions(self, rest: Rest, query: str) -> None:
        assert is_problem(await rest.get(f"{JOBS}?{query}"), 422, "invalid-request")


class TestTwoNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune,other"}

    async def test_an_id_names_its_namespace(self, rest: Rest) -> None:
        put_job(rest, "plato-1", "other")
        assert (await rest.get(f"{JOBS}/other.plato-1")).json()["namespace"] == "other"
        assert is_problem(await rest.get(f"{JOBS}/finetune.plato-1"), 404, "unknown-job")
        assert is_problem(await rest.get(f"{JOBS}/third.plato-1"), 404, "unknown-namespace")
        response = await rest.get(f"{JOBS}/plato-1")
        assert is_problem(response, 422, "wrong-id")
        assert "write <namespace>.plato-1" in response.json()["detail"]

    async def test_a_job_is_made_where_it_is_said(self, rest: Rest) -> None:
        assert is_problem(await rest.post(JOBS, FLAT), 422, "no-namespace")
        assert is_problem(await rest.post(JOBS, FLAT | {"namespace": "third"}), 404, "unknown-namespace")
        assert (await rest.post(JOBS, FLAT | {"namespace": "other"})).json()["namespace"] == "other"

    async def test_lists_have_what_the_caller_may_see(self, rest: Rest) -> None:
        for namespace in ("finetune", "other"):
            put_job(rest, "plato-1", namespace)
        rest.cluster.users["half"] = User("half", VIEW, {"other"})
        half = {"Authorization": "Bearer half"}
        assert [job["id"] for job in (await rest.get(JOBS, half)).json()["jobs"]] == ["other.plato-1"]
        assert is_problem(await rest.get(JOBS, half, namespace="finetune"), 403, "forbidden")
        assert len((await rest.get(JOBS, EDITOR)).json()["jobs"]) == 2
        rest.cluster.users["half"] = User("half", VIEW, {"third"})
        assert is_problem(await rest.get(JOBS, half), 403, "forbidden")


@pytest.mark.parametrize("prefix", ["finetune.", ""])
async def test_a_series_is_found_by_the_jobs_id(rest: Rest, prefix: str) -> None:
    put_job(rest)
    body = (await rest.get(f"{JOBS}/{prefix}plato-1/progress", READER)).json()
    assert body["job_uid"] == "uid-of-plato-1"
    assert is_problem(await rest.get(f"{JOBS}/{prefix}gone/progress", READER), 404, "unknown-job")


@pytest.mark.parametrize(
    ("failed_rows", "namespace", "resource", "status"),
    [
        (None, "finetune", "finetunejobs", 200),
        (None, "finetune", "batchinferences", 403),
        (0, "finetune", "finetunejobs", 403),
        (0, "finetune", "batchinferences", 200),
        (None, "unserved", "finetunejobs", 404),
    ],
)
async def test_a_series_is_judged_by_its_kind(
    rest: Rest, failed_rows: int | None, namespace: str, resource: str, status: int
) -> None:
    uid = "00000000-0000-4000-8000-000000000001"
    measured = Progress.model_validate(
        point(1, 1.0, job=uid) | {"failedRows": failed_rows, "job": {"namespace": namespace, "name": "n", "uid": uid}}
    )
    await progress.record(rest.services.engine, [measured])
    rest.cluster.users["some"] = User("some", {("get", resource)})
    response = await rest.get(f"{JOBS}/{uid}/progress", {"Authorization": "Bearer some"})
    assert response.status_code == status, response.text
