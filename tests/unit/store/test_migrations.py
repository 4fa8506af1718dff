"""The migrations make exactly the tables that the models describe."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from finetune_operator.store import experiment_tables
from finetune_operator.store.database import UnusableUrl, async_engine, parse_url, shown
from finetune_operator.store.migrations import MIGRATIONS, SchemaTooNew, apply_next, migrate
from finetune_operator.store.tables import Base
from finetune_operator.store.urls import without_secrets
from tests.postgres_server import PostgresServer
from tests.waiting import eventually


def engine_of(file: Path) -> Engine:
    return create_engine(f"sqlite:///{file}", poolclass=NullPool)


def described(connection: Connection) -> dict[str, Any]:
    """Names, nullability and keys of all tables; types are compared by SQLAlchemy's generic class."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: (
                    column["nullable"],
                    column["type"].as_generic()._type_affinity.__name__,
                    getattr(column["type"], "length", None),
                )
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table)["constrained_columns"],
            "indexes": {index["name"]: index["column_names"] for index in inspector.get_indexes(table)},
            "unique": {item["name"]: item["column_names"] for item in inspector.get_unique_constraints(table)},
            "foreign keys": [
                (key["constrained_columns"], key["referred_table"]) for key in inspector.get_foreign_keys(table)
            ],
        }
        for table in sorted(inspector.get_table_names())
    }


def test_migrations_and_models_agree(tmp_path: Path) -> None:
    with engine_of(tmp_path / "migrated.db").begin() as connection:
        while apply_next(connection):
            pass
        migrated = described(connection)
    with engine_of(tmp_path / "modelled.db").begin() as connection:
        assert experiment_tables.Vote.__tablename__ in Base.metadata.tables
        Base.metadata.create_all(connection)
        assert migrated == described(connection)


def test_versions_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


async def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    engine = async_engine(parse_url(f"sqlite+aiosqlite:///{tmp_path}/api.db"))
    assert await migrate(engine) == await migrate(engine) == MIGRATIONS[-1].version
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM schema_version"))).scalar_one() == len(MIGRATIONS)
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
    await engine.dispose()


async def test_a_failing_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = MIGRATIONS[0]._replace(statements=(*MIGRATIONS[0].statements, "CREATE NONSENSE"))
    monkeypatch.setattr("finetune_operator.store.migrations.MIGRATIONS", (broken,))
    engine = async_engine(parse_url(f"sqlite:///{tmp_path}/api.db"))
    with pytest.raises(Exception, match="NONSENSE"):
        await migrate(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
    await engine.dispose()


async def test_a_failing_migration_leaves_those_before_it(
    empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process that is killed while a long one runs would begin anew, again and again."""
    broken = MIGRATIONS[2]._replace(statements=(*MIGRATIONS[2].statements, "CREATE NONSENSE"))
    with monkeypatch.context() as patch:
        patch.setattr("finetune_operator.store.migrations.MIGRATIONS", (*MIGRATIONS[:2], broken))
        with pytest.raises(Exception, match="NONSENSE"):
            await migrate(empty_engine)
    assert await applied(empty_engine) == [1, 2]
    await migrate(empty_engine)
    assert await applied(empty_engine) == [migration.version for migration in MIGRATIONS]


@pytest.mark.parametrize("present", [0, 8], ids=["of a new database", "of an older release's"])
async def test_several_at_once_wait_for_each_other(
    empty_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, present: int
) -> None:
    if present:
        with monkeypatch.context() as patch:
            patch.setattr("finetune_operator.store.migrations.MIGRATIONS", MIGRATIONS[:present])
            await migrate(empty_engine)
    newest = MIGRATIONS[-1].version
    assert await asyncio.gather(*(migrate(empty_engine) for _ in range(4))) == [newest] * 4
    assert await applied(empty_engine) == [migration.version for migration in MIGRATIONS]


async def applied(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT version FROM schema_version ORDER BY version")))


COMPARISON = """
    INSERT INTO abtest_comparisons (
        id, abtest_uid, namespace, name, evaluator, number, prompt, baseline_served_name, candidate_served_name,
        baseline_answer, candidate_answer, candidate_side, created_at
    ) VALUES ('1', 't', 'n', 't', 'ada', 1, 'p', 'b', 'c', 'b', 'c', 'a', now())
"""
VOTE = """
    INSERT INTO abtest_votes (comparison_id, evaluator, abtest_uid, choice, late, created_at)
    VALUES ('1', 'ada', 't', 'base', FALSE, now())
"""
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def test_a_vote_that_comes_while_votes_are_counted(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = async_engine(parse_url(postgres.database()))
    with monkeypatch.context() as patch:
        patch.setattr("finetune_operator.store.migrations.MIGRATIONS", MIGRATIONS[:8])
        await migrate(engine)

    async def is_waiting() -> bool:
        async with engine.connect() as connection:
            return bool(await connection.scalar(text(WAITING)))

    async with engine.begin() as connection:
        await connection.execute(text(COMPARISON))
        await connection.execute(text(VOTE))
        migrating = asyncio.create_task(migrate(engine))
        await eventually(is_waiting)
    await migrating
    async with engine.connect() as connection:
        counted = (await connection.execute(text("SELECT abtest_uid, comparisons, base FROM abtest_counts"))).all()
    assert [tuple(row) for row in counted] == [("t", 1, 1)]
    await engine.dispose()


def test_a_newer_database_is_not_touched(tmp_path: Path) -> None:
    with engine_of(tmp_path / "new.db").begin() as connection:
        while apply_next(connection):
            pass
        connection.execute(text("INSERT INTO schema_version VALUES (999, '2030-01-01')"))
        with pytest.raises(SchemaTooNew, match="schema 999"):
            apply_next(connection)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("postgres://u:p@h/d", "postgresql://u:***@h/d"),
        ("postgresql+psycopg://u@h:5433/d?sslpassword=p", "postgresql+psycopg://u@h:5433/d"),
    ],
)
def test_shown_urls_have_no_secrets(url: str, expected: str) -> None:
    assert shown(parse_url(url)) == expected


@pytest.mark.parametrize("url", ["", "x", "mysql://h/d", "sqlite://", "postgresql://h:port/d"])
def test_unusable_urls_are_refused_with_an_example(url: str) -> None:
    with pytest.raises(UnusableUrl, match="sqlite:////"):
        parse_url(url)


def test_secrets_in_a_drivers_message_are_blanked() -> None:
    url = parse_url("postgresql://u:hunter2@h/d?sslpassword=swordfish")
    assert without_secrets("no hunter2 or swordfish", url) == "no *** or ***"
