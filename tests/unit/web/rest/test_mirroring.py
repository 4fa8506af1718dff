"""Lists out of the api's own tables: the same answers for the same callers, and only while they are current."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store import mirrored
from finetune_operator.web.mirroring import PLURALS, Mirroring, row_of
from tests.builders import job_object, version_object
from tests.unit.web.conftest import ENVIRONMENT
from tests.unit.web.rest.conftest import API_TOKEN, EDITOR, NOBODY, READER, Rest
from tests.unit.web.rest.played_api_server import VIEW, User, failure
from tests.unit.web.rest.test_costs import EVALUATION
from tests.unit.web.test_access import is_problem
from tests.waiting import eventually, throughout

JOBS, MODELS, TESTS = "/v1/fine-tuning/jobs", "/v1/fine-tuning/models", "/v1/fine-tuning/ab-test"
OPENAI = "/v1/fine_tuning/jobs"
COSTS = "/v1/fine-tuning/costs"
HISTORY = [{"time": "2026-11-22T12:00:00Z", "state": "Deployed", "who": "ada", "why": "won", "previous": "plato-v1"}]
LOADED = {"type": "Loaded", "status": "True", "reason": "Test", "lastTransitionTime": "2026-11-22T12:00:00Z"}
ACTIVE = {"state": "Deployed", "engine": "e", "promotedAt": "2026-11-22T12:00:00Z", "history": HISTORY}


def furnish(rest: Rest) -> None:
    """Seven trainings of two models, and a version of each of the first three, two of which have a price."""
    for number in range(7):
        dataset = {"ratings": {"philosopher": "plato" if number % 2 else "kant", "domain": "ethics"}}
        noted = {"finetune.dev/openai-metadata": f'{{"n": "{number}"}}'}
        phase = ("Succeeded", "Failed", "Training")[number % 3]
        model = "plato" if number < 5 else "kant"
        cost = {"cost": {"currency": "EUR" if number % 2 else "USD", "spent": f"{number}.25"}} if number else {}
        status = {"phase": phase, "allocation": {"settledSeconds": 60}} | cost
        body = job_object({"dataset": dataset, "model": model}, name=f"plato-{number}", status=status)
        body["metadata"] |= {"annotations": noted}
        body["metadata"].pop("creationTimestamp")
        rest.cluster.put("finetunejobs", body)
    for number in range(1, 4):
        lineage = {"fineTuneJob": f"plato-{number}", "jobUid": f"uid-of-plato-{number}"}
        status = ACTIVE | {"conditions": [LOADED]} if number == 2 else {"state": "Ready"}
        status |= {"evaluation": EVALUATION, "metrics": {"winRate": f"0.{number}"}} if number < 3 else {}
        body = version_object(number, {"lineage": lineage}, status=status)
        body["metadata"].pop("creationTimestamp")
        rest.cluster.put("modelversions", body)


@contextlib.asynccontextmanager
async def mirroring(rest: Rest) -> AsyncIterator[Mirroring]:
    """The api with its tables followed."""
    made = Mirroring(rest.services.engine, rest.services.cluster, rest.services.settings.namespaces)  # type: ignore[arg-type]
    rest.app.state.services = replace(rest.services, mirroring=made)
    task = asyncio.create_task(made.run())
    await eventually(lambda: made.is_current(*PLURALS))
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


Query = dict[str, Any]
QUESTIONS: list[tuple[str, Query]] = [
    (JOBS, {}),
    (JOBS, {"limit": 3}),
    (JOBS, {"status": "failed"}),
    (JOBS, {"status": "queued"}),
    (JOBS, {"model": "kant", "limit": 1}),
    (JOBS, {"namespace": "finetune"}),
    ("/api/training/jobs", {"vertical": "ethics", "status": "training"}),
    ("/api/training/jobs", {"vertical": "art"}),
    (OPENAI, {"limit": 2}),
    (OPENAI, {"metadata[n]": "4"}),
    (OPENAI, {"metadata[N]": "4"}),
    (MODELS, {}),
    (MODELS, {"state": "Deployed"}),
    (MODELS, {"philosopher": "plato"}),
    (MODELS, {"philosopher": "kant", "domain": "ethics"}),
    (MODELS, {"domain": "art"}),
    (MODELS, {"limit": 2, "model": "plato"}),
    (TESTS, {}),
    (TESTS, {"model": "plato"}),
    (TESTS, {"phase": "Running"}),
    ("/v1/models", {}),
    (COSTS, {}),
    (f"{COSTS}/models", {"limit": 2}),
    (f"{MODELS}/plato-v2", {}),
    (f"{MODELS}/plato-v3", {}),
]
PAGES = (
    "/fine-tuning",
    "/fine-tuning?status=failed",
    "/fine-tuning/models/finetune/plato-v2",
    "/model-comparison",
    "/model-comparison?right=finetune.plato-v3",
    "/model-comparison?left=finetune.plato-v1&right=base",
    "/cost",
    "/cost/roi?version=finetune.plato-v2",
    "/wizard/compare/finetune.plato-v3",
    "/batches/new",
)


@pytest.mark.parametrize("caller", [EDITOR, READER, API_TOKEN, NOBODY], ids=["editor", "reader", "api", "nobody"])
@pytest.mark.parametrize(("path", "query"), QUESTIONS)
async def test_the_same_answer(rest: Rest, path: str, query: Query, caller: dict[str, str]) -> None:
    furnish(rest)

    async def pages() -> list[Any]:
        found, after = [], None
        while True:
            response = await rest.get(path, caller, **query, **({"after": after} if after else {}))
            body = response.json()
            found.append((response.status_code, body if response.status_code == 200 else body.get("type")))
            after = body.get("next") or (body.get("last_id") if body.get("has_more") else None)
            if not after:
                return found

    direct = await pages()
    async with mirroring(rest):
        rest.cluster.lists.clear()
        assert await pages() == direct
        assert rest.cluster.lists == [], "the API server was asked"


@pytest.mark.parametrize("path", PAGES)
async def test_the_same_page(rest: Rest, path: str) -> None:
    furnish(rest)
    rest.services = rest.app.state.services = replace(rest.services, suffix=lambda: "0")
    direct = {name: await rest.get(path, caller) for name, caller in (("editor", EDITOR), ("nobody", NOBODY))}
    async with mirroring(rest):
        rest.cluster.lists.clear()
        assert (await rest.get(path, EDITOR)).text == direct["editor"].text
        assert (await rest.get(path, NOBODY)).status_code == direct["nobody"].status_code
        assert rest.cluster.lists == [], "the API server was asked"


@pytest.mark.parametrize(
    ("action", "body", "expected"),
    [
        ("plato-v3/deploy", {}, "plato-v3"),
        ("plato-v2/rollback", {}, "plato-v1"),
        ("plato-v2/rollback", {"to": "plato-v3"}, "plato-v3"),
    ],
)
async def test_a_change_lists_nothing(rest: Rest, action: str, body: dict[str, str], expected: str) -> None:
    """Versions that may win are among the few that are loaded or pinned."""
    furnish(rest)
    rest.cluster.objects["modelversions", "finetune", "plato-v1"]["spec"]["state"] = "Deployed"
    async with mirroring(rest):
        rest.cluster.lists.clear()
        made = (await rest.post(f"{MODELS}/{action}", body)).json()
        assert (made["name"], made["requested_state"]) == (expected, "Deployed")
        assert rest.cluster.lists == []
        pins = {name: item["spec"].get("state") for (_, _, name), item in rest.cluster.objects.items()}
        assert [name for name, state in pins.items() if state == "Deployed"] == [expected]


async def test_who_writes_sees_it_at_once(rest: Rest) -> None:
    async with mirroring(rest):
        flat = {"model": "plato", "base_model": "volume://models/tiny", "name": "mine"}
        assert (await rest.post(JOBS, flat)).status_code == 201
        assert [job["name"] for job in (await rest.get(JOBS)).json()["jobs"]] == ["mine"]
        await rest.post(f"{JOBS}/mine/suspend")
        assert (await rest.get(JOBS)).json()["jobs"][0]["suspended"] is True
        assert (await rest.ask("DELETE", f"{JOBS}/mine")).status_code == 204
        assert (await rest.get(JOBS)).json()["jobs"] == []


async def test_what_others_write_follows(rest: Rest) -> None:
    furnish(rest)

    def statuses() -> Callable[[], Awaitable[bool]]:
        async def check() -> bool:
            listed = {job["name"]: job["status"] for job in (await rest.get(JOBS)).json()["jobs"]}
            return listed["plato-2"] == "completed" and "plato-3" not in listed

        return check

    async with mirroring(rest):
        await rest.cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")
        await rest.cluster.remove("finetunejobs", "finetune", "plato-3")
        await eventually(statuses())


async def test_what_went_while_nobody_looked_is_gone(rest: Rest) -> None:
    furnish(rest)
    async with mirroring(rest):
        assert (await rest.get(JOBS)).json()["total"] == 7
    await rest.cluster.remove("finetunejobs", "finetune", "plato-3")
    async with mirroring(rest):
        assert (await rest.get(JOBS)).json()["total"] == 6


async def execute(rest: Rest, statement: str) -> None:
    async with rest.services.engine.begin() as connection:
        await connection.execute(text(statement))


async def test_tables_of_before_the_cluster_was_restored(rest: Rest) -> None:
    furnish(rest)
    async with mirroring(rest):
        assert (await rest.get(JOBS)).json()["total"] == 7
    await rest.cluster.remove("finetunejobs", "finetune", "plato-3")
    await execute(rest, "UPDATE resources SET resource_version = 1000000, state = 'of later'")
    async with mirroring(rest):
        assert (await rest.get(JOBS)).json()["total"] == 6
        assert (await rest.get(JOBS, status="failed")).json()["total"] == 2


async def test_a_write_is_done_though_the_tables_cannot_be_written(rest: Rest) -> None:
    async with mirroring(rest) as made:
        for change in ("INSERT", "DELETE"):
            await execute(
                rest, f"CREATE TRIGGER no_{change} BEFORE {change} ON resources BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        flat = {"model": "plato", "base_model": "volume://models/tiny", "name": "mine"}
        assert (await rest.post(JOBS, flat)).status_code == 201
        assert not made.is_current("finetunejobs")
        assert (await rest.get(JOBS)).json()["total"] == 1
        await execute(rest, "DROP TRIGGER no_INSERT")
        await eventually(lambda: made.is_current("finetunejobs"))
        assert (await rest.ask("DELETE", f"{JOBS}/mine")).status_code == 204
        assert (await rest.get(JOBS)).json()["total"] == 0
        await execute(rest, "DROP TRIGGER no_DELETE")
        await eventually(lambda: made.is_current("finetunejobs"))
        assert (await rest.get(JOBS)).json()["total"] == 0


HISTORY_OF_LATER = {"state": "Ready", "history": [{"time": "2026-11-22T12:00:00Z", "state": "Unheard of"}]}
MISSHAPEN: list[tuple[str, dict[str, Any]]] = [
    ("modelversions", version_object(9, status=HISTORY_OF_LATER)),
    ("finetunejobs", job_object({"dataset": ["of another release"]}, name="odd")),
    ("abtests", {"metadata": {"namespace": "finetune", "name": "odd"}, "spec": "of another release"}),
]


@pytest.mark.parametrize("begins", ["with a list", "with an event"])
@pytest.mark.parametrize(("plural", "misshapen"), MISSHAPEN, ids=[plural for plural, _ in MISSHAPEN])
async def test_what_is_not_understood_keeps_no_other_out(
    rest: Rest, plural: str, misshapen: dict[str, Any], begins: str
) -> None:
    furnish(rest)
    if begins == "with a list":
        rest.cluster.put(plural, misshapen)
    async with mirroring(rest) as made:
        rest.cluster.put(plural, misshapen)
        await rest.cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")
        await eventually(lambda: _state(rest, "completed", 4))
        assert made.is_current(*PLURALS)


async def _state(rest: Rest, status: str, total: int) -> bool:
    return bool((await rest.get(JOBS, status=status)).json()["total"] == total)


async def test_an_unexpected_failure_is_tried_again(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(rest)
    listed, failures = mirrored.known, iter([RuntimeError("unexpected")])

    async def known(engine: AsyncEngine, plural: str, namespace: str | None) -> dict[tuple[str, str], int]:
        for unexpected in failures:
            raise unexpected
        return await listed(engine, plural, namespace)

    monkeypatch.setattr(mirrored, "known", known)
    async with mirroring(rest):
        assert (await rest.get(JOBS)).json()["total"] == 7


@pytest.mark.parametrize("ended", ["gone", "at once"])
async def test_a_watch_that_ends_at_once_is_not_opened_at_once(rest: Rest, ended: str) -> None:
    if ended == "gone":
        rest.cluster.watch_failure = lambda: failure(410, "too old resource version")
    else:
        rest.cluster.watch_ends_after = 0
    made = Mirroring(rest.services.engine, rest.services.cluster, ("finetune",))  # type: ignore[arg-type]
    task = asyncio.create_task(made.run())
    await eventually(lambda: rest.cluster.watches >= 2 * len(PLURALS))
    begun = rest.cluster.watches
    await throughout(lambda: None, 0.4)
    assert rest.cluster.watches - begun <= 2 * len(PLURALS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_lists_are_read_anew_now_and_then(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They drop what an api wrote, that had not heard yet that it was gone, before it ended."""
    furnish(rest)
    monkeypatch.setattr("finetune_operator.web.mirroring.RELIST_SECONDS", 0.2)
    async with mirroring(rest):
        ghost = rest.cluster.objects["finetunejobs", "finetune", "plato-3"]
        await rest.cluster.remove("finetunejobs", "finetune", "plato-3")
        await eventually(lambda: _total(rest, 6))
        await mirrored.keep(rest.services.engine, [row_of("finetunejobs", ghost)])

        async def is_gone() -> bool:
            # That it is time for a list is noticed at the next event.
            await rest.cluster.tell("finetunejobs", "finetune", "plato-2", phase="Succeeded")
            return await _total(rest, 6)

        await eventually(is_gone)


