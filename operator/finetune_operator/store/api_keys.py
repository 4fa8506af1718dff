"""API keys in the database: made, looked up by id, used, revoked, and forgotten long after their end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.keyset import Mark, beyond
from finetune_operator.store.tables import StoredApiKey

USE_NOTED_EVERY = timedelta(minutes=1)
FORGOTTEN_AFTER = timedelta(days=90)


class Account(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class KeyRecord:
    """What is known of a key; `digest` is of its secret."""

    id: str
    digest: str
    name: str
    account: Account
    created_by: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_active(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


async def add(engine: AsyncEngine, key: KeyRecord) -> bool:
    """Keep a new key, and forget those that ended long before it. False where the id is taken."""
    long_ago = key.created_at - FORGOTTEN_AFTER
    async with engine.begin() as connection:
        ended = or_(StoredApiKey.expires_at < long_ago, StoredApiKey.revoked_at < long_ago)
        await connection.execute(delete(StoredApiKey).where(ended))
        row = {
            "id": key.id,
            "digest": key.digest,
            "name": key.name,
            "namespace": key.account.namespace,
            "service_account": key.account.name,
            "created_by": key.created_by,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
        }
        statement = upsert_dialect(connection.dialect).insert(StoredApiKey).values(row)
        # Without what was inserted as its answer, not every driver tells whether something was.
        kept = await connection.execute(statement.on_conflict_do_nothing().returning(StoredApiKey.id))
        return kept.first() is not None


async def find(engine: AsyncEngine, identity: str) -> KeyRecord | None:
    async with AsyncSession(engine) as session:
        row = await session.get(StoredApiKey, identity)
        return _record(row) if row else None


async def accounts(engine: AsyncEngine) -> list[Account]:
    """Those that have keys, also ended ones."""
    query = select(StoredApiKey.namespace, StoredApiKey.service_account).distinct()
    async with engine.connect() as connection:
        return sorted(Account(*row) for row in (await connection.execute(query)).all())


async def of_accounts(
    engine: AsyncEngine, wanted: list[Account], limit: int, after: Mark | None = None
) -> list[KeyRecord]:
    """The newest first."""
    place = tuple_(StoredApiKey.namespace, StoredApiKey.service_account)
    conditions: list[ColumnElement[bool]] = [place.in_([tuple(account) for account in wanted])]
    if after is not None:
        conditions.append(beyond(StoredApiKey.created_at, StoredApiKey.id, after))
    query = (
        select(StoredApiKey).where(*conditions).order_by(StoredApiKey.created_at.desc(), StoredApiKey.id).limit(limit)
    )
    async with AsyncSession(engine) as session:
        return [_record(row) for row in await session.scalars(query)]


async def count_active(engine: AsyncEngine, account: Account, now: datetime) -> int:
    query = select(func.count()).where(
        StoredApiKey.namespace == account.namespace,
        StoredApiKey.service_account == account.name,
        StoredApiKey.revoked_at.is_(None),
        StoredApiKey.expires_at > now,
    )
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def note_use(engine: AsyncEngine, key: KeyRecord, now: datetime) -> bool:
    """Whether it was noted: once a minute is enough to know that a key is used."""
    if key.last_used_at is not None and now - key.last_used_at < USE_NOTED_EVERY:
        return False
    async with engine.begin() as connection:
        await connection.execute(update(StoredApiKey).where(StoredApiKey.id == key.id).values(last_used_at=now))
    return True


async def revoke(engine: AsyncEngine, identity: str, now: datetime, by: str) -> None:
    """For good; the first time counts."""
    which = (StoredApiKey.id == identity) & StoredApiKey.revoked_at.is_(None)
    async with engine.begin() as connection:
        await connection.execute(update(StoredApiKey).where(which).values(revoked_at=now, revoked_by=by))


def _record(row: StoredApiKey) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        digest=row.digest,
        name=row.name,
        account=Account(row.namespace, row.service_account),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
