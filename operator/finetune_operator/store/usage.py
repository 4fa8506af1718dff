"""What versions have answered: sums of each gateway process by the day, so that all days of a version are few rows."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import UsageReport
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import VersionUsage

COUNTS = ("calls", "failed", "calls_with_tokens", "prompt_tokens", "completion_tokens")
IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Used:
    """All that is recorded of one version, and from which day to which; tokens of `calls_with_tokens` calls."""

    calls: int
    failed: int
    calls_with_tokens: int
    prompt_tokens: int
    completion_tokens: int
    first_day: date
    last_day: date


async def record(engine: AsyncEngine, report: UsageReport) -> None:
    """Sums only grow: an older report that comes late changes nothing."""
    # In one order everywhere, lest two reports wait for each other.
    days = sorted(report.days, key=lambda each: (each.version_uid, each.day))
    if not days:
        return
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(VersionUsage)
        statement = insert.on_conflict_do_update(
            index_elements=["version_uid", "day", "reporter"],
            set_={name: insert.excluded[name] for name in COUNTS},
            where=((insert.excluded.calls >= VersionUsage.calls) & (insert.excluded.failed >= VersionUsage.failed)),
        )
        await connection.execute(statement, [{"reporter": report.reporter} | each.model_dump() for each in days])


async def of_versions(engine: AsyncEngine, version_uids: Collection[str]) -> dict[str, Used]:
    """By the uid; a version that nobody has asked is absent."""
    uids = sorted(version_uids)
    found: dict[str, Used] = {}
    async with engine.connect() as connection:
        for start in range(0, len(uids), IDS_PER_QUERY):
            sums = (func.sum(getattr(VersionUsage, name)) for name in COUNTS)
            query = (
                select(VersionUsage.version_uid, *sums, func.min(VersionUsage.day), func.max(VersionUsage.day))
                .where(VersionUsage.version_uid.in_(uids[start : start + IDS_PER_QUERY]))
                .group_by(VersionUsage.version_uid)
            )
            for uid, *counts, first, last in await connection.execute(query):
                found[uid] = _used([int(each) for each in counts], first, last)
    return found


def _used(counts: list[int], first: date, last: date) -> Used:
    calls, failed, with_tokens, prompt, completion = counts
    return Used(calls, failed, with_tokens, prompt, completion, first, last)
