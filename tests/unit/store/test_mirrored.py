"""What both databases keep of the cluster's resources, and what they count of votes by themselves."""

import contextlib
import json
import sqlite3
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from finetune_operator.contract.experiments import VoteCounts
from finetune_operator.store import migrations, mirrored, votes
from finetune_operator.store.database import async_engine, parse_url
from finetune_operator.store.experiment_tables import Comparison, Vote
from finetune_operator.store.migrations import MIGRATIONS, migrate
from finetune_operator.store.mirrored import Change, Facts, Position, Row, Wanted
from finetune_operator.store.tables import MirroredResource
from finetune_operator.store.votes import Choice
from finetune_operator.web.mirroring import row_of
from tests.builders import job_object, version_object

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
JOBS, VERSIONS = "finetunejobs", "modelversions"
ALL = Wanted(JOBS)
VIEWS = ("training_jobs", "fine_tuned_models", "model_comparisons", "deployment_history")


def job(version: int, name: str = "a", **facts: Any) -> Row:
    status = {"phase": "Succeeded", "message": f"state {version}"}
    body = job_object(name=name, status=status, resource_version=str(version))
    return Row(JOBS, body, Facts(model="plato", **facts))


async def messages(engine: AsyncEngine, wanted: Wanted = ALL, **page: Any) -> list[str]:
    found = await mirrored.page(engine, wanted, page.get("after"), page.get("limit", 10))
    return [body["status"]["message"] for body in found.bodies]


async def test_an_older_state_changes_nothing(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(5), job(4)])
    assert await messages(engine) == ["state 5"]
    await mirrored.keep(engine, [job(6)])
    assert await messages(engine) == ["state 6"]
    await mirrored.drop(engine, JOBS, "finetune", "a", "another uid")
    assert await messages(engine) == ["state 6"]
    await mirrored.drop(engine, JOBS, "finetune", "a", "uid-of-a")
    assert await messages(engine) == []


async def test_what_came_after_a_list_was_not_missing_in_it(engine: AsyncEngine) -> None:
    await mirrored.keep(engine, [job(5), job(9, "b")])
    await mirrored.drop_others(engine, JOBS, "finetune", set(), until=8)
    assert await messages(engine) == ["state 9"]


