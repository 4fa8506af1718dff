"""Trainings whose FineTuneJob is gone, on both databases: what they have spent is spent."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store import deleted_rows, deleted_trainings, mirrored
from finetune_operator.store.deleted_rows import UnknownPlace
from finetune_operator.store.mirrored import Row, Wanted
from finetune_operator.store.mirrored_sums import TrainingSums
from finetune_operator.store.tables import DeletedTraining
from finetune_operator.web.mirroring import row_of
from tests.builders import job_object, version_object

JOBS, VERSIONS = "finetunejobs", "modelversions"
HERE, ELSEWHERE = ("finetune",), ("other",)
RATINGS = {"dataset": {"ratings": {"philosopher": "plato", "domain": "ethics"}}}


def job(version: int, spent: str | None, name: str = "a", uid: str | None = None, **status: Any) -> Row:
    cost = {"cost": {"currency": "USD", "spent": spent, "basis": "hours"}} if spent else {}
    status = {"phase": "Succeeded", "allocation": {"settledSeconds": 60}} | cost | status
    return row_of(JOBS, job_object(RATINGS, name=name, uid=uid, status=status, resource_version=str(version)))


async def sums(engine: AsyncEngine, namespaces: tuple[str, ...] | None = HERE) -> TrainingSums:
    found = TrainingSums()
    await deleted_trainings.add_to(found, engine, namespaces)
    return found


async def spent(engine: AsyncEngine) -> dict[str, Decimal]:
    return (await sums(engine)).spent


async def drop(engine: AsyncEngine, name: str = "a") -> None:
    await mirrored.drop(engine, JOBS, "finetune", name, f"uid-of-{name}")


async def test_what_is_dropped_has_spent_what_it_has(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1, "1.5"), job(2, "2", "b"), job(3, None, "c"), job(4, "8", "stays")])
    assert await sums(engine) == TrainingSums()
    for name in "abc":
        await drop(engine, name)
    known = TrainingSums(count=3, unpriced=1, deleted=3, spent={"USD": Decimal("3.5")})
    assert (await sums(engine), await sums(engine, None)) == (known, known)
    assert await sums(engine, ELSEWHERE) == TrainingSums()


async def test_what_a_list_has_no_more_is_kept(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1, "1.5")])
    await mirrored.drop_others(engine, JOBS, "finetune", set(), until=8)
    assert await spent(engine) == {"USD": Decimal("1.5")}


async def test_a_successor_of_the_same_name_counts_besides(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1, "1.5", uid="first")])
    await mirrored.keep(engine, [job(2, "4", uid="second")])
    assert await spent(engine) == {"USD": Decimal("1.5")}
    await mirrored.drop(engine, JOBS, "finetune", "a", "second")
    assert await spent(engine) == {"USD": Decimal("5.5")}


async def test_one_that_comes_back_counts_once(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(5, "1.5")])
    await drop(engine)
    await mirrored.keep(engine, [job(6, "2")])
    assert await sums(engine) == TrainingSums()
    await drop(engine)
    assert await spent(engine) == {"USD": Decimal(2)}


async def test_all_are_summed_at_one_moment(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1, "1.5"), job(2, "4", "b"), job(3, None, "c")])
    await drop(engine)
    known = TrainingSums(count=3, unpriced=1, deleted=1, spent={"USD": Decimal("5.5")})
    assert await deleted_trainings.all_sums(engine, JOBS, HERE) == known


async def test_what_a_restored_cluster_goes_on_with_is_what_was_spent(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1000, "12")])
    await mirrored.keep(engine, [job(900, "10")], {("finetune", "a"): 1000})
    await mirrored.keep(engine, [job(990, "50")])
    await drop(engine)
    assert await spent(engine) == {"USD": Decimal(50)}


async def test_a_late_row_of_an_older_state_takes_nothing_away(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(5, "1.5")])
    await drop(engine)
    await mirrored.keep(engine, [job(4, "1")])
    await drop(engine)
    assert await spent(engine) == {"USD": Decimal("1.5")}


async def test_other_kinds_leave_nothing(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [row_of(VERSIONS, version_object(1, resource_version="1"))])
    await mirrored.drop(engine, VERSIONS, "finetune", "plato-v1", "uid-of-plato-v1")
    assert await sums(engine) == TrainingSums()


async def test_pages_have_the_last_deleted_first(engine: AsyncEngine) -> None:
    rows = [job(number, "1", name) for number, name in enumerate("abc", 1)]
    await mirrored.keep(engine, rows)
    for name in "abc":
        await drop(engine, name)
    async with engine.begin() as connection:
        for hour, name in enumerate("bca"):
            moment = f"2026-11-21 1{hour}:00:00.000000"
            await connection.execute(
                sql(f"UPDATE deleted_trainings SET deleted_at = '{moment}' WHERE name = '{name}'")  # noqa: S608
            )
    first = await deleted_rows.page(engine, DeletedTraining, HERE, None, None, 2)
    assert ([each.body["metadata"]["name"] for each in first.resources], first.total) == (["a", "c"], 3)
    assert first.resources[0].deleted_at.hour == 12
    second = await deleted_rows.page(engine, DeletedTraining, HERE, "plato", "uid-of-c", 2)
    assert [each.body["metadata"]["name"] for each in second.resources] == ["b"]
    assert (await deleted_rows.page(engine, DeletedTraining, HERE, "kant", None, 2)).total == 0
    assert (await deleted_rows.page(engine, DeletedTraining, ELSEWHERE, None, None, 2)).total == 0
    with pytest.raises(UnknownPlace):
        await deleted_rows.page(engine, DeletedTraining, HERE, None, "uid-of-d", 2)


async def test_one_is_found_by_its_uid_where_it_was(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(1, "1.5")])
    await drop(engine)
    found = await deleted_trainings.body_of(engine, "finetune", "uid-of-a")
    assert found is not None
    assert found["status"]["cost"]["spent"] == "1.5"
    assert await deleted_trainings.body_of(engine, "other", "uid-of-a") is None


async def test_versions_are_chosen_by_the_training_that_is_gone(engine: AsyncEngine) -> None:
    lineage = {"lineage": {"fineTuneJob": "a", "jobUid": "uid-of-a"}}
    await mirrored.keep(engine, [job(1, "1.5")])
    await mirrored.keep(engine, [row_of(VERSIONS, version_object(1, lineage, resource_version="2"))])
    await drop(engine)
    chosen = Wanted(VERSIONS, HERE, philosopher="plato", domain="ethics", origins_in=HERE)
    assert (await mirrored.page(engine, chosen, None, 10)).total == 1
    unseen = Wanted(VERSIONS, HERE, philosopher="plato", origins_in=ELSEWHERE)
    assert (await mirrored.page(engine, unseen, None, 10)).total == 0
    known = {"uid-of-a": ("plato", "ethics")}
    assert await mirrored.origins(engine, JOBS, ["uid-of-a"], HERE) == known
    assert await mirrored.origins(engine, JOBS, ["uid-of-a"], ELSEWHERE) == {}
    assert await deleted_trainings.origins(engine, None) == known


@pytest.mark.parametrize(
    ("phase", "status"),
    [("Training", "cancelled"), ("Queued", "cancelled"), ("Failed", "failed"), ("Succeeded", "completed")],
)
async def test_what_was_under_way_ended_with_its_deletion(engine: AsyncEngine, phase: str, status: str) -> None:
    await mirrored.keep(engine, [job(1, "1.5", phase=phase)])
    await drop(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(sql("SELECT status FROM training_jobs"))).scalar_one() == status


async def test_a_sql_client_reads_them(engine: AsyncEngine) -> None:
    lineage = {"lineage": {"fineTuneJob": "a", "jobUid": "uid-of-a"}}
    await mirrored.keep(engine, [job(1, "1.5"), job(2, "2", "b")])
    await mirrored.keep(engine, [row_of(VERSIONS, version_object(1, lineage, resource_version="3"))])
    await drop(engine)
    async with engine.connect() as connection:
        jobs = (await connection.execute(sql("SELECT name, cost, deleted_at FROM training_jobs ORDER BY name"))).all()
        models = (await connection.execute(sql("SELECT name, philosopher, domain FROM fine_tuned_models"))).all()
    assert [(row.name, row.cost, row.deleted_at is None) for row in jobs] == [("a", "1.5", False), ("b", "2", True)]
    assert [tuple(row) for row in models] == [("plato-v1", "plato", "ethics")]
