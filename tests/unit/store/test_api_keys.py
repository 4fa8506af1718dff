"""API keys in both databases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.store import api_keys
from finetune_operator.store.api_keys import FORGOTTEN_AFTER, Account, KeyRecord

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROBOT, OTHER = Account("team-a", "robot"), Account("team-b", "robot")


def record(number: int, account: Account = ROBOT, **changes: object) -> KeyRecord:
    made = KeyRecord(
        id=f"{number:016x}",
        digest="0" * 64,
        name=f"key {number}",
        account=account,
        created_by="ada",
        created_at=NOON + timedelta(seconds=number),
        expires_at=NOON + timedelta(days=90),
    )
    return replace(made, **changes)


async def test_what_is_kept_is_found(engine: AsyncEngine) -> None:
    await api_keys.add(engine, record(1))
    assert await api_keys.find(engine, record(1).id) == record(1)
    assert await api_keys.find(engine, record(2).id) is None


async def test_an_id_is_taken_once(engine: AsyncEngine) -> None:
    assert await api_keys.add(engine, record(1))
    assert not await api_keys.add(engine, record(1, OTHER, digest="1" * 64))
    assert await api_keys.find(engine, record(1).id) == record(1)


async def test_keys_are_listed_by_account_the_newest_first(engine: AsyncEngine) -> None:
    for key in (record(1), record(2), record(3, OTHER)):
        await api_keys.add(engine, key)
    assert await api_keys.accounts(engine) == [ROBOT, OTHER]
    assert [key.id for key in await api_keys.of_accounts(engine, [ROBOT], 9)] == [record(2).id, record(1).id]
    assert len(await api_keys.of_accounts(engine, [ROBOT, OTHER], 9)) == 3
    assert len(await api_keys.of_accounts(engine, [ROBOT, OTHER], 1)) == 1


async def test_a_revoked_key_stays_as_it_was_first_revoked(engine: AsyncEngine) -> None:
    await api_keys.add(engine, record(1))
    assert await api_keys.count_active(engine, ROBOT, NOON) == 1
    for hours in (1, 2):
        await api_keys.revoke(engine, record(1).id, NOON + timedelta(hours=hours), "eve")
    found = await api_keys.find(engine, record(1).id)
    assert found
    assert found.revoked_at == NOON + timedelta(hours=1)
    assert not found.is_active(NOON)
    assert await api_keys.count_active(engine, ROBOT, NOON) == 0


async def test_expired_keys_are_not_active(engine: AsyncEngine) -> None:
    await api_keys.add(engine, record(1))
    end = record(1).expires_at
    assert record(1).is_active(end - timedelta(seconds=1))
    assert not record(1).is_active(end)
    assert await api_keys.count_active(engine, ROBOT, end) == 0
    assert await api_keys.count_active(engine, OTHER, NOON) == 0


async def test_use_is_noted_once_a_minute(engine: AsyncEngine) -> None:
    await api_keys.add(engine, record(1))
    noted = []
    for seconds in (0, 30, 59, 60):
        key = await api_keys.find(engine, record(1).id)
        assert key
        noted.append(await api_keys.note_use(engine, key, NOON + timedelta(seconds=seconds)))
    assert noted == [True, False, False, True]
    found = await api_keys.find(engine, record(1).id)
    assert found
    assert found.last_used_at == NOON + timedelta(seconds=60)


async def test_long_ended_keys_are_forgotten(engine: AsyncEngine) -> None:
    await api_keys.add(engine, record(1, expires_at=NOON + timedelta(days=1)))
    await api_keys.add(engine, record(2, expires_at=NOON + timedelta(days=365)))
    await api_keys.revoke(engine, record(2).id, NOON, "eve")
    await api_keys.add(engine, record(3, created_at=NOON + FORGOTTEN_AFTER, expires_at=NOON + timedelta(days=400)))
    assert len(await api_keys.of_accounts(engine, [ROBOT], 9)) == 3
    late = NOON + FORGOTTEN_AFTER + timedelta(days=2)
    await api_keys.add(engine, record(4, created_at=late, expires_at=late + timedelta(days=1)))
    assert [key.id for key in await api_keys.of_accounts(engine, [ROBOT], 9)] == [record(4).id, record(3).id]