async def test_another_may_write_while_what_is_gone_is_dropped(tmp_path: Path) -> None:
    """SQLite refuses at once who has read before another wrote, and then writes."""
    engine = async_engine(parse_url(f"sqlite:///{tmp_path}/api.db"))
    await migrate(engine)
    await mirrored.keep(engine, [job(5)])

    def write(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE"):
            with contextlib.closing(sqlite3.connect(tmp_path / "api.db")) as other, other:
                other.execute("UPDATE resources SET state = 'x'")

    event.listen(engine.sync_engine, "before_cursor_execute", write)
    await mirrored.drop_others(engine, JOBS, "finetune", set(), until=8)
    assert await messages(engine) == []
    await engine.dispose()


async def test_one_that_the_database_does_not_take_is_left_out(engine: AsyncEngine) -> None:
    unusable = job(2, "b", state="x" * 33)
    await mirrored.keep(engine, [job(1), unusable, job(3, "c")])
    unbounded = engine.dialect.name == "sqlite"
    assert await messages(engine) == ["state 3", *(["state 2"] if unbounded else []), "state 1"]


@pytest.mark.parametrize("name", ["model", "philosopher", "annotation", "message"])
async def test_no_character_keeps_a_resource_out(engine: AsyncEngine, name: str) -> None:
    text = dict.fromkeys(("model", "philosopher", "annotation", "message"), "x") | {name: "x\0y"}
    ratings = {"philosopher": text["philosopher"], "domain": "ethics"}
    spec = {"model": text["model"], "dataset": {"ratings": ratings}}
    status = {"phase": "Succeeded", "message": text["message"]}
    body = job_object(spec, status=status, resource_version="1")
    body["metadata"]["annotations"] = {"finetune.dev/openai-metadata": json.dumps({"n": text["annotation"]})}
    body["metadata"]["annotations"]["note"] = text["annotation"]
    await mirrored.keep(engine, [row_of(JOBS, body)])
    async with engine.connect() as connection:
        ((shown,),) = (await connection.execute(sql("SELECT message FROM training_jobs"))).all()
    assert shown == text["message"].replace("\0", "\N{REPLACEMENT CHARACTER}")


FACTS: list[tuple[str, dict[str, Any]]] = [
    ("what somebody asked for", {"requested": "Deployed"}),
    ("a currency", {"currency": "EUR"}),
    ("an amount", {"amount_micros": 7}),
    ("without a price", {"is_unpriced": True}),
    ("over its budget", {"is_over_budget": True}),
    ("a win rate", {"win_rate": 0.5}),
]


async def later_facts(engine: AsyncEngine) -> list[Facts]:
    """Those alone that came with this release's columns."""
    columns = [getattr(MirroredResource, name) for name in mirrored.LATER_FACTS]
    async with engine.connect() as connection:
        return [Facts(**row._asdict()) for row in (await connection.execute(select(*columns))).all()]


@pytest.mark.parametrize("facts", [row[1] for row in FACTS], ids=[row[0] for row in FACTS])
async def test_what_an_api_of_an_older_release_left_out_is_added(engine: AsyncEngine, facts: dict[str, Any]) -> None:
    await mirrored.keep(engine, [job(5)])
    await mirrored.keep(engine, [job(4, **facts)])
    assert await later_facts(engine) == [Facts()]
    await mirrored.keep(engine, [job(5, **facts)])
    assert await later_facts(engine) == [Facts(**facts)]


async def test_a_state_that_is_there_is_not_written_again(engine: AsyncEngine) -> None:
    """However often all are listed; what says so here is that its message stays."""
    await mirrored.keep(engine, [job(5, win_rate=0.1)])
    again = job(5, win_rate=0.1)
    again.body["status"]["message"] = "again"
    await mirrored.keep(engine, [again])
    assert await messages(engine) == ["state 5"]


async def test_an_upgrade_leaves_what_another_api_keeps(empty_engine: AsyncEngine, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", MIGRATIONS[:12])
        await migrate(empty_engine)
    of_others = "plural, namespace, name, uid, resource_version, created, body"
    async with empty_engine.begin() as connection:
        row = "'finetunejobs', 'finetune', 'a', 'uid-of-a', 5, '2026-01-01T11:00:00Z', '{}'"
        await connection.execute(sql(f"INSERT INTO resources ({of_others}) VALUES ({row})"))  # noqa: S608
    await migrate(empty_engine)
    assert await mirrored.known(empty_engine, JOBS, "finetune") == {("finetune", "a"): 5}
    await mirrored.keep(empty_engine, [job(5, currency="EUR", amount_micros=7)])
    assert await later_facts(empty_engine) == [Facts(currency="EUR", amount_micros=7)]


Listed = tuple[tuple[str, int, str], ...]
"""Name, resource version and uid."""
RESTORED: list[tuple[str, Listed, Listed, list[str]]] = [
    ("a restored cluster knows an older state", (("a", 90, "a1"),), (("a", 7, "a1"),), ["a1 at 7"]),
    ("a new cluster has another of its name", (("a", 90, "a1"),), (("a", 7, "a2"),), ["a2 at 7"]),
    ("one that is gone, of a higher version than the list", (("a", 90, "a1"),), (("b", 7, "b1"),), ["b1 at 7"]),
    ("a list that is newer", (("a", 3, "a1"),), (("a", 7, "a1"),), ["a1 at 7"]),
]


def _of(listed: Listed) -> list[Row]:
    bodies = [(job_object(name=name, status={}, resource_version=str(at)), at, uid) for name, at, uid in listed]
    for body, at, uid in bodies:
        body["metadata"]["uid"] = uid
        body["status"]["message"] = f"{uid} at {at}"
    return [Row(JOBS, body, Facts()) for body, _, _ in bodies]


@pytest.mark.parametrize(
    ("kept", "listed", "expected"), [row[1:] for row in RESTORED], ids=[row[0] for row in RESTORED]
)
async def test_a_list_says_more_than_what_was_there_before_it(
    engine: AsyncEngine, kept: Listed, listed: Listed, expected: list[str]
) -> None:
    await mirrored.keep(engine, _of(kept))
    before = await mirrored.known(engine, JOBS, "finetune")
    await mirrored.keep(engine, _of((("meanwhile", 91, "m"),)))
    await mirrored.keep(engine, _of(listed), before)
    await mirrored.drop_others(engine, JOBS, "finetune", {("finetune", name) for name, _, _ in listed}, 8, before)
    assert sorted(await messages(engine)) == [*expected, "m at 91"]


async def test_what_came_since_is_no_older_than_the_list(engine: AsyncEngine) -> None:
    before = await mirrored.known(engine, JOBS, "finetune")
    await mirrored.keep(engine, _of((("a", 9, "a1"),)))
    await mirrored.keep(engine, _of((("a", 7, "a1"),)), before)
    assert await messages(engine) == ["a1 at 9"]


async def test_pages_and_filters(engine: AsyncEngine) -> None:
    rows = [
        job(number, f"job-{number:03}", state="failed" if number % 3 else "completed", attached=f'{{"N": "{number}"}}')
        for number in range(300)
    ]
    await mirrored.keep(engine, rows)
    assert await messages(engine, limit=2) == ["state 299", "state 298"]
    after = Position("2026-01-01T11:00:00Z", "finetune", "job-298")
    assert await messages(engine, after=after, limit=2) == ["state 297", "state 296"]
    failed = await mirrored.page(engine, Wanted(JOBS, states=("failed",)), None, 1)
    assert (failed.total, failed.bodies[0]["status"]["message"]) == (200, "state 299")
    both = await mirrored.page(engine, Wanted(JOBS, states=("completed", "failed", "queued")), after, 2)
    assert (both.total, [body["status"]["message"] for body in both.bodies]) == (300, ["state 297", "state 296"])
    assert await messages(engine, Wanted(JOBS, attached=('"N": "7"',))) == ["state 7"]
    assert await messages(engine, Wanted(JOBS, attached=('"n": "7"',))) == []
    assert await messages(engine, Wanted(JOBS, namespaces=("other",))) == []


async def test_the_tables_for_sql_clients(engine: AsyncEngine) -> None:
    lineage = {"fineTuneJob": "a", "jobUid": "uid-of-a"}
    version = version_object(2, {"lineage": lineage}, status={"state": "Deployed", "metrics": {"elo": 1540}})
    change = Change("uid", NOON, "Deployed", "finetune", "plato", "plato-v2", "ada", "won", "plato-v1")
    facts = Facts(model="plato", state="Deployed", job_uid="uid-of-a")
    await mirrored.keep(engine, [job(1, philosopher="kant"), Row(VERSIONS, version, facts, (change,))])
    await mirrored.keep(engine, [Row(VERSIONS, version, facts, (change,))])
    async with engine.connect() as connection:
        found = {view: (await connection.execute(sql(f"SELECT * FROM {view}"))).mappings().all() for view in VIEWS}  # noqa: S608
    assert [row["base_model"] for row in found["training_jobs"]] == ["tiny-llama"]
    (model,) = found["fine_tuned_models"]
    assert (model["version"], model["elo"], model["philosopher"], model["training_job"]) == (2, 1540, "kant", "a")
    assert [row["who"] for row in found["deployment_history"]] == ["ada"]
    assert found["model_comparisons"] == []


async def _vote(connection: AsyncConnection, number: int, choice: Choice, late: bool) -> None:
    columns = {"evaluator": "ada", "abtest_uid": "t", "created_at": NOON}
    names = ("prompt", "baseline_served_name", "candidate_served_name", "baseline_answer", "candidate_answer")
    shown = columns | dict.fromkeys(names, "x") | {"namespace": "n", "name": "t", "candidate_side": "a"}
    await connection.execute(insert(Comparison).values(id=str(number), number=number, **shown))
    await connection.execute(insert(Vote).values(comparison_id=str(number), choice=choice.value, late=late, **columns))


async def test_counts_are_those_of_the_rows(engine: AsyncEngine) -> None:
    """Whoever writes them: during an upgrade, an api of an older release still does."""
    choices = [choice for choice, times in zip(Choice, (5, 3, 2, 1), strict=True) for _ in range(times)]
    async with engine.begin() as connection:
        for number, choice in enumerate(choices):
            await _vote(connection, number, choice, late=False)
        await _vote(connection, 90, Choice.BASE, late=True)
    counted = await votes.standing(engine, "t")
    assert counted == (VoteCounts(fine_tuned=5, base=3, tie=3, both_bad=1), 1, 0, 12)
    # In the order of time and id: "0", "1", "10", "2", ...
    first = Counter(choices[int(number)] for number in sorted(map(str, range(11)))[:4])
    bounded = await votes.tally(engine, "t", max_votes=4)
    assert (bounded.fine_tuned, bounded.base, bounded.both_bad) == (
        first[Choice.FINE_TUNED], first[Choice.BASE], first[Choice.BOTH_BAD],
    )  # fmt: skip
    async with engine.begin() as connection:
        await connection.execute(sql("DELETE FROM abtest_votes WHERE comparison_id IN ('0', '90')"))
        await connection.execute(sql("DELETE FROM abtest_comparisons WHERE id IN ('0', '90')"))
    assert await votes.standing(engine, "t") == (VoteCounts(fine_tuned=4, base=3, tie=3, both_bad=1), 0, 0, 10)


async def test_votes_from_before_are_counted(empty_engine: AsyncEngine, monkeypatch: Any) -> None:
    older = tuple(migration for migration in MIGRATIONS if migration.version <= 8)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", older)
        await migrate(empty_engine)
    async with empty_engine.begin() as connection:
        await _vote(connection, 1, Choice.TIE, late=False)
        await _vote(connection, 2, Choice.BASE, late=True)
    await migrate(empty_engine)
    assert await votes.standing(empty_engine, "t") == (VoteCounts(tie=1), 1, 0, 2)
