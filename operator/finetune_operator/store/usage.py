"""What versions have answered: sums of each gateway process by the day, so that all days of a version are few rows.

A batch inference, whose pod asks engines itself, has one row for each of its versions, of the day on which it ended.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from operator import itemgetter

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from finetune_operator.contract.usage import UsageReport
from finetune_operator.store.database import upsert_dialect
from finetune_operator.store.tables import VersionUsage

COUNTS = ("calls", "failed", "calls_with_tokens", "prompt_tokens", "completion_tokens")
IDS_PER_QUERY = 500
BATCH_REPORTER = "batch-"
"""Before a batch's uid; a gateway process is a uid alone."""


@dataclass(frozen=True)
class Used:
    """All that is recorded of one version, and from which day to which; tokens of `calls_with_tokens` calls.

    `batch_calls` of the calls were batch inferences'. They say nothing of how many come in a day: where there are
    others, the days are those of the others.
    """

    calls: int
    failed: int
    calls_with_tokens: int
    prompt_tokens: int
    completion_tokens: int
    first_day: date
    last_day: date
    batch_calls: int = 0


async def record(engine: AsyncEngine, *reports: UsageReport) -> None:
    """Sums only grow: an older report that comes late changes nothing."""
    days = [{"reporter": report.reporter} | each.model_dump() for report in reports for each in report.days]
    if not days:
        return
    # In one order everywhere, lest two reports wait for each other.
    days.sort(key=itemgetter("version_uid", "day", "reporter"))
    async with engine.begin() as connection:
        insert = upsert_dialect(connection.dialect).insert(VersionUsage)
        statement = insert.on_conflict_do_update(
            index_elements=["version_uid", "day", "reporter"],
            set_={name: insert.excluded[name] for name in COUNTS},
            where=and_(
                insert.excluded.calls >= VersionUsage.calls,
                insert.excluded.failed >= VersionUsage.failed,
                # A batch tells the same again whenever it is seen.
                or_(*(insert.excluded[name].is_distinct_from(getattr(VersionUsage, name)) for name in COUNTS)),
            ),
        )
        await connection.execute(statement, days)


async def of_versions(engine: AsyncEngine, version_uids: Collection[str]) -> dict[str, Used]:
    """By the uid; a version that nobody has asked is absent."""
    uids = sorted(version_uids)
    found: dict[str, Used] = {}
    async with engine.connect() as connection:
        for start in range(0, len(uids), IDS_PER_QUERY):
            sums = (func.sum(getattr(VersionUsage, name)) for name in COUNTS)
            is_batch, day = VersionUsage.reporter.startswith(BATCH_REPORTER), VersionUsage.day
            of_gateways = case((~is_batch, day))
            first = func.coalesce(func.min(of_gateways), func.min(day))
            last = func.coalesce(func.max(of_gateways), func.max(day))
            of_batches = func.sum(case((is_batch, VersionUsage.calls), else_=0))
            query = (
                select(VersionUsage.version_uid, *sums, of_batches, first, last)
                .where(VersionUsage.version_uid.in_(uids[start : start + IDS_PER_QUERY]))
                .group_by(VersionUsage.version_uid)
            )
            for uid, *counts, first_day, last_day in await connection.execute(query):
                found[uid] = _used([int(each) for each in counts], first_day, last_day)
    return found


def _used(counts: list[int], first: date, last: date) -> Used:
    calls, failed, with_tokens, prompt, completion, of_batches = counts
    return Used(calls, failed, with_tokens, prompt, completion, first, last, of_batches)