async def _total(rest: Rest, total: int) -> bool:
    return bool((await rest.get(JOBS)).json()["total"] == total)


async def test_without_a_watch_the_api_server_is_asked(rest: Rest) -> None:
    furnish(rest)
    rest.cluster.watch_failure = lambda: failure(503, "etcd is away")
    made = Mirroring(rest.services.engine, rest.services.cluster, ("finetune",))  # type: ignore[arg-type]
    rest.app.state.services = replace(rest.services, mirroring=made)
    task = asyncio.create_task(made.run())
    try:
        await eventually(lambda: rest.cluster.watches >= len(PLURALS))
        await eventually(lambda: not made.is_current("finetunejobs"))
        rest.cluster.requests.clear()
        assert (await rest.get(JOBS)).json()["total"] == 7
        asked = ("system:serviceaccount:finetune:editor", "GET")
        assert asked in [request[:2] for request in rest.cluster.requests], "with the caller's rights"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not made.is_current("modelversions"), "nobody follows any more"


class TestTwoNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": "finetune,other"}

    async def test_lists_have_what_the_caller_may_see(self, rest: Rest) -> None:
        furnish(rest)
        elsewhere = job_object(name="secret")
        elsewhere["metadata"]["namespace"] = "other"
        rest.cluster.put("finetunejobs", elsewhere)
        half = {"Authorization": "Bearer half"}
        rest.cluster.users["half"] = User("half", VIEW, {"finetune"})
        async with mirroring(rest):
            assert (await rest.get(JOBS, half)).json()["total"] == 7
            assert is_problem(await rest.get(JOBS, half, namespace="other"), 403, "forbidden")
            assert (await rest.get(JOBS)).json()["total"] == 8

    async def test_whose_judgements_is_told_to_who_may_list_trainings(self, rest: Rest) -> None:
        furnish(rest)
        rights = {(verb, "modelversions") for verb in ("get", "list")}
        rest.cluster.users["half"] = User("half", rights)
        half = {"Authorization": "Bearer half"}
        async with mirroring(rest):
            shown = (await rest.get(MODELS, half)).json()["models"]
            assert {model["philosopher"] for model in shown} == {None}
            assert is_problem(await rest.get(MODELS, half, philosopher="plato"), 403, "forbidden")

    async def test_who_may_list_in_one_namespace_is_told_nothing_of_another(self, rest: Rest) -> None:
        """Whoever makes a version may write the uid of any training into it."""
        secret = job_object({"dataset": {"ratings": {"philosopher": "secret"}}}, name="secret")
        secret["metadata"]["namespace"] = "other"
        rest.cluster.put("finetunejobs", secret)
        lineage = {"lineage": {"jobUid": secret["metadata"]["uid"]}}
        rest.cluster.put("modelversions", version_object(1, lineage, status={"state": "Ready"}))
        rest.cluster.users["half"] = User("half", VIEW, {"finetune"})
        async with mirroring(rest):
            told = {}
            for caller in ("half", "editor"):
                answer = await rest.get(MODELS, {"Authorization": f"Bearer {caller}"}, model="plato")
                told[caller] = {model["name"]: model["philosopher"] for model in answer.json()["models"]}["plato-v1"]
        assert told == {"half": None, "editor": "secret"}

    async def test_apis_of_different_namespaces_share_a_database(self, rest: Rest) -> None:
        """Each forgets what is gone from its own namespaces alone, and tells nothing of the others'."""
        for namespace in ("finetune", "other", "third"):
            for name in ("stays", "goes"):
                body = job_object(name=name, uid=f"{namespace}-{name}")
                body["metadata"]["namespace"] = namespace
                rest.cluster.put("finetunejobs", body)
        engine, source = rest.services.engine, rest.services.cluster
        third = Mirroring(engine, source, ("third",))  # type: ignore[arg-type]
        following = asyncio.create_task(third.run())
        await eventually(lambda: third.is_current(*PLURALS))
        async with mirroring(rest):
            for namespace in ("finetune", "third"):
                await rest.cluster.remove("finetunejobs", namespace, "goes")

            remaining = {("finetune", "stays"), ("other", "stays"), ("other", "goes"), ("third", "stays")}

            async def forgotten() -> bool:
                async with engine.connect() as connection:
                    there = "SELECT namespace, name FROM training_jobs WHERE deleted_at IS NULL"
                    rows = await connection.execute(text(there))
                    return {(row.namespace, row.name) for row in rows} == remaining

            await eventually(forgotten, timeout_seconds=10)
            shown = (await rest.get(JOBS)).json()
            assert {each["namespace"] for each in shown["jobs"]} == {"finetune", "other"}
            assert shown["total"] == 3
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_what_a_sql_client_reads(rest: Rest) -> None:
    furnish(rest)

    async def rows(query: str) -> list[dict[str, Any]]:
        async with rest.services.engine.connect() as connection:
            return [dict(row._mapping) for row in await connection.execute(text(query))]

    assert (await rest.post(f"{TESTS}/v1-v2/comparisons", {})).status_code == 200
    async with mirroring(rest):
        (job,) = await rows("SELECT * FROM training_jobs WHERE name = 'plato-1'")
        assert (job["model"], job["base_model"], job["status"], job["philosopher"]) == (
            "plato", "tiny-llama", "failed", "plato",
        )  # fmt: skip
        (model,) = await rows("SELECT * FROM fine_tuned_models WHERE state = 'Deployed'")
        assert (model["name"], model["version"], model["philosopher"], model["training_job"]) == (
            "plato-v2", 2, "kant", "plato-2",
        )  # fmt: skip
        (comparison,) = await rows("SELECT * FROM model_comparisons")
        assert (comparison["abtest"], comparison["fine_tuned_model"], comparison["vote"]) == ("v1-v2", "plato-v2", None)
        await rest.cluster.remove("modelversions", "finetune", "plato-v2")
        assert (await rows("SELECT model_version, who, previous FROM deployment_history")) == [
            {"model_version": "plato-v2", "who": "ada", "previous": "plato-v1"}
        ]


class TestAllNamespaces:
    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"FINETUNE_NAMESPACES": ""}

    async def test_rights_in_a_namespace_are_enough_for_its_overview(self, rest: Rest) -> None:
        """Also before the tables have been filled, when the API server is asked with the caller's rights."""
        furnish(rest)
        rest.cluster.users["here"] = User("here", VIEW, {"finetune"})
        caller = {"Authorization": "Bearer here"}
        assert (await rest.get(MODELS, caller)).status_code == 403
        page = await rest.get("/fine-tuning", caller, namespace="finetune")
        assert (page.status_code, "plato-v2" in page.text) == (200, True)
