"""Money that was spent stays spent: costs, returns and origins after a FineTuneJob was deleted."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.builders import job_object, version_object
from tests.unit.web.rest.conftest import NOBODY, READER, Rest
from tests.unit.web.rest.test_costs import COSTS, EVALUATION, ROI, V2, spent
from tests.unit.web.rest.test_mirroring import JOBS, MODELS, mirroring
from tests.unit.web.test_access import is_problem
from tests.waiting import eventually

RATINGS = {"dataset": {"ratings": {"philosopher": "plato", "domain": "ethics"}}}


def furnish(rest: Rest) -> None:
    put_job(rest, "plato-job-2", "job-2", "500")
    put_job(rest, "plato-stays", "job-3", "7")
    rest.cluster.put("modelversions", version_object(2, status={"evaluation": EVALUATION}))


def put_job(rest: Rest, name: str, uid: str, amount: str) -> None:
    status = {"phase": "Succeeded"} | spent(amount)
    rest.cluster.put("finetunejobs", job_object(RATINGS, name=name, uid=uid, status=status))


@contextlib.asynccontextmanager
async def followed(rest: Rest, mode: str) -> AsyncIterator[None]:
    """Answers come from the tables, or, where no watch stands, from the cluster and what the tables know besides."""
    if mode == "mirrored":
        async with mirroring(rest):
            yield
    else:
        yield


async def delete_job(rest: Rest) -> None:
    async with mirroring(rest):
        assert (await rest.ask("DELETE", f"{JOBS}/plato-job-2")).status_code == 204
    rest.app.state.services = rest.services


async def sums(rest: Rest) -> tuple[Any, ...]:
    body = (await rest.get(COSTS, READER)).json()
    return (*(total["training"] for total in body["totals"]), body["trainings"], body["trainings_deleted"])


both = pytest.mark.parametrize("mode", ["mirrored", "unmirrored"])


@both
async def test_the_totals_count_it(rest: Rest, mode: str) -> None:
    furnish(rest)
    assert await sums(rest) == (507.0, 2, 0)
    await delete_job(rest)
    async with followed(rest, mode):
        assert await sums(rest) == (507.0, 2, 1)
        assert (await rest.get(COSTS, NOBODY)).status_code == 403


async def test_one_that_went_during_an_outage_and_its_successor_count_each(rest: Rest) -> None:
    furnish(rest)
    async with mirroring(rest):
        pass
    await rest.cluster.remove("finetunejobs", "finetune", "plato-job-2")
    put_job(rest, "plato-job-2", "job-4", "10")
    async with mirroring(rest):
        assert await sums(rest) == (517.0, 3, 1)


async def test_one_that_somebody_else_deletes_counts(rest: Rest) -> None:
    furnish(rest)

    async def is_told() -> bool:
        return await sums(rest) == (507.0, 2, 1)

    async with mirroring(rest):
        await rest.cluster.remove("finetunejobs", "finetune", "plato-job-2")
        await eventually(is_told)


async def test_deleted_ones_have_a_list(rest: Rest) -> None:
    furnish(rest)
    assert (await rest.get(f"{COSTS}/jobs", READER, deleted="true")).json()["jobs"] == []
    await delete_job(rest)
    there = (await rest.get(f"{COSTS}/jobs", READER)).json()
    assert [(job["id"], job["deleted_at"]) for job in there["jobs"]] == [("finetune.plato-stays", None)]
    body = (await rest.get(f"{COSTS}/jobs", READER, deleted="true", limit=1, model="plato")).json()
    (job,) = body["jobs"]
    assert (job["id"], job["spent"], job["basis"]) == ("finetune.plato-job-2", 500.0, spent("500")["cost"]["basis"])
    assert job["deleted_at"] is not None
    assert (body["total"], body["has_more"], body["next"]) == (1, False, None)
    assert (await rest.get(f"{COSTS}/jobs", READER, deleted="true", model="kant")).json()["total"] == 0
    assert is_problem(await rest.get(f"{COSTS}/jobs", READER, deleted="true", after="nothing"), 422, "wrong-cursor")
    assert (await rest.get(f"{COSTS}/jobs", NOBODY, deleted="true")).status_code == 403


async def test_their_list_comes_in_pages(rest: Rest) -> None:
    furnish(rest)
    async with mirroring(rest):
        for name in ("plato-job-2", "plato-stays"):
            assert (await rest.ask("DELETE", f"{JOBS}/{name}")).status_code == 204
    first = (await rest.get(f"{COSTS}/jobs", READER, deleted="true", limit=1)).json()
    second = (await rest.get(f"{COSTS}/jobs", READER, deleted="true", limit=1, after=first["next"])).json()
    shown = {page["jobs"][0]["id"] for page in (first, second)}
    assert shown == {"finetune.plato-job-2", "finetune.plato-stays"}
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)


@both
async def test_the_return_counts_it(rest: Rest, mode: str) -> None:
    furnish(rest)
    await delete_job(rest)
    put_job(rest, "plato-job-2", "a-later-one", "10")
    async with followed(rest, mode):
        cost = (await rest.get(ROI, READER, **V2)).json()["inputs"]["training_cost"]
        assert (cost["value"], cost["origin"]) == (500.0, "measured")


@both
async def test_its_versions_are_found_by_whose_judgements_it_learnt_from(rest: Rest, mode: str) -> None:
    furnish(rest)
    await delete_job(rest)
    async with followed(rest, mode):
        for query in ({"philosopher": "plato"}, {"domain": "ethics"}, {}):
            (version,) = (await rest.get(MODELS, READER, **query)).json()["models"]
            assert (version["name"], version["philosopher"], version["domain"]) == ("plato-v2", "plato", "ethics")
        assert (await rest.get(MODELS, READER, philosopher="kant")).json()["models"] == []
        one = (await rest.get(f"{MODELS}/plato-v2", READER)).json()
        assert (one["philosopher"], one["domain"]) == ("plato", "ethics")
